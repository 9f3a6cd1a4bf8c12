"""What a training checkpoint holds, and how a run takes it up again."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import tin
from tin.errors import TinError
from tin.recipes import Recipe

FORMAT = "tin-checkpoint"


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
) -> dict[str, Any]:
    """Everything a run needs to go on, as plain types and tensors that `weights_only` loading accepts."""
    return {
        "format": FORMAT,
        "version": 1,
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "progress": dict(progress),
        "global_batch": global_batch,
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "label_names": list(label_names) if label_names else None,
        "lists": dict(lists),
        "versions": versions(),
    }


def restore(
    state: Mapping[str, Any],
    source: Path,
    recipe: Recipe,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    global_batch: int,
) -> dict[str, Any]:
    """Put a snapshot back into a run's objects.

    Returns:
        The `progress` to continue from, its step converted when the global batch is another one now.

    Raises:
        TinError: not a training checkpoint, another model, or another length of the schedule.
    """
    if state.get("format") != FORMAT:
        raise TinError(
            f"{source} is not a training checkpoint of tin-cli; give it with --pretrained instead of --resume"
        )
    saved = state["recipe"]
    for key in ("arch", "num_classes", "num_segments", "shift_div"):
        now = getattr(recipe.model, key)
        if saved["model"][key] != now:
            raise TinError(f"{source} was trained with model.{key} = {saved['model'][key]}, this run has {now}")
    if saved["optim"]["partial_bn"] != recipe.optim.partial_bn:
        raise TinError(
            f"{source} was trained with optim.partial_bn = {saved['optim']['partial_bn']}; a resumed run must keep it"
        )
    for key, off in (("repeats", 1), ("class_balanced", 0.0)):  # what an epoch is; older checkpoints lack them
        before, now = saved["data"].get(key, off), getattr(recipe.data, key)
        if before != now:
            raise TinError(
                f"{source} was trained with data.{key} = {before}, this run has {now}; a resumed run must keep it"
            )
    progress = dict(state["progress"])
    if progress["epoch"] >= recipe.schedule.epochs:
        raise TinError(f"{source} has finished its {progress['epoch']} epochs; raise --epochs to train on")
    model.load_state_dict(state["state_dict"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    if state["global_batch"] != global_batch:
        scale = state["global_batch"] / global_batch
        progress["step"] = int(progress["step"] * scale)
        progress["global_step"] = int(progress["global_step"] * scale)
    return progress


def versions() -> dict[str, str]:
    """Versions of what computed."""
    return {
        "tin": tin.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
