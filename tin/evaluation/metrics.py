"""Accuracy of scores against labels; every video weighs one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tin.errors import TinError

METRICS = ("top_k_accuracy", "mean_class_accuracy", "time_order_accuracy")
"""Names that `compute` knows."""


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
    _check(scores, labels)
    own = scores[np.arange(len(labels)), labels][:, None]
    lower_index = np.arange(scores.shape[1])[None, :] < labels[:, None]
    rank = (scores > own).sum(axis=1) + ((scores == own) & lower_index).sum(axis=1)
    return float((rank < k).mean())


def mean_class_accuracy(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Mean over classes of the part of their videos that is predicted right, as MMAction2 defines it.

    The mean runs over the classes that occur in labels or predictions; one that is predicted but never true counts 0. (scikit-learn's
    balanced accuracy leaves such classes out: labels 0,0,1,1 with predictions 0,0,1,3 give 0.5 here and 0.75 there.)

    Args and errors as `top_k_accuracy`.
    """
    _check(scores, labels)
    predictions = scores.argmax(axis=1)
    classes = np.union1d(labels, predictions)
    hits = [float((predictions[labels == c] == c).mean()) if (labels == c).any() else 0.0 for c in classes]
    return float(np.mean(hits))


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
    _check(scores, labels)
    rows = np.flatnonzero(np.isin(labels, list(reversals)))
    if not len(rows):
        raise TinError("time_order_accuracy: no video has a class with a reversal")
    own = scores[rows, labels[rows]]
    reverse = scores[rows, [reversals[int(label)] for label in labels[rows]]]
    return float(np.where(own == reverse, 0.5, own > reverse).mean())


def compute(
    names: Sequence[str],
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    ks: Sequence[int] = (1, 5),
    reversals: Mapping[int, int] | None = None,
) -> dict[str, float]:
    """The named metrics, under the names of result files: `top1_acc`, `top5_acc`, `mean_class_accuracy`, `time_order_accuracy`.

    A k that is not smaller than the number of classes says nothing and is left out; `time_order_accuracy` is left out without
    `reversals`.

    Raises:
        TinError: an unknown name, or as the metrics.
    """
    values: dict[str, float] = {}
    for name in names:
        if name == "top_k_accuracy":
            values |= {f"top{k}_acc": top_k_accuracy(scores, labels, k) for k in ks if k == 1 or k < scores.shape[1]}
        elif name == "mean_class_accuracy":
            values[name] = mean_class_accuracy(scores, labels)
        elif name == "time_order_accuracy":
            if reversals:
                values[name] = time_order_accuracy(scores, labels, reversals)
        else:
            raise TinError(f"unknown metric '{name}'; known: {', '.join(METRICS)}")
    return values


def _check(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
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
