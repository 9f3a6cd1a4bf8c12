"""The curves of one or more runs, and how their offsets move, as a figure for a page."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tin.errors import TinError
from tin.monitoring.offsets import LIMIT
from tin.monitoring.runs import Points, RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

SUFFIXES = (".png", ".svg")

_WIDTH = 7.1  # inches: A4 or Letter within its margins, so that text prints in the size it has here
_PANEL_HEIGHT = 1.9
_DPI = 200
_FONT: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.linewidth": 0.6,
    "legend.fontsize": 7,
    "svg.hashsalt": "tin",
}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442")
"""Told apart by the colour-blind too: Okabe and Ito, Color Universal Design (2008)."""
_DASHES = ("-", "--", ":", "-.")
_MAX_POINTS = 1000
"""Of a curve; of more, neighbours are averaged: a page has no room for them."""

_Curve = tuple[str, str, Points]
"""What it is (training, a metric …), how it is drawn (a dash, or `thin` for training beside validation), and its points."""


def draw_runs(runs: Mapping[str, RunRecord], path: Path) -> None:
    """Draw loss, accuracies, further validation metrics, learning rate, clips per second and the part of the time that was spent waiting
    for data over the epochs, runs over each other; below, for each run that learns offsets, how far each block looks and how much
    that depends on the clip, over its validations.

    A panel for which no run has numbers is left out.

    Args:
        runs: one at least, by the names that the legend shows.
        path: the picture; a name that ends in .png or .svg.

    Raises:
        TinError: another suffix; the picture cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure  # half a second, and only this command draws; a Figure alone needs no display

    if path.suffix.lower() not in SUFFIXES:
        raise TinError(f"{path}: give the picture a name that ends in {' or '.join(SUFFIXES)}")
    curves = {name: _curves(run) for name, run in runs.items()}
    titles = [title for title in _PANELS if any(title in panels for panels in curves.values())]
    with_offsets = {name: run for name, run in runs.items() if run.offsets}
    rows = -(-len(titles) // 2)
    heights = [_PANEL_HEIGHT * rows + 0.3, *(0.9 + 0.13 * len(_blocks(run)) for run in with_offsets.values())]
    with matplotlib.rc_context(_FONT), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands for what the font has not
        figure = Figure(figsize=(_WIDTH, sum(heights)), dpi=_DPI, layout="constrained")
        parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        _draw_curves(parts[0], curves, titles, rows)
        for part, (name, run) in zip(parts[1:], with_offsets.items(), strict=True):
            _draw_offsets(part, name if len(runs) > 1 else "", run)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
        except OSError as error:
            raise TinError(f"cannot write the picture {path}: {error.strerror or error}") from None


# ---------------------------------------------------------------------------------------------------------------------
# curves


def _curves(run: RunRecord) -> dict[str, list[_Curve]]:
    """The curves of a run by the title of their panel."""
    panels: dict[str, list[_Curve]] = {}

    def add(panel: str, what: str, style: str, points: Points | None, factor: float = 1) -> None:
        if points is not None:
            panels.setdefault(panel, []).append((what, style, (points[0], factor * points[1])))

    add("training loss", "", "-", run.training("loss"))
    for title, trained, validated in (("top-1, %", "top1", "top1_acc"), ("top-5, %", "top5", "top5_acc")):
        add(title, "training", "thin", run.training(trained), 100)
        add(title, "validation", "-", run.validation(validated), 100)
    others = [metric for metric in run.metrics if metric not in ("top1_acc", "top5_acc")]
    for number, metric in enumerate(others):
        dash = _DASHES[number % len(_DASHES)]
        add("validation, %", metric.replace("_", " "), dash, run.validation(metric), 100)
    add("learning rate", "", "-", run.training("lr"))
    add("clips per second", "", "-", run.training("clips_per_second"))
    add("waiting for data, % of the time", "", "-", run.training("data_wait"), 100)
    return panels


_PANELS = (
    "training loss",
    "top-1, %",
    "top-5, %",
    "validation, %",
    "learning rate",
    "clips per second",
    "waiting for data, % of the time",
)


def _draw_curves(
    figure: SubFigure, curves: Mapping[str, dict[str, list[_Curve]]], titles: list[str], rows: int
) -> None:
    from matplotlib.lines import Line2D

    grid = figure.subplots(rows, 2, squeeze=False).ravel()
    for axes in grid[len(titles) :]:
        axes.set_axis_off()
    for axes, title in zip(grid, titles, strict=False):
        kinds: dict[str, str] = {}
        for colour, panels in zip(_endless(_COLOURS, len(curves)), curves.values(), strict=True):
            for what, style, points in panels.get(title, []):
                _draw_curve(axes, style, colour, points, alone=len(points[0]) == 1)
                kinds.setdefault(what, style)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.grid(linewidth=0.3, color="0.85")
        axes.margins(x=0.02)
        axes.spines[["top", "right"]].set_visible(False)
        if title == "learning rate":
            _in_decades(axes, [points for panels in curves.values() for _, _, points in panels.get(title, [])])
        else:
            axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
        if any(kinds):
            samples = [Line2D([], [], color="0.3", label=what, **_looks(style)) for what, style in kinds.items()]
            axes.legend(handles=samples, frameon=False, handlelength=2.4)
    lines = [
        Line2D([], [], color=colour, label=name)
        for colour, name in zip(_endless(_COLOURS, len(curves)), curves, strict=True)
    ]
    figure.legend(handles=lines, loc="outside upper center", ncols=min(4, len(lines)), frameon=False)


def _draw_curve(axes: Axes, style: str, colour: str, points: Points, alone: bool) -> None:
    marker: dict[str, Any] = (
        {"marker": "o", "markersize": 2.5} if alone or (style != "thin" and len(points[0]) <= 30) else {}
    )
    at, values = _thinned(points)
    axes.plot(at, values, color=colour, **_looks(style), **marker)


def _looks(style: str) -> dict[str, Any]:
    return {"linewidth": 0.6, "alpha": 0.6} if style == "thin" else {"linewidth": 1.1, "linestyle": style}


def _thinned(points: Points) -> Points:
    count = len(points[0])
    if count <= _MAX_POINTS:
        return points
    edges = np.linspace(0, count, _MAX_POINTS + 1).astype(int)[:-1]
    sizes = np.diff(np.append(edges, count))
    at, values = (np.add.reduceat(part, edges) / sizes for part in points)
    return at, values


def _in_decades(axes: Axes, curves: list[Points]) -> None:
    """A logarithmic axis, where steps of a tenth would else lie on the ground."""
    values = np.concatenate([values for _, values in curves])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() > 20 * values.min():
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def _endless(colours: tuple[str, ...], count: int) -> list[str]:
    return [colours[number % len(colours)] for number in range(count)]


# ---------------------------------------------------------------------------------------------------------------------
# offsets


def _blocks(run: RunRecord) -> list[str]:
    return list(run.offsets[-1]["blocks"])


def _draw_offsets(figure: SubFigure, name: str, run: RunRecord) -> None:
    blocks = _blocks(run)
    epochs = [entry["epoch"] for entry in run.offsets]
    panels: tuple[tuple[str, str, str, float | None], ...] = (
        ("reach", "mean |offset|, frames: how far a block looks", "viridis", LIMIT),
        ("spread", "spread over clips, frames: how much it depends on the clip", "magma", None),
    )
    for axes, (key, title, colours, most) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        image = axes.imshow(
            _means(run, blocks, key), aspect="auto", interpolation="nearest", cmap=colours, vmin=0, vmax=most
        )
        places = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), 10)).round().astype(int))
        axes.set_xticks(places, [str(epochs[at]) for at in places])
        axes.set_yticks(range(len(blocks)), blocks, fontsize=7)
        axes.set_xlabel("epoch")
        axes.set_title(title, fontsize=8)
        figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02)
    if name:
        figure.suptitle(f"offsets of {name}", fontsize=8.5)


def _means(run: RunRecord, blocks: list[str], key: str) -> NDArray[np.float64]:
    """(blocks, validations): the mean over a block's two offsets; NaN where a line lacks the block."""
    rows = [[entry["blocks"].get(block, {}).get(key, [np.nan]) for entry in run.offsets] for block in blocks]
    return np.array([[np.mean(values) for values in row] for row in rows], dtype=np.float64)
