"""The plots of a report as PNG files, for papers and slides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tin.errors import TinError
from tin.report.numbers import Report
from tin.report.offsets import draw_offsets

_COLOUR = "#0b5cad"
_NAMED = 60
"""Up to so many classes have their names beside their bars."""


def write_plots(report: Report, folder: Path) -> list[Path]:
    """Write `metrics.png`, `classes.png`, `confusion.png` and `offsets.png`, as far as the report has what they show.

    Returns:
        The files that were written.

    Raises:
        TinError: the folder cannot be made or written.
    """
    from PIL import Image

    from tin.monitoring.confusion import draw_confusion

    pictures: dict[str, NDArray[np.uint8]] = {}
    if report.metrics:
        pictures["metrics"] = _draw_metrics(report)
    if report.matrix is not None:
        pictures["classes"] = _draw_classes(report, report.matrix)
        pictures["confusion"] = draw_confusion(report.matrix, report.names, f"{len(report.ids)} videos")
    if report.offsets is not None:
        pictures["offsets"] = draw_offsets(report.offsets)
    written = []
    for name, picture in pictures.items():
        path = folder / f"{name}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
        except OSError as error:
            raise TinError(f"cannot write the picture {path}: {error.strerror or error}") from None
        written.append(path)
    return written


def _draw_metrics(report: Report) -> NDArray[np.uint8]:
    from tin.monitoring.figures import new_figure, rendered

    figure = new_figure(760, 110 + 40 * len(report.metrics))
    axes = figure.subplots()
    for row, metric in enumerate(report.metrics):
        if metric.interval is not None:
            low, high = metric.interval
            axes.hlines(row, 100 * low, 100 * high, color=_COLOUR, linewidth=6, alpha=0.4)
        axes.plot(100 * metric.value, row, "o", color=_COLOUR)
        axes.text(102, row, f"{100 * metric.value:.2f} %", va="center", fontsize=9)
    axes.set_yticks(range(len(report.metrics)), [metric.title for metric in report.metrics])
    axes.set_ylim(len(report.metrics) - 0.4, -0.7)
    axes.set_xlim(0, 100)
    axes.grid(axis="x", alpha=0.4)
    axes.set_xlabel("per cent, with the 95 % interval")
    return rendered(figure)


def _draw_classes(report: Report, matrix: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Accuracy of each class that has videos, the lowest first."""
    from tin.monitoring.figures import new_figure, rendered

    videos = matrix.sum(axis=1)
    classes = np.flatnonzero(videos)
    accuracy = matrix.diagonal()[classes] / videos[classes]
    order = np.argsort(accuracy, kind="stable")
    named = len(classes) <= _NAMED
    figure = new_figure(760, max(320, (18 * len(classes) if named else 600) + 90))
    axes = figure.subplots()
    axes.barh(range(len(classes)), 100 * accuracy[order], color=_COLOUR, height=0.8 if named else 1.0)
    if named:
        texts = [report.names[at] for at in classes[order].tolist()]
        axes.set_yticks(range(len(classes)), texts, fontsize=8, parse_math=False)  # a name may have dollar signs
    else:
        axes.set_ylabel(f"{len(classes)} classes, the best at the top")
    axes.set_ylim(-0.6, len(classes) - 0.4)
    axes.set_xlim(0, 100)
    axes.grid(axis="x", alpha=0.4)
    axes.set_xlabel("accuracy of the class, per cent")
    return rendered(figure)
