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
    top5: float | None
    """None where five classes are all there are."""
    lrs: Mapping[str, float]
    """Of each parameter group, by its name."""
    updates: int
    """Steps of the whole run that moved the weights."""
    skipped: int
    """Steps of the whole run left out because their numbers were not finite."""
    bad_videos: int
    """Videos that could not be used, all processes together."""
    gpu_utilisation: float | None
    """Of the main process's GPU, 0…1; None on a CPU or where NVML is not to be had."""
    scale: float | None
    """Of the fp16 loss; None without one."""
    best: float | None = None
    """Top-1 accuracy of the best validation so far, 0…1."""


class Reporter(Protocol):
    """Receives events on the main process; see `cli.console` for the terminal's."""

    def message(self, text: str) -> None: ...

    def epoch_start(self, epoch: int, epochs: int, first_step: int, steps: int) -> None: ...

    def step(self, done: int) -> None: ...

    def report(self, report: StepReport) -> None: ...

    def validating(self, done: int, total: int) -> None:
        """Videos of this process that a running validation has scored."""

    def validation(self, epoch: int, metrics: Mapping[str, float], best: bool) -> None: ...


class NullReporter:
    """Says nothing; a base for reporters that care about some events alone."""

    def message(self, text: str) -> None: ...

    def epoch_start(self, epoch: int, epochs: int, first_step: int, steps: int) -> None: ...

    def step(self, done: int) -> None: ...

    def report(self, report: StepReport) -> None: ...

    def validating(self, done: int, total: int) -> None:
        """Videos of this process that a running validation has scored."""

    def validation(self, epoch: int, metrics: Mapping[str, float], best: bool) -> None: ...
