"""A run's written record: JSON lines and TensorBoard events with the same numbers."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from tin.train.progress import StepReport


class RunLog:
    """Writes `log.jsonl` and `tensorboard/` below a run's folder; a resumed run appends to both."""

    def __init__(self, work_dir: Path, first_step: int = 0) -> None:
        """Args:
        work_dir: the run's folder.
        first_step: TensorBoard points from this global step on belong to an interrupted run and are hidden.
        """
        self._lines = (work_dir / "log.jsonl").open("a", encoding="utf-8")
        self._writer = SummaryWriter(str(work_dir / "tensorboard"), purge_step=first_step or None)

    def event(self, kind: str, values: Mapping[str, Any]) -> None:
        """One JSON line, with its time (seconds since 1970)."""
        self._lines.write(json.dumps({"event": kind, "time": round(time.time(), 3), **values}) + "\n")
        self._lines.flush()

    def step(self, global_step: int, report: StepReport, group_lrs: Mapping[str, float]) -> None:
        """The averages since the last report."""
        self.event("step", {"global_step": global_step, **dataclasses.asdict(report)})
        scalars = {
            "train/loss": report.loss,
            "train/top1": report.top1,
            "train/lr": report.lr,
            "speed/clips_per_second": report.clips_per_second,
            "speed/data_wait": report.data_wait,
            "system/memory_mb": report.memory_mb,
            **{f"lr/{name}": lr for name, lr in group_lrs.items()},
        }
        if report.grad_norm is not None:
            scalars["train/grad_norm"] = report.grad_norm
        self.scalars(global_step, scalars)

    def validation(self, global_step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Metrics of a validation."""
        self.event("validation", {"global_step": global_step, "epoch": epoch, **metrics})
        self.scalars(global_step, {f"val/{name}": value for name, value in metrics.items()})

    def scalars(self, global_step: int, values: Mapping[str, float]) -> None:
        """Points of TensorBoard curves."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, global_step)

    def text(self, name: str, text: str) -> None:
        """A Markdown text in TensorBoard."""
        self._writer.add_text(name, text)

    def flush(self) -> None:
        """Make everything written so far visible to readers."""
        self._lines.flush()
        self._writer.flush()

    def close(self) -> None:
        self._lines.close()
        self._writer.close()
