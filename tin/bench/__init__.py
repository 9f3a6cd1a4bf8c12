"""Speeds that mean something: every figure is timed against its yardstick, in turns, in the same process."""

from __future__ import annotations

from tin.bench.files import data
from tin.bench.machine import describe
from tin.bench.memory import saved_bytes
from tin.bench.networks import inference, model
from tin.bench.shapes import op
from tin.bench.timing import quantiles, time_in_turns
from tin.bench.train import train

__all__ = ["data", "describe", "inference", "model", "op", "quantiles", "saved_bytes", "time_in_turns", "train"]
