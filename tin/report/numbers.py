"""What a report says, in numbers and words: taken from a result, before any of it is drawn."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tin.evaluation import Result, title
from tin.evaluation.metrics import probabilities
from tin.report.offsets import Offsets

WORST = 24
"""Videos that are shown with their frames."""
MAX_PAIRS = 200
"""Pairs of classes in the table of the most confused."""


@dataclass(frozen=True)
class Metric:
    """One line of the table of metrics; fractions of 1."""

    name: str
    """As in the result file."""
    title: str
    value: float
    interval: tuple[float, float] | None
    """(low, high) of 95 %."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a page shows but pictures of videos. Videos are those that have scores, in list order."""

    title: str
    facts: list[tuple[str, str]]
    """(term, fact): what produced the result."""
    coverage: str
    failures: list[tuple[str, str]]
    """(id, reason) of the videos without scores."""
    metrics: list[Metric]
    no_metrics: str
    """Why there are no metrics."""
    interval_note: str
    """What the intervals mean."""
    names: list[str]
    """Of the classes."""
    ids: list[str]
    labels: NDArray[np.int64]
    """(videos,), −1 where the list has none."""
    predictions: NDArray[np.int64]
    """(videos,) class with the highest score."""
    confidences: NDArray[np.float64]
    """(videos,) probability of the predicted class."""
    matrix: NDArray[np.int64] | None
    """(classes, classes) videos: a row a label, a column a prediction; None where a video has no label."""
    pairs: list[tuple[int, int, int]]
    """(label, prediction, videos) of wrong predictions, the most first."""
    worst: list[int]
    """Wrong videos (of `ids`), the most confident first."""
    view_note: str
    """Which of its views of a video is shown."""
    offsets: Offsets | None


def make_report(result: Result, offsets: Offsets | None = None) -> Report:
    """What there is to say about a result.

    Args:
        result: of `tin.evaluation.load_result`.
        offsets: of the run that made the checkpoint.
    """
    scored = np.flatnonzero(result.scored)
    labels, predictions = result.labels[scored], result.predictions[scored]
    confidences = np.zeros(0)
    if len(scored):
        confidences = probabilities(result.scores[scored], result.average).max(axis=1).clip(0, 1)
    matrix = result.confusion
    wrong = np.flatnonzero(labels != predictions) if matrix is not None else np.zeros(0, np.int64)
    names = [f"class {number}" for number in range(result.num_classes)]
    return Report(
        title=_title(result),
        facts=_facts(result),
        coverage=_coverage(result),
        failures=[(video.id, video.failed) for video in result.videos if video.failed is not None],
        metrics=[
            Metric(name, title(name), value, result.intervals.get(name)) for name, value in result.metrics.items()
        ],
        no_metrics="No metrics: " + ("no video has a score." if not len(scored) else "the list has no labels."),
        interval_note=_interval_note(result),
        names=result.label_names or names,
        ids=[result.videos[row].id for row in scored],
        labels=labels,
        predictions=predictions,
        confidences=confidences,
        matrix=matrix,
        pairs=_most_confused(matrix) if matrix is not None else [],
        worst=wrong[np.argsort(-confidences[wrong], kind="stable")][:WORST].tolist(),
        view_note=_view_note(result),
        offsets=offsets,
    )


def _title(result: Result) -> str:
    if result.recipe is None:
        return f"Test of an ensemble on {Path(result.list_name).name}"
    return (
        f"Test of {result.recipe.get('name', 'a model')} on {result.recipe.get('dataset', Path(result.list_name).name)}"
    )


def _facts(result: Result) -> list[tuple[str, str]]:
    facts = [("list", result.list_name)]
    recipe = result.recipe
    if recipe is not None:
        facts.insert(0, ("data set", str(recipe.get("dataset", "–"))))
        model = recipe.get("model", {})
        facts.append(
            (
                "recipe",
                f"{recipe.get('name', '–')}: {model.get('arch', '–')}, {model.get('num_segments', '–')} segments",
            )
        )
    if result.checkpoint is not None:
        facts.append(("checkpoint", f"{result.checkpoint.path}, SHA-256 {result.checkpoint.sha256}"))
    if result.views is not None:
        views = result.views
        clips = "1 clip" if views.clips == 1 else f"{views.clips} clips"
        mean = f"mean of {'softmax' if result.average == 'prob' else 'logits'}"
        facts.append(("views a video", f"{views.views}: crop {views.crop}, {clips} ({views.sampling}); {mean}"))
    facts.append(("result file", f"{result.path}, of {_date(result)}"))
    if result.versions:
        facts.append(("versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())))
    if result.command:
        facts.append(("command", shlex.join(result.command)))
    return facts


def _date(result: Result) -> str:
    """When it was made; of an older file, when it was written."""
    made = datetime.fromisoformat(result.created) if result.created else None
    return (made or datetime.fromtimestamp(result.path.stat().st_mtime, UTC)).strftime("%Y-%m-%d %H:%M UTC")


def _coverage(result: Result) -> str:
    coverage = result.coverage
    if not coverage.failed:
        return f"All {coverage.expected} videos of the list have scores."
    scored, expected = coverage.scored, coverage.expected
    return f"{scored} of the {expected} videos of the list have scores, {coverage.failed} failed. Metrics are over those with scores."


def _interval_note(result: Result) -> str:
    if not result.intervals:
        return "The result file has no intervals: its version is older."
    return (
        "Intervals: how far a metric moves when as many videos are drawn anew from the list. They speak of other videos of the same kind, "
        "not of another training run."
    )


def _view_note(result: Result) -> str:
    if result.views is None or result.views.views == 1:
        return ""
    return f"Shown is one of the {result.views.views} views of each: the first clip, in the crop nearest to the middle."


def _most_confused(matrix: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    rows, columns = wrong.nonzero()
    counts = wrong[rows, columns]
    order = np.argsort(-counts, kind="stable")[:MAX_PAIRS]
    return list(zip(rows[order].tolist(), columns[order].tolist(), counts[order].tolist(), strict=True))
