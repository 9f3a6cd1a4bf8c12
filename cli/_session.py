"""From a checkpoint to a network that is ready to score videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli._options import with_device_defaults

if TYPE_CHECKING:
    import torch

    from tin.checkpoints.loading import Weights
    from tin.distributed import World
    from tin.inference import PreparedModel
    from tin.models import TemporalResNet
    from tin.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Session:
    """A checkpoint's network on its device, and what it was trained as."""

    recipe: Recipe
    """The checkpoint's or the one that was named, with the overrides and the device's defaults."""
    network: TemporalResNet
    device: torch.device
    averaged: bool
    """Whether these are the averages (EMA) that the checkpoint has of its weights."""
    label_names: list[str] | None
    """Class names by number, where the checkpoint has them for each of its classes."""
    state: dict[str, Any]
    """What the checkpoint holds beside weights: `lists` and more, where tin-cli train wrote it."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass, by the recipe's mixed precision."""
        from tin.train.amp import autocast

        return autocast(self.recipe.train.amp, self.device)

    def scorer(self, fast: bool, batch_size: int) -> Callable[[torch.Tensor], torch.Tensor]:
        """Frames to logits: the network, or with `fast` a copy that is prepared for full batches of so many videos."""
        return self._prepared(batch_size) if fast else self.network

    def _prepared(self, batch_size: int) -> PreparedModel:
        import torch

        from cli._data import clip_spec
        from tin.inference import prepare
        from tin.train.amp import DTYPES

        spec = clip_spec(self.recipe)
        frames = batch_size * spec.num_views(training=False) * spec.num_segments
        side = spec.short_side if spec.test_crop == "three" else spec.input_size
        example = torch.zeros(frames, 3, side, side, device=self.device)
        return prepare(self.network, example, dtype=DTYPES.get(self.recipe.train.amp, torch.float32))


def open_session(
    checkpoint: Path,
    *,
    recipe_name: str | None,
    overrides: Sequence[str],
    device: str,
    amp_was_asked: bool,
    world: World,
    weights: Weights = "auto",
) -> Session:
    """Build the model that a checkpoint was trained as, on its device, with the checkpoint's weights.

    Args:
        checkpoint: of tin-cli train, or any that the named recipe fits.
        recipe_name: instead of the recipe in the checkpoint.
        overrides: of the recipe, as --set takes them.
        device: --device.
        amp_was_asked: whether mixed precision was named on the command line.
        world: the processes of the run.
        weights: which, of a checkpoint that has averages of them too (`tin.load_checkpoint`).

    Raises:
        TinError: the file cannot be read, or is not this model; no recipe, or no such recipe or device.
    """
    from tin import load_trained
    from tin.allocator import keep_freed_memory
    from tin.distributed import resolve_device

    place = resolve_device(device, world)
    if place.type == "cpu":
        keep_freed_memory()
    trained = load_trained(checkpoint, recipe=recipe_name, overrides=overrides, device=place, weights=weights)
    recipe = with_device_defaults(trained.recipe, place, amp_was_asked)
    return Session(
        recipe=recipe, network=trained.model, device=place, averaged=trained.report.averaged, label_names=trained.label_names,
        state=trained.state,
    )  # fmt: skip
