"""Results beside each other: the videos that all of them scored, whether one is better by more than chance, and their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tin.errors import TinError
from tin.evaluation import counted
from tin.evaluation.bootstrap import intervals
from tin.evaluation.evaluate import Failed, Scores
from tin.evaluation.reading import Result


@dataclass(frozen=True)
class Aligned:
    """Results of one list, by the ids of its videos, in the order of the first."""

    results: list[Result]
    ids: list[str]
    """All videos of the list."""
    common: NDArray[np.int64]
    """(videos that all results scored,) positions in `ids`, ascending."""
    labels: NDArray[np.int64]
    """(common,) −1 where there is none."""
    scores: list[NDArray[np.float32]]
    """A result: (common, classes)."""
    failures: tuple[Failed, ...]
    """The other videos, with the result that lacks them and its reason."""

    @property
    def predictions(self) -> NDArray[np.int64]:
        """(results, common) of equal scores the lowest class."""
        return np.stack([scores.argmax(axis=1) for scores in self.scores])

    @property
    def labelled(self) -> bool:
        """Whether every common video has a label."""
        return bool((self.labels >= 0).all())


@dataclass(frozen=True)
class Pair:
    """Two results' top-1 predictions on the same videos."""

    first: int
    second: int
    """Their places among the results."""
    only_first: int
    only_second: int
    """Videos that one predicts right and the other wrong."""
    difference: float
    """Top-1 accuracy of the first minus the second's."""
    interval: tuple[float, float]
    """95 % bootstrap interval of the difference, over videos drawn in pairs."""
    exact: float
    """p of McNemar's exact test."""
    mid: float
    """p of its mid-p form, which is less conservative."""
    holm: float
    """The exact p, corrected for as many pairs as are compared (Holm 1979)."""


def align(results: Sequence[Result]) -> Aligned:
    """Match results by the ids of their videos.

    Raises:
        TinError: they are of different lists, classes or labels, or no video was scored by all; the message names the files and the
            first difference.
    """
    first = results[0]
    ids = [video.id for video in first.videos]
    scores, scored, reasons = [], [], []
    for result in results:
        place = _places(first, result)
        scores.append(result.scores[place])
        scored.append(result.scored[place])
        reasons.append([result.videos[number].failed for number in place])
        _check_labels(first, result, place)
    everywhere = np.all(scored, axis=0)
    common = np.flatnonzero(everywhere)
    if not len(common):
        raise TinError(f"no video was scored by all of {', '.join(str(result.path) for result in results)}")
    _check_classes(results)
    failures = []
    for number in np.flatnonzero(~everywhere):
        lacking = next(k for k in range(len(results)) if not scored[k][number])
        failures.append(
            Failed(int(number), ids[number], f"not scored in {results[lacking].path}: {reasons[lacking][number]}")
        )
    return Aligned([*results], ids, common, first.labels[common], [part[common] for part in scores], tuple(failures))


def compare_pairs(aligned: Aligned) -> list[Pair]:
    """McNemar's test of top-1 accuracy for every two results, over the common videos. They must have labels.

    Two networks that were tested on the same videos are compared by the videos on which just one of them is right; if they were
    equally good, either would be that one with a chance of one half.
    """
    hits = aligned.predictions == aligned.labels
    count = len(aligned.results)
    places = [(a, b) for a in range(count) for b in range(a + 1, count)]
    splits = [(int((hits[a] & ~hits[b]).sum()), int((hits[b] & ~hits[a]).sum())) for a, b in places]
    tests = [mcnemar(*split) for split in splits]
    corrected = holm([exact for exact, _ in tests])
    gaps = {f"{a} {b}": counted.mean_of(hits[a].astype(np.float64) - hits[b].astype(np.float64)) for a, b in places}
    spans = intervals(gaps, len(aligned.common))
    return [
        Pair(a, b, only_a, only_b, (only_a - only_b) / len(aligned.common), spans[f"{a} {b}"], exact, mid, p)
        for (a, b), (only_a, only_b), (exact, mid), p in zip(places, splits, tests, corrected, strict=True)
    ]


