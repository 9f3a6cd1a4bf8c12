"""Training: parameter groups, learning-rate schedule, distribution over processes, and the loop."""

from __future__ import annotations

from tin.train.keeper import CheckpointKeeper, load_for_resume
from tin.train.loop import Trainer, scaled_lr
from tin.train.optim import build_optimizer, freeze_partial_bn, parameter_groups
from tin.train.progress import NullReporter, Reporter
from tin.train.run import EpochLoader, Interrupted, Progress, TrainResult
from tin.train.schedule import lr_factor
from tin.train.step import Outcome, TrainStep

__all__ = [
    "CheckpointKeeper",
    "EpochLoader",
    "Interrupted",
    "NullReporter",
    "Outcome",
    "Progress",
    "Reporter",
    "TrainResult",
    "TrainStep",
    "Trainer",
    "build_optimizer",
    "freeze_partial_bn",
    "load_for_resume",
    "lr_factor",
    "parameter_groups",
    "scaled_lr",
]
