"""Small training states whose every number says their step, and what a folder of them holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tin.checkpoints import load_state
from tin.recipes import CheckpointSettings
from tin.train.keeper import CheckpointKeeper


def state(step: int, epoch: int = 0, best: int | None = None, numbers: int = 1000) -> dict[str, Any]:
    """A small training state, every number of which says its step."""
    return {
        "format": "tin-checkpoint",
        "version": 2,
        "state_dict": {"w": torch.full((numbers,), float(step)), "b": torch.full((7,), step)},
        "progress": {
            "epoch": epoch,
            "samples": 0,
            "global_step": step,
            "best": {} if best is None else {"epoch": float(best)},
        },
    }


def step_of(path: Path) -> int:
    """The step of a file, which must be one whole state."""
    found = load_state(path)
    step = found["progress"]["global_step"]
    assert found["state_dict"]["w"].eq(step).all()
    assert found["state_dict"]["b"].eq(step).all()
    return int(step)


def steps(folder: Path) -> dict[str, int]:
    """Everything in a folder, which must be whole checkpoints alone."""
    return {path.name: step_of(path) for path in sorted(folder.iterdir())}


def keeper(folder: Path, said: list[str] | None = None, **settings: Any) -> CheckpointKeeper:
    return CheckpointKeeper(folder, CheckpointSettings(**settings), [].append if said is None else said.append)


def refuse(text: str) -> None:
    raise AssertionError(f"nothing should be said, but: {text}")
