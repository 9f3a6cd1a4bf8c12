"""How the temporal offsets of every block move while a run learns: kept on disk, drawn over the epochs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tin.models.inspect import BlockShift
from tin.monitoring.figures import new_figure, rendered
from tin.monitoring.files import Appender, Warn, drop_unfinished_line

LIMIT = 2.0
"""Offsets lie within ±2 frames (`tin.models.interlace.OffsetNet`)."""
_PERCENTILES = (0, 10, 50, 90, 100)


class OffsetHistory:
    """The offsets seen at each validation: a JSON object a line in `offsets.jsonl`.

    `{"epoch": 5, "global_step": 600, "clips": 64, "blocks": {"layer1.0": {"mean": [0.41, -0.2], "reach": …, "spread": …,
    "percentiles": …, "gain": 1.02}, …}}`: for each of a block's two offsets, in frames, over the clips: the mean, the mean of the
    absolute value, the standard deviation, and the 0th, 10th, 50th, 90th and 100th percentiles; and the mean gain.

    Args:
        path: the file; lines are added to it.
        first_step: where a resumed run goes on; what was written past it is repeated, so it is left out of the picture.
        warn: told about trouble with the disk.
    """

    def __init__(self, path: Path, first_step: int, warn: Warn) -> None:
        drop_unfinished_line(path)
        self._entries: list[dict[str, Any]] = []
        if path.exists():
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            self._entries = [entry for entry in lines if entry["global_step"] <= first_step]
        self._file = Appender(path, warn)

    def add(self, global_step: int, epoch: int, shifts: Sequence[BlockShift]) -> None:
        """One validation's, of the same clips each time."""
        entry = {
            "epoch": epoch,
            "global_step": global_step,
            "clips": len(shifts[0].offsets),
            "blocks": {shift.name: _statistics(shift) for shift in shifts},
        }
        self._file.write((json.dumps(entry) + "\n").encode())
        # A run that was killed between a validation and its checkpoint validates again.
        self._entries = [old for old in self._entries if old["global_step"] != global_step] + [entry]

    def picture(self) -> NDArray[np.uint8]:
        """Blocks from top to bottom, epochs from left to right: how far each looks, and how much that depends on the clip.

        Returns:
            (height, width, 3), RGB.
        """
        blocks = list(self._entries[-1]["blocks"])
        epochs = [entry["epoch"] for entry in self._entries]
        reach, spread = (np.empty((len(blocks), len(epochs))) for _ in range(2))
        for column, entry in enumerate(self._entries):
            for row, block in enumerate(blocks):
                statistics = entry["blocks"][block]
                reach[row, column] = np.mean(statistics["reach"])
                spread[row, column] = np.mean(statistics["spread"])
        figure = new_figure(1100, max(320, 24 * len(blocks) + 110))
        panels = (
            (reach, "mean |offset|, frames: how far a block looks", "viridis", LIMIT),
            (spread, "spread over clips, frames: how much it depends on what it sees", "magma", None),
        )
        for axes, (values, title, colours, most) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
            image = axes.imshow(values, aspect="auto", interpolation="nearest", cmap=colours, vmin=0, vmax=most)
            places = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), 12)).round().astype(int))
            axes.set_xticks(places, [str(epochs[at]) for at in places])
            axes.set_yticks(range(len(blocks)), blocks, fontsize=8)
            axes.set_xlabel("epoch")
            axes.set_title(title, fontsize=10)
            figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
        return rendered(figure)

    def flush(self) -> None:
        """Try again to write what a full disk refused."""
        self._file.write(b"")

    def close(self) -> None:
        self._file.close()


def _statistics(shift: BlockShift) -> dict[str, Any]:
    offsets = shift.offsets.double().numpy()
    return {
        "mean": _rounded(offsets.mean(0)),
        "reach": _rounded(np.abs(offsets).mean(0)),
        "spread": _rounded(offsets.std(0)),
        "percentiles": [_rounded(column) for column in np.percentile(offsets, _PERCENTILES, axis=0).T],
        "gain": round(float(shift.gains.double().mean()), 5),
    }


def _rounded(values: NDArray[np.floating]) -> list[float]:
    return [round(float(value), 5) for value in values]
