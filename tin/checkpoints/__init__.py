"""Weights on disk: written so that no crash loses them, read from any of the names the field has given them."""

from __future__ import annotations

from tin.checkpoints.averages import Weights
from tin.checkpoints.convert import Conversion, convert_checkpoint
from tin.checkpoints.files import save_checkpoint
from tin.checkpoints.loading import LoadReport, load_checkpoint
from tin.checkpoints.reading import load_state

__all__ = [
    "Conversion",
    "LoadReport",
    "Weights",
    "convert_checkpoint",
    "load_checkpoint",
    "load_state",
    "save_checkpoint",
]
