"""The figures of a list as one picture: six panels, a PNG."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.errors import DataError
from pipelines.stats import ListStats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 40
_BARS = 10
_COLOUR = "#3b6ea5"


def draw_stats(stats: ListStats, path: str | Path) -> Path:
    """Draw lengths, sizes, codecs, groups of pictures, class balance and decode cost of a list; returns `path`.

    Args:
        stats: of a list with at least one readable video.
        path: where to write the PNG; its folder is made if need be.

    Raises:
        DataError: nothing readable to draw, or the file cannot be written.
    """
    from matplotlib.figure import Figure  # half a second, and only this command draws; a Figure alone needs no display

    if not stats.readable:
        raise DataError(f"no video of {stats.name} is readable: there is nothing to draw")
    path = Path(path)
    figure = Figure(figsize=(13, 7), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    length = "seconds" if len(stats.values["seconds"]) else "frames"
    _histogram(axes[0], stats, length, f"length, {length}")
    _bars(axes[1], stats.sizes, "width × height")
    _bars(axes[2], stats.codecs, "codec")
    _histogram(axes[3], stats, "frames a keyframe", "frames a keyframe", wide=True)
    _classes(axes[4], stats.classes)
    _histogram(axes[5], stats, "decode cost", "frames decoded per frame used")
    figure.suptitle(f"{stats.name}: {stats.readable} of {stats.videos} videos, {stats.frames:,} frames")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=110)
    except OSError as error:
        raise DataError(f"cannot write the picture {path}: {error.strerror or error}") from None
    return path


def _histogram(axes: Axes, stats: ListStats, name: str, title: str, wide: bool = False) -> None:
    values = stats.values[name]
    low, high = float(values.min()), float(values.max())
    if wide and low > 0 and high / low > 20:  # from all keyframes to one a video: equal steps on a logarithmic axis
        axes.set_xscale("log")
        bins = np.geomspace(low, high, _BINS + 1)
    else:
        bins = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    axes.hist(values, bins=bins.tolist(), color=_COLOUR)
    middle = float(np.median(values))
    axes.axvline(middle, color="black", linewidth=1, linestyle="--")
    axes.set_title(f"{title}, median {middle:.3g}", fontsize=10)
    axes.set_ylabel("videos")


def _bars(axes: Axes, counts: Counter[str], title: str) -> None:
    shown = counts.most_common(_BARS)
    others = len(counts) - len(shown)
    if others:
        shown.append((f"{others} others", sum(counts.values()) - sum(count for _, count in shown)))
    names = [name for name, _ in reversed(shown)]
    axes.barh(names, [count for _, count in reversed(shown)], color=_COLOUR)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("videos")


def _classes(axes: Axes, classes: Counter[str]) -> None:
    counts = sorted(classes.values(), reverse=True)
    axes.set_title("class balance" if counts else "class balance: the list has no labels", fontsize=10)
    if counts:
        axes.bar(range(len(counts)), counts, width=1.0, color=_COLOUR)
        axes.set_ylim(bottom=0)
    axes.set_xlabel(f"{len(counts)} classes, the largest first")
    axes.set_ylabel("videos")