def mcnemar(only_first: int, only_second: int) -> tuple[float, float]:
    """Two-sided p values of McNemar's exact test and of its mid-p form (Fagerland, Lydersen and Laake 2013).

    Args:
        only_first, only_second: videos that one of two networks predicts right and the other wrong.

    Returns:
        (exact, mid-p): the chance of a split at least as uneven, of which mid-p counts the split itself half; 1 without such videos.
    """
    total, fewer = only_first + only_second, min(only_first, only_second)
    ways = below = 1  # binomial coefficients in whole numbers: no rounding, however many videos there are
    for number in range(fewer):
        ways = ways * (total - number) // (number + 1)
        below += ways
    if only_first == only_second:
        return 1.0, 1 - ways / 2 ** (total + 1) if total else 1.0
    return min(1.0, 2 * below / 2**total), (2 * below - ways) / 2**total


def holm(p: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's step-down method."""
    corrected, largest = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = largest
    return corrected


def ensemble(aligned: Aligned, weights: Sequence[float]) -> Scores:
    """The weighted mean of the results' scores, a result of its own over the common videos.

    Raises:
        TinError: another number of weights, or one that is not above 0; probabilities and logits among the results.
    """
    results = aligned.results
    if len(weights) != len(results) or not all(np.isfinite(weight) and weight > 0 for weight in weights):
        raise TinError(f"weights {list(weights)}: there must be {len(results)}, one a result, each above 0")
    if other := next((result for result in results if result.average != results[0].average), None):
        raise TinError(
            f"{results[0].path} holds means of {_KINDS[results[0].average]}, {other.path} of {_KINDS[other.average]}: they cannot be "
            f"averaged; test both with the same --average"
        )
    parts = np.array(weights) / np.sum(weights)
    mean = sum(part * scores.astype(np.float64) for part, scores in zip(parts, aligned.scores, strict=True))
    return Scores(aligned.common, np.asarray(mean, np.float32), aligned.labels, aligned.failures, len(aligned.ids))


def disagreements(aligned: Aligned) -> list[int]:
    """Rows of the common videos whose predictions differ: first those that some results predict right and others wrong, and of these,
    or where there are no labels, those with the largest differences of scores first."""
    predictions = aligned.predictions
    rows = np.flatnonzero((predictions != predictions[0]).any(axis=0))
    stack = np.stack([scores[rows] for scores in aligned.scores])
    spread = (stack.max(axis=0) - stack.min(axis=0)).max(axis=1, initial=0)
    hits = predictions[:, rows] == aligned.labels[rows]
    split = hits.any(axis=0) & ~hits.all(axis=0)
    return [int(row) for row in rows[np.lexsort((rows, -spread, ~split))]]


_KINDS = {"prob": "probabilities", "score": "logits"}


def _places(first: Result, other: Result) -> NDArray[np.int64]:
    """Where the other result has each video of the first."""
    position = {video.id: number for number, video in enumerate(other.videos)}
    own = {video.id for video in first.videos}
    missing = [video.id for video in first.videos if video.id not in position]
    extra = [video.id for video in other.videos if video.id not in own]
    if missing or extra:
        parts = [
            f"{len(names)} only in {path} (first: '{names[0]}')"
            for names, path in ((missing, first.path), (extra, other.path))
            if names
        ]
        raise TinError(
            f"{first.path} and {other.path} are of different lists: {', '.join(parts)}; test both on the same list"
        )
    return np.array([position[video.id] for video in first.videos], np.int64)


def _check_labels(first: Result, other: Result, place: NDArray[np.int64]) -> None:
    for video, number in zip(first.videos, place, strict=True):
        theirs = other.videos[number]
        if video.failed is None and theirs.failed is None and video.label != theirs.label:
            raise TinError(
                f"'{video.id}' has label {video.label} in {first.path} and {theirs.label} in {other.path}: they are of different lists"
            )


def _check_classes(results: Sequence[Result]) -> None:
    first = results[0]
    for other in results[1:]:
        if other.num_classes != first.num_classes:
            raise TinError(
                f"{first.path} has {first.num_classes} classes, {other.path} has {other.num_classes}: they cannot be compared"
            )
        for index, (mine, theirs) in enumerate(zip(first.label_names or (), other.label_names or ())):  # noqa: B905
            if mine != theirs:
                raise TinError(
                    f"class {index} is '{mine}' in {first.path} and '{theirs}' in {other.path}: the classes differ or are in another order"
                )
