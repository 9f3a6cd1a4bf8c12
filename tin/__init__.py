"""Temporal Interlacing Networks: the model and everything that happens to it. Names load when they are first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tin.errors import TinError

if TYPE_CHECKING:
    from tin.checkpoints import LoadReport, load_checkpoint
    from tin.models import build_model

__version__ = "0.1.0"

__all__ = ["LoadReport", "TinError", "build_model", "load_checkpoint"]

# torch and torchvision take seconds to import: `tin-cli --help` and the handling of TinError must not wait for them.
_HOME = {"LoadReport": "tin.checkpoints", "build_model": "tin.models", "load_checkpoint": "tin.checkpoints"}
_MODULES = {
    "bench",
    "checkpoints",
    "distributed",
    "evaluation",
    "inference",
    "models",
    "ops",
    "recipes",
    "train",
    "weights",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"tin.{name}")
    raise AttributeError(f"module 'tin' has no attribute '{name}'")
