"""Which classes are taken for which: counts, a table on disk, and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tin.monitoring.figures import new_figure, rendered
from tin.monitoring.files import Warn, replace_text

_NUMBERED = 20
"""Up to so many classes, cells show their percentage."""
_NAMED = 64
"""Up to so many, rows and columns are named; beyond, every tenth or so is numbered."""


def confusion_counts(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many videos of class i (row) had their best score in class j (column); of equal scores the lower class counts.

    Args:
        scores: (videos, classes).
        labels: (videos,) in 0…classes-1.

    Returns:
        (classes, classes).
    """
    classes = scores.shape[1]
    pairs = np.asarray(labels, dtype=np.int64) * classes + scores.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def write_confusion(path: Path, counts: NDArray[np.int64], names: Sequence[str], warn: Warn) -> None:
    """The counts as a CSV table: a row for each true class, a column for each predicted one, both with their names."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["true class", *names])
    table.writerows([name, *row] for name, row in zip(names, counts.tolist(), strict=True))
    replace_text(path, text.getvalue(), warn)


def most_confused(counts: NDArray[np.int64], names: Sequence[str], most: int = 10) -> list[tuple[str, str, int]]:
    """The largest counts off the diagonal, as (true class, taken for, videos); none that are 0."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(at), len(counts)) for at in order]
    return [(names[true], names[taken], int(wrong[true, taken])) for true, taken in pairs if wrong[true, taken]]


def draw_confusion(counts: NDArray[np.int64], names: Sequence[str], title: str) -> NDArray[np.uint8]:
    """A picture of the counts, each row divided by its sum; classes without videos are grey.

    Up to 64 classes are named and up to 20 have their percentages written; with more, a cell still takes some pixels: 400 classes
    make a picture of about 1,400 × 1,400.

    Returns:
        (height, width, 3), RGB.
    """
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    classes = len(counts)
    cell = max(3, min(44, round(1200 / classes))) if classes > 1 else 44
    margin = 90 if classes > _NAMED else 60 + 7 * min(28, max(map(len, names)))
    figure = new_figure(max(420, classes * cell + margin + 110), max(360, classes * cell + margin + 40))
    axes = figure.subplots()
    sums = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, sums, out=np.full(counts.shape, np.nan), where=sums > 0)
    colours = colormaps["magma"].with_extremes(bad="0.6")
    # Errors spread over many classes are small shares each: the square root lets them be seen.
    image = axes.imshow(shares, cmap=colours, norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    step = 1 if classes <= _NAMED else next(s for s in (10, 20, 50, 100, 1000) if classes / s <= 25)
    places = np.arange(0, classes, step)
    texts = [_short(names[at]) for at in places.tolist()] if classes <= _NAMED else [str(at) for at in places]
    size = 9 if classes <= _NUMBERED else 7
    axes.set_xticks(places, texts, rotation=90, fontsize=size, parse_math=False)  # a name may have dollar signs
    axes.set_yticks(places, texts, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title, fontsize=10)
    if classes <= _NUMBERED:
        for (row, column), share in np.ndenumerate(shares):
            if share > 0:
                colour = "black" if share > 0.5 else "white"
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axes, label="part of the true class", fraction=0.046, pad=0.02)
    return rendered(figure)


def _short(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"
