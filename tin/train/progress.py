"""What a running training tells whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StepReport:
    """Averages since the last report."""

    epoch: int
    """From 1."""
    epochs: int
    step: int
    """Steps done in this epoch."""
    steps: int
    loss: float
    top1: float
    lr: float
    clips_per_second: float
    """Over all processes."""
    data_wait: float
    """Part of the time spent waiting for the loader, 0…1."""
    grad_norm: float | None
    memory_mb: float
    """Peak GPU memory, or resident memory on a CPU."""
    eta_s: float
    """Seconds left, validation not counted."""


class Reporter(Protocol):
    """Receives events on the main process; see `cli.console` for the terminal's."""

    def message(self, text: str) -> None: ...

    def epoch_start(self, epoch: int, epochs: int, first_step: int, steps: int) -> None: ...

    def step(self, done: int) -> None: ...

    def report(self, report: StepReport) -> None: ...

    def validation(self, epoch: int, metrics: Mapping[str, float], best: bool) -> None: ...


class NullReporter:
    """Says nothing."""

    def message(self, text: str) -> None: ...

    def epoch_start(self, epoch: int, epochs: int, first_step: int, steps: int) -> None: ...

    def step(self, done: int) -> None: ...

    def report(self, report: StepReport) -> None: ...

    def validation(self, epoch: int, metrics: Mapping[str, float], best: bool) -> None: ...
