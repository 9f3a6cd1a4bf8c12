"""Checks of a loader's arguments, each with an error that names it."""

from __future__ import annotations

import os

import torch

from pipelines.errors import SettingsError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def default_workers() -> int:
    """Decoding processes of one rank: the cores it may use, shared with the machine's other ranks, at most 16."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(16, len(os.sched_getaffinity(0)) // max(1, ranks)))


def checked_device(device: str | torch.device) -> torch.device:
    """A device with its number. Raises SettingsError for one that is unknown, not supported, or not here."""
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise SettingsError(f"unknown device {device!r}: use cpu, cuda or cuda:N") from None
    if chosen.type not in ("cpu", "cuda"):
        raise SettingsError(f"device {device!r} is not supported: use cpu, cuda or cuda:N")
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise SettingsError(f"device {device!r}: torch finds no CUDA GPU here; use cpu")
        chosen = torch.device("cuda", torch.cuda.current_device() if chosen.index is None else chosen.index)
    return chosen


def checked_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """One of `DTYPES`. Raises SettingsError for another."""
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen not in DTYPES.values():
        raise SettingsError(f"unknown dtype {dtype!r}: use {', '.join(DTYPES)}")
    assert chosen is not None
    return chosen


def at_least(name: str, value: object, low: int) -> None:
    """Raise SettingsError, naming the argument, when it is no whole number from `low` on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise SettingsError(f"{name} {value!r} must be a whole number of at least {low}")
