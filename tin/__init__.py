"""Temporal Interlacing Networks: the model and everything that happens to it. Names load when they are first used.

What is public, and what versions promise, is in docs/versions.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tin.errors import TinError

if TYPE_CHECKING:
    from tin import checkpoints, distributed, evaluation, export, inference, models, ops, recipes, train, weights, zoo
    from tin.checkpoints import LoadReport, load_checkpoint
    from tin.models import build_model
    from tin.prediction import Prediction, predict
    from tin.trained import Trained, load_trained

__version__ = "0.1.0"  # the only place: setuptools reads it here

__all__ = [
    "LoadReport",
    "Prediction",
    "TinError",
    "Trained",
    "build_model",
    "checkpoints",
    "distributed",
    "evaluation",
    "export",
    "inference",
    "load_checkpoint",
    "load_trained",
    "models",
    "ops",
    "predict",
    "recipes",
    "train",
    "weights",
    "zoo",
]

# torch and torchvision take seconds to import: `tin-cli --help` and the handling of TinError must not wait for them.
_HOME = {
    "LoadReport": "tin.checkpoints",
    "Prediction": "tin.prediction",
    "Trained": "tin.trained",
    "build_model": "tin.models",
    "load_checkpoint": "tin.checkpoints",
    "load_trained": "tin.trained",
    "predict": "tin.prediction",
}

if not TYPE_CHECKING:  # a type checker knows the names above, and that there are no others

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(importlib.import_module(_HOME[name]), name)
        if name in __all__:
            return importlib.import_module(f"tin.{name}")
        raise AttributeError(f"module 'tin' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
