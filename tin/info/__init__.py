"""What is installed here, what a checkpoint file is, and how large a network is: facts for people and for JSON."""

from __future__ import annotations

from tin.info.checkpoint import describe_checkpoint
from tin.info.environment import Missing, describe_environment, missing
from tin.info.network import describe_network

__all__ = ["Missing", "describe_checkpoint", "describe_environment", "describe_network", "missing"]
