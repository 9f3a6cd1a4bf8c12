"""Training: parameter groups, learning-rate schedule, distribution over processes, and the loop."""

from __future__ import annotations

from tin.train.loop import Interrupted, Trainer, TrainResult, scaled_lr
from tin.train.optim import build_optimizer, freeze_partial_bn, parameter_groups
from tin.train.progress import NullReporter, Reporter
from tin.train.schedule import lr_factor

__all__ = [
    "Interrupted",
    "NullReporter",
    "Reporter",
    "TrainResult",
    "Trainer",
    "build_optimizer",
    "freeze_partial_bn",
    "lr_factor",
    "parameter_groups",
    "scaled_lr",
]
