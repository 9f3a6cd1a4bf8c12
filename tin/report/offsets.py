"""What a run's `offsets.jsonl` says about its blocks, thinned to what a page shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tin.errors import TinError

LIMIT = 2
"""Offsets lie within ±2 frames (`tin.models.interlace.OffsetNet`)."""
MAX_EPOCHS = 100
"""Of more validations so many are shown, evenly spread, the first and the last among them."""
COLUMNS = ("first mean", "first 10 %", "first 90 %", "second mean", "second 10 %", "second 90 %", "gain")


@dataclass(frozen=True)
class Offsets:
    """The offsets of every block at some validations of a run."""

    epochs: list[int]
    blocks: list[str]
    values: NDArray[np.float64]
    """(epochs, blocks, 7): `COLUMNS`, of the two offsets in frames, over the clips of a validation; the mean gain."""


def read_offsets(run: Path) -> Offsets | None:
    """The validations of a run.

    Args:
        run: its folder (`tin.monitoring.read_run`).

    Returns:
        None for a run without offsets: its network learns none, or it has not been validated.

    Raises:
        TinError: as `read_run`, or a line that is not as `tin.monitoring.OffsetHistory` writes it.
    """
    from tin.monitoring.runs import read_run

    entries: list[tuple[int, dict[str, list[float]]]] = []
    for line in read_run(run).offsets:
        try:
            blocks = {str(name): _numbers(block) for name, block in line["blocks"].items()}
            entries.append((int(line["epoch"]), blocks))
        except (ValueError, KeyError, TypeError, IndexError):
            step = line["global_step"]
            raise TinError(
                f"{run / 'offsets.jsonl'}: the line of global_step {step} is not as tin-cli train writes it"
            ) from None
    if not entries:
        return None
    names = list(entries[-1][1])
    kept = [entry for entry in entries if list(entry[1]) == names]  # the folder may have served another network before
    places = np.unique(np.linspace(0, len(kept) - 1, min(len(kept), MAX_EPOCHS)).round().astype(int))
    kept = [kept[place] for place in places]
    values = np.array([list(blocks.values()) for _, blocks in kept], dtype=np.float64)
    return Offsets([epoch for epoch, _ in kept], names, values)


def draw_offsets(offsets: Offsets) -> NDArray[np.uint8]:
    """The last validation's offsets, block by block: means, and lines from the 10th to the 90th percentile.

    Returns:
        (height, width, 3), RGB.
    """
    from tin.monitoring.figures import new_figure, rendered

    last = offsets.values[-1]
    figure = new_figure(760, max(320, 24 * len(last) + 110))
    axes = figure.subplots()
    for which, (name, colour) in enumerate((("first offset", "#0b5cad"), ("second offset", "#b4531a"))):
        mean, low, high = last[:, 3 * which : 3 * which + 3].T
        rows = np.arange(len(last)) - 0.14 + 0.28 * which
        axes.hlines(rows, low, high, color=colour)
        axes.plot(mean, rows, "o", color=colour, label=name, markersize=4)
    axes.set_xlim(-LIMIT, LIMIT)
    axes.set_yticks(range(len(last)), offsets.blocks, fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.4)
    axes.set_xlabel("frames: mean, and 10th to 90th percentile over the clips")
    axes.set_title(f"learned offsets, epoch {offsets.epochs[-1]}", fontsize=10)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return rendered(figure)


def _numbers(block: dict[str, Any]) -> list[float]:
    numbers: list[float] = []
    for which in range(2):
        _, low, _, high, _ = block["percentiles"][which]
        numbers += [block["mean"][which], low, high]
    numbers.append(block["gain"])
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise TypeError
    return numbers
