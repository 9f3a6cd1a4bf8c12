"""Accuracy of scores against labels; every video weighs one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tin.errors import TinError
from tin.evaluation import counted
from tin.evaluation.counted import Statistic

METRICS = (
    "top_k_accuracy",
    "mean_class_accuracy",
    "balanced_accuracy",
    "mean_average_precision",
    "calibration_error",
    "time_order_accuracy",
)
"""Names that `compute` knows."""
VALIDATION_METRICS = ("top_k_accuracy", "mean_class_accuracy", "time_order_accuracy")
"""Those that training computes at every validation."""

Average = Literal["prob", "score"]
"""What the scores of a video are: the mean over its views of softmax, or of logits."""


def top_k_accuracy(scores: NDArray[np.floating], labels: NDArray[np.integer], k: int) -> float:
    """Part of the videos whose label is among the k highest scores. Of equal scores the lower class index ranks first.

    Args:
        scores: (videos, classes), finite.
        labels: (videos,) in 0…classes-1.
        k: at least 1.

    Returns:
        A fraction in [0, 1].

    Raises:
        TinError: shapes differ, no video, a score is not finite, or a label is out of range.
    """
    check(scores, labels)
    return _once(counted.mean_of(counted.ranks(scores, labels) < k), len(labels))


def mean_class_accuracy(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Mean over classes of the part of their videos that is predicted right, as MMAction2 defines it.

    The mean runs over the classes that occur in labels or predictions; one that is predicted but never true counts 0. (scikit-learn's
    balanced accuracy leaves such classes out: labels 0,0,1,1 with predictions 0,0,1,3 give 0.5 here and 0.75 there.)

    Args and errors as `top_k_accuracy`.
    """
    check(scores, labels)
    return _once(_class_recall(scores, labels, of_predicted=True), len(labels))


