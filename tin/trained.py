"""From a checkpoint to the network that was trained, ready to use, with what its run wrote down beside the weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tin import recipes
from tin.checkpoints import LoadReport, Weights, load_checkpoint, load_state
from tin.checkpoints.convert_beside import carried_run
from tin.errors import TinError
from tin.models import TemporalResNet, build_model
from tin.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A network with the weights of a checkpoint, and what it was trained as."""

    model: TemporalResNet
    """In evaluation mode, channels_last, on the device that was asked for."""
    recipe: Recipe
    """The checkpoint's, or the one that was given instead, with the overrides."""
    report: LoadReport
    """Of loading; complete."""
    state: dict[str, Any]
    """What the checkpoint holds beside weights and optimiser: `label_names`, `lists` and more, where a run of ours wrote it."""

    @property
    def label_names(self) -> list[str] | None:
        """Class names by number, where the checkpoint has them for each of the model's classes."""
        names = self.state.get("label_names")
        return names if isinstance(names, list) and len(names) == self.model.num_classes else None


def load_trained(
    path: str | os.PathLike[str],
    *,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    overrides: Sequence[str] = (),
    device: torch.device | str = "cpu",
    weights: Weights = "auto",
) -> Trained:
    """Build the model that a checkpoint was trained as, with its weights, ready to predict, test or export.

    Args:
        path: a checkpoint of `tin.train.Trainer` or `tin-cli train`, which holds its recipe, or what `tin-cli convert` made of one;
            or any file of
            `tin.load_checkpoint`, with `recipe`.
        recipe: what the model was trained by, instead of the checkpoint's own: a Recipe, or a name or file of `tin.recipes.load`.
        overrides: of the recipe, as `tin.recipes.load` takes them: `data.test_crop=three`.
        device: where to put the model.
        weights: of a checkpoint with averages (EMA) of its weights, which of them (`tin.load_checkpoint`).

    Raises:
        TinError: the file cannot be read; it holds no recipe and none was given; the recipe is wrong; a weight of this model is
            not in the file, or one of the file not in the model.
    """
    state = load_state(Path(path))
    state |= carried_run(state)
    wanted = _recipe(path, state, recipe, overrides)
    model = build_model(**wanted.model.model_dump(exclude={"pretrained"}))
    report = load_checkpoint(model, path, weights=weights)
    report.require_complete()
    model.to(device, memory_format=torch.channels_last)
    rest = {key: value for key, value in state.items() if key not in _LARGE and not isinstance(value, torch.Tensor)}
    return Trained(model=model.eval(), recipe=wanted, report=report, state=rest)


_LARGE = ("state_dict", "model", "ema", "optimizer")


def _recipe(
    path: str | os.PathLike[str],
    state: dict[str, Any],
    recipe: Recipe | str | os.PathLike[str] | None,
    overrides: Sequence[str],
) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipes.from_dict(recipe.model_dump(mode="json"), overrides=overrides)
    if recipe is not None:
        return recipes.load(recipe if isinstance(recipe, str) else Path(recipe), overrides)
    if "recipe" not in state:
        raise TinError(
            f"{path} holds no recipe: name the one that its model was trained by, with recipe= or, of tin-cli, --recipe"
        )
    return recipes.from_dict(state["recipe"], f"the recipe in {path}", overrides)
