"""What a training checkpoint holds, and how a run takes it up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tin.distributed import World
from tin.errors import TinError
from tin.recipes import Recipe
from tin.train.ema import Ema
from tin.train.provenance import git_commit, versions
from tin.train.rng import rng_state, set_rng_state

__all__ = ["FORMAT", "VERSION", "restore", "snapshot", "versions"]

FORMAT = "tin-checkpoint"
VERSION = 2
"""1 had no averages, loader, generators, commit and world size, and counted the running epoch in steps alone."""


def snapshot(
    recipe: Recipe,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    progress: Mapping[str, Any],
    global_batch: int,
    *,
    seed: int,
    label_names: Sequence[str] | None,
    lists: Mapping[str, str],
    ema: Ema | None = None,
    loader: Mapping[str, Any] | None = None,
    world_size: int = 1,
) -> dict[str, Any]:
    """Everything a run needs to go on, as plain types and tensors that `weights_only` loading accepts.

    Copies nothing: the tensors are the run's own, so save them before the next step (`CheckpointKeeper` copies them at once).
    Waits for the device only to read the loss scale of fp16. The schedule is a function of the recipe and of `progress`.

    Args:
        recipe, seed, label_names, lists: what decided the run.
        model, optimizer, scaler, ema: what its steps change. The model is the network itself, not wrapped for DDP.
        progress: where it stands (`tin.train.run.Progress`), as plain values.
        global_batch: clips of one step, over all ranks.
        loader: `state_dict()` of the training loader.
        world_size: processes.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "state_dict": model.state_dict(),
        **({"ema": ema.state_dict()} if ema else {}),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "progress": dict(progress),
        "loader": dict(loader) if loader is not None else None,
        "rng": rng_state(_device(model)),
        "world_size": world_size,
        "global_batch": global_batch,
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "label_names": list(label_names) if label_names else None,
        "lists": dict(lists),
        "versions": versions(),
        "git": git_commit(),
    }


def restore(
    state: Mapping[str, Any],
    source: Path,
    recipe: Recipe,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    global_batch: int,
    *,
    ema: Ema | None = None,
    world: World | None = None,
) -> dict[str, Any]:
    """Put a snapshot back into a run's objects, on every rank. Snapshots of version 1 are read too.

    What a state lacks starts anew: averages begin at its weights, a loss scale at its first value. The generators of Python,
    numpy and PyTorch are those of rank 0 and go back there alone; the loop seeds PyTorch's at each step, on each rank.

    Args:
        source: the file, for messages.
        global_batch: clips of one step now, which may be another number than before.
        world: this process among those of the run now, which may be more or fewer than before.

    Returns:
        The `progress` to continue from. `samples` and `global_step` count what was done and are as they were; `step` is what
        `samples` are in steps of now.

    Raises:
        TinError: not a training checkpoint, another model, or another length of the schedule.
    """
    _require_same_run(state, source, recipe)
    progress = dict(state["progress"])
    if progress["epoch"] >= recipe.schedule.epochs:
        raise TinError(f"{source} has finished its {progress['epoch']} epochs; raise --epochs to train on")
    model.load_state_dict(state["state_dict"])
    optimizer.load_state_dict(state["optimizer"])
    if state["scaler"]:  # empty where the run had none
        scaler.load_state_dict(state["scaler"])
    if ema:
        floats = {name: value for name, value in state["state_dict"].items() if value.is_floating_point()}
        ema.load_state_dict(state.get("ema") or {"updates": 0, "averages": floats})
    if "rng" in state and (world or World()).is_main:
        set_rng_state(state["rng"], _device(model))
    if state["version"] == 1:
        progress["samples"] = progress["step"] * state["global_batch"]
    progress["step"] = progress["samples"] // global_batch
    return progress


_KEPT: tuple[tuple[str, str, Any], ...] = (
    ("model", "arch", None),
    ("model", "num_classes", None),
    ("model", "num_segments", None),
    ("model", "shift_div", None),
    ("optim", "kind", "sgd"),
    ("optim", "partial_bn", False),
    ("data", "repeats", 1),
    ("data", "class_balanced", 0.0),
)
"""Settings that say what the numbers in a state mean, and what they were in checkpoints that are too old to have them."""


def _require_same_run(state: Mapping[str, Any], source: Path, recipe: Recipe) -> None:
    if state.get("format") != FORMAT:
        raise TinError(
            f"{source} is not a training checkpoint of tin-cli; give it with --pretrained instead of --resume"
        )
    if state["version"] > VERSION:
        raise TinError(
            f"{source} has format {state['version']}, this tin-video reads up to {VERSION}: resume it with the version that "
            f"wrote it ({state['versions']['tin']}) or a newer one"
        )
    for section, key, before_it_was in _KEPT:
        before = state["recipe"][section].get(key, before_it_was)
        now = getattr(getattr(recipe, section), key)
        if before != now:
            raise TinError(
                f"{source} was trained with {section}.{key} = {before}, this run has {now}; a resumed run must keep it"
            )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