def balanced_accuracy(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Mean over the classes that have videos of the part of them that is predicted right, as scikit-learn defines it.

    Args and errors as `top_k_accuracy`.
    """
    check(scores, labels)
    return _once(_class_recall(scores, labels, of_predicted=False), len(labels))


def mean_average_precision(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Mean over the classes that have videos of average precision, the class against the rest.

    Average precision is scikit-learn's: Σ (Rᵢ − Rᵢ₋₁)·Pᵢ over the distinct scores, so that videos of equal score stand together,
    and their order does not matter. Args and errors as `top_k_accuracy`.
    """
    check(scores, labels)
    return _once(counted.mean_average_precision(scores, labels), len(labels))


def calibration_error(scores: NDArray[np.floating], labels: NDArray[np.integer], average: Average = "prob") -> float:
    """Expected calibration error (Guo et al., ICML 2017) of the probability that the predicted class gets: the mean over 15 bins of
    equal width, weighted by their videos, of |accuracy − mean probability|. 0 is perfect.

    Args:
        scores, labels: as `top_k_accuracy`.
        average: "prob": scores are probabilities; "score": they are logits, whose softmax is the probability.

    Raises:
        TinError: as `top_k_accuracy`, or with "prob" a score outside 0…1.
    """
    check(scores, labels)
    return _once(_calibration(scores, labels, average), len(labels))


def time_order_accuracy(
    scores: NDArray[np.floating], labels: NDArray[np.integer], reversals: Mapping[int, int]
) -> float:
    """Part of the videos whose class scores higher than the class that the same video shows when played backwards.

    What looks at frames without their order is at 0.5 here, however well it tells everything else. Equal scores count half.

    Args:
        scores, labels: as `top_k_accuracy`.
        reversals: class → class of the reversed video; videos of other classes are left out.

    Raises:
        TinError: as `top_k_accuracy`, or no video belongs to a class of `reversals`.
    """
    check(scores, labels)
    return _once(_time_order(scores, labels, reversals), len(labels))


def compute(
    names: Sequence[str],
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    ks: Sequence[int] = (1, 5),
    average: Average = "prob",
    reversals: Mapping[int, int] | None = None,
) -> dict[str, float]:
    """The named metrics, under the names of result files: `top1_acc`, `top5_acc` (`top_k_accuracy` for each k), and the other names
    as they are.

    A k that is not smaller than the number of classes says nothing and is left out; `time_order_accuracy` is left out without
    a video of a class in `reversals`.

    Args:
        names: of `METRICS`.
        scores, labels: as `top_k_accuracy`.
        ks: of `top_k_accuracy`, each at least 1.
        average: how the scores were made, for `calibration_error`.
        reversals: class → class of the reversed video, for `time_order_accuracy`.

    Raises:
        TinError: an unknown name, or as the metrics.
    """
    made = statistics(names, scores, labels, ks=ks, average=average, reversals=reversals)
    return values_of(made, len(labels))


def statistics(
    names: Sequence[str],
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    ks: Sequence[int] = (1, 5),
    average: Average = "prob",
    reversals: Mapping[int, int] | None = None,
) -> dict[str, Statistic]:
    """The metrics of `compute` as functions of how often each video occurs: what intervals are made of. Args and errors as there."""
    check(scores, labels)
    found: dict[str, Statistic] = {}
    for name in names:
        if name == "top_k_accuracy":
            rank = counted.ranks(scores, labels)
            found |= {f"top{k}_acc": counted.mean_of(rank < k) for k in ks if k == 1 or k < scores.shape[1]}
        elif name == "mean_class_accuracy":
            found[name] = _class_recall(scores, labels, of_predicted=True)
        elif name == "balanced_accuracy":
            found[name] = _class_recall(scores, labels, of_predicted=False)
        elif name == "mean_average_precision":
            found[name] = counted.mean_average_precision(scores, labels)
        elif name == "calibration_error":
            found[name] = _calibration(scores, labels, average)
        elif name == "time_order_accuracy":
            if reversals and np.isin(labels, list(reversals)).any():
                found[name] = _time_order(scores, labels, reversals)
        else:
            raise TinError(f"unknown metric '{name}'; known: {', '.join(METRICS)}")
    return found


def values_of(statistics: Mapping[str, Statistic], videos: int) -> dict[str, float]:
    """What statistics are of the list itself, each of its `videos` once."""
    once = np.ones((1, videos))
    return {name: float(statistic(once)[0]) for name, statistic in statistics.items()}


def title(name: str) -> str:
    """A metric's name for people: `top1_acc` → `top-1`, `mean_class_accuracy` → `mean class accuracy`."""
    match = re.fullmatch(r"top(\d+)_acc", name)
    return f"top-{match[1]}" if match else name.replace("time_order", "time-order").replace("_", " ")


def check(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
    """Refuse scores and labels that no metric can be computed of.

    Raises:
        TinError: shapes differ, no video, a score is not finite, or a label is out of range.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise TinError(f"scores must be (videos, classes) and labels (videos,), got {scores.shape} and {labels.shape}")
    if not len(labels):
        raise TinError("no videos to compute metrics over")
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise TinError(f"the scores of video {row} are not finite: the network's weights or its input are damaged")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        row = int(np.flatnonzero((labels < 0) | (labels >= scores.shape[1]))[0])
        raise TinError(f"label {labels[row]} of video {row} is not in 0…{scores.shape[1] - 1}")


def probabilities(scores: NDArray[np.floating], average: Average) -> NDArray[np.float64]:
    """(videos, classes) probabilities that the scores stand for: themselves, or the softmax of mean logits."""
    if average == "score":
        powers = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)
    return scores.astype(np.float64)


def _once(statistic: Statistic, videos: int) -> float:
    return values_of({"": statistic}, videos)[""]


def _class_recall(scores: NDArray[np.floating], labels: NDArray[np.integer], *, of_predicted: bool) -> Statistic:
    return counted.mean_class_recall(labels, scores.argmax(axis=1), scores.shape[1], of_predicted=of_predicted)


def _calibration(scores: NDArray[np.floating], labels: NDArray[np.integer], average: Average) -> Statistic:
    if average == "prob" and (scores.min() < 0 or scores.max() > 1 + 1e-4):
        raise TinError(
            f"calibration_error needs probabilities, and these scores reach from {scores.min():.3g} to {scores.max():.3g}: logits are "
            f'given with average="score"'
        )
    return counted.calibration_error(probabilities(scores, average).max(axis=1), scores.argmax(axis=1) == labels)


def _time_order(scores: NDArray[np.floating], labels: NDArray[np.integer], reversals: Mapping[int, int]) -> Statistic:
    if not np.isin(labels, list(reversals)).any():
        raise TinError("time_order_accuracy: no video has a class with a reversal")
    return counted.time_order_accuracy(scores, labels, reversals)
