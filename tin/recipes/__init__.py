"""Recipes: everything that decides how a model is trained and tested, as data that is checked before anything starts."""

from __future__ import annotations

from tin.recipes.load import DATASET_RECIPES, available, from_dict, load
from tin.recipes.schema import (
    CheckpointSettings,
    DataSettings,
    ModelSettings,
    OptimSettings,
    Recipe,
    ScheduleSettings,
    TrainSettings,
)

__all__ = [
    "DATASET_RECIPES",
    "CheckpointSettings",
    "DataSettings",
    "ModelSettings",
    "OptimSettings",
    "Recipe",
    "ScheduleSettings",
    "TrainSettings",
    "available",
    "from_dict",
    "load",
]
