"""A run seen from outside: the loader it asks for, where it stands, how it ends."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


class EpochLoader(Protocol):
    """What the loop asks of a loader (`pipelines.Loader` is one).

    It may have more, which is used where it is: `failures` and `check_failures`, `state_dict`.
    """

    @property
    def steps_left(self) -> int:
        """Batches that the next iteration gives."""

    def __len__(self) -> int:
        """Batches of a whole epoch."""

    def __iter__(self) -> Iterator[Any]:
        """Batches with `frames`, `labels` and `ids` of batch_size · accumulate clips."""

    def set_epoch(self, epoch: int, *, start_sample: int) -> None:
        """Begin at that clip of the epoch's order over all processes."""


@dataclass
class Progress:
    """Where a run stands; part of every checkpoint."""

    epoch: int = 0
    """Epochs finished, validation included."""
    step: int = 0
    """Steps done in the running epoch."""
    samples: int = 0
    """Clips of the running epoch that all processes together have trained on."""
    global_step: int = 0
    """Steps taken, whatever their batch."""
    skipped: int = 0
    """Those of them that left the weights alone, because their numbers were not finite."""
    best: dict[str, float] = field(default_factory=dict)
    """Metrics of the best validation, by top-1, with its epoch."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    epochs: int
    metrics: Mapping[str, float]
    """Of the last validation; empty without one."""
    best: Mapping[str, float]
    seconds: float


class Interrupted(Exception):
    """A signal ended the run after a finished, saved step."""

    def __init__(self, signum: int, checkpoint: Path) -> None:
        super().__init__(
            f"interrupted by {signal.Signals(signum).name}; state saved in {checkpoint}, --resume goes on from there"
        )
        self.exit_status = 128 + signum
