"""A run's written record: JSON lines, and TensorBoard events with the same numbers and pictures."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from tin.evaluation import Scores
from tin.models.inspect import BlockShift
from tin.monitoring.clips import MAX_CLIPS, clip_grid, clip_tiles
from tin.monitoring.confusion import confusion_counts, draw_confusion, most_confused, write_confusion
from tin.monitoring.events import EventFile
from tin.monitoring.files import Appender, Warn, drop_unfinished_line
from tin.monitoring.offsets import LIMIT, OffsetHistory
from tin.train.progress import StepReport

if TYPE_CHECKING:
    from tin.recipes import Recipe

COMPARED = ("val/top1_acc", "val/top5_acc", "val/mean_class_accuracy", "best/top1_acc", "best/epoch")
"""Curves whose last points stand beside the hyper-parameters."""


class RunLog:
    """Writes `log.jsonl`, `tensorboard/`, `offsets.jsonl` and `confusion.csv` below a run's folder.

    The main process has one. It is called where the loop has read the device's numbers anyway; `clips` alone may be called
    at any time and waits for nothing. A full disk never stops a run (`tin.monitoring.files`). A resumed run appends.

    Args:
        work_dir: the run's folder.
        first_step: steps that the run has behind it; TensorBoard's points past it belong to an interrupted run and are hidden.
        recipe: the run's.
        label_names: of the classes; their numbers without.
        world_size: processes of the run.
        warn: told about trouble with the disk.

    Raises:
        TinError: a file cannot be made.
    """

    def __init__(
        self,
        work_dir: Path,
        first_step: int,
        recipe: Recipe,
        *,
        label_names: Sequence[str] | None = None,
        world_size: int = 1,
        warn: Warn = warnings.warn,
    ) -> None:
        self._work_dir, self._recipe, self._warn = work_dir, recipe, warn
        self._names = list(label_names) if label_names else None
        self._origin = {"host": platform.node(), "world_size": world_size}
        self._clips: tuple[int, Tensor, Tensor, list[str] | None] | None = None
        drop_unfinished_line(work_dir / "log.jsonl")
        self._lines = Appender(work_dir / "log.jsonl", warn)
        self._offsets = OffsetHistory(work_dir / "offsets.jsonl", first_step, warn)
        # What was logged at first_step itself was saved with it: only what came later is done again.
        self._events = EventFile(work_dir / "tensorboard", first_step + 1, warn)
        self._events.hyper_parameters(flat_recipe(recipe), list(COMPARED))

    def event(self, kind: str, values: Mapping[str, Any]) -> None:
        """One JSON line, with its time (seconds since 1970), host and world size. What is not finite becomes null."""
        line = {"event": kind, "time": round(time.time(), 3), **self._origin, **values}
        self._lines.write((json.dumps(_plain(line)) + "\n").encode())

    def step(self, global_step: int, report: StepReport) -> None:
        """The averages since the last report."""
        values = dataclasses.asdict(report)
        self.event("step", {"global_step": global_step, **values})
        scalars = {name: values[field] for name, field in _CURVES.items() if values[field] is not None}
        self._events.scalars(scalars | {f"lr/{name}": lr for name, lr in report.lrs.items()}, global_step)
        self._draw_clips()

    def clips(self, global_step: int, frames: Tensor, labels: Tensor, names: Sequence[str] | None = None) -> None:
        """What a batch looks like, as the network gets it; drawn when the next step or validation is reported.

        Args:
            frames: (N·T, 3, H, W), normalised, on any device.
            labels: (N,).
            names: of the videos.
        """
        data = self._recipe.data
        tiles = clip_tiles(frames, self._recipe.model.num_segments, data.mean, data.std)
        kept = list(names[:MAX_CLIPS]) if names else None
        self._clips = (global_step, tiles, labels[:MAX_CLIPS].clone(), kept)

    def validation(
        self, global_step: int, epoch: int, metrics: Mapping[str, float], scores: Scores | None = None
    ) -> None:
        """Metrics of a validation, and which classes it took for which."""
        confused = []
        if scores is not None and scores.labelled:
            counts = confusion_counts(scores.scores, scores.labels)
            names = [self._name(number) for number in range(len(counts))]
            confused = most_confused(counts, names)
            write_confusion(self._work_dir / "confusion.csv", counts, names, self._warn)
            picture = draw_confusion(counts, names, f"epoch {epoch}: {counts.sum()} videos")
            self._events.image("val/confusion", picture, global_step)
            rows = [f"| {true} | {taken} | {videos} |" for true, taken, videos in confused]
            table = "\n".join(["| true class | taken for | videos |", "|---|---|---:|", *rows])
            self._events.text("val/most confused", table, global_step)
        self.event("validation", {"global_step": global_step, "epoch": epoch, **metrics, "most_confused": confused})
        self._events.scalars({f"val/{name}": value for name, value in metrics.items()}, global_step)
        self._draw_clips()

    def offsets(self, global_step: int, epoch: int, shifts: Sequence[BlockShift]) -> None:
        """The offsets that a validation's clips got (`tin.monitoring.OffsetProbe`), best of the same clips each time."""
        if not shifts:  # the network learns none
            return
        self._offsets.add(global_step, epoch, shifts)
        values = {f"offsets/{shift.name}": np.asarray(shift.offsets.double()) for shift in shifts}
        self._events.histograms(values, global_step, -LIMIT, LIMIT)
        self._events.image("offsets over the epochs", self._offsets.picture(), global_step)

    def finish(self, global_step: int, metrics: Mapping[str, float]) -> None:
        """The run is complete.

        Args:
            metrics: of the best validation; empty without one.
        """
        self.event("finish", {"global_step": global_step, "best": dict(metrics)})
        self._events.scalars({f"best/{name}": value for name, value in metrics.items()}, global_step)
        self._events.finished()

    def flush(self) -> None:
        """Try again to write what a full disk refused."""
        self._lines.write(b"")
        self._offsets.flush()
        self._events.flush()

    def close(self) -> None:
        self._draw_clips()
        self._lines.close()
        self._offsets.close()
        self._events.close()

    def _draw_clips(self) -> None:
        if self._clips is None:
            return
        (global_step, tiles, labels, names), self._clips = self._clips, None
        captions = [self._name(label) if label >= 0 else "no label" for label in labels.tolist()]
        if names:
            captions = [f"{name}  ·  {caption}" for caption, name in zip(captions, names, strict=True)]
        self._events.image("clips", clip_grid(tiles.cpu().numpy(), captions), global_step)

    def _name(self, label: int) -> str:
        return self._names[label] if self._names and label < len(self._names) else str(label)


def flat_recipe(recipe: Recipe) -> dict[str, float | str]:
    """`{"optim.lr": 0.02, "schedule.milestones": "[20, 40]", …}`: numbers stay numbers, the rest becomes text."""
    flat: dict[str, float | str] = {}

    def walk(values: Mapping[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping):
                walk(value, f"{prefix}{key}.")
            elif isinstance(value, int | float) and not isinstance(value, bool):
                flat[prefix + key] = value
            else:
                flat[prefix + key] = value if isinstance(value, str) else json.dumps(value)

    walk(recipe.model_dump(mode="json", exclude={"description"}), "")
    return flat


_CURVES = {
    "train/loss": "loss",
    "train/top1": "top1",
    "train/top5": "top5",
    "train/lr": "lr",
    "train/grad_norm": "grad_norm",
    "train/scale": "scale",
    "train/updates": "updates",
    "train/skipped": "skipped",
    "speed/clips_per_second": "clips_per_second",
    "speed/data_wait": "data_wait",
    "system/memory_mb": "memory_mb",
    "system/gpu_utilisation": "gpu_utilisation",
    "data/bad_videos": "bad_videos",
}
"""TensorBoard's names of a StepReport's fields."""


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
