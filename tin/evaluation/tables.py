"""What single classes do: counts and accuracy of each, and which are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tin.evaluation import counted
from tin.evaluation.metrics import check


def confusion_matrix(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """(classes, classes) numbers of videos; rows are labels, columns predictions.

    Args and errors as `tin.evaluation.top_k_accuracy`.
    """
    check(scores, labels)
    classes = scores.shape[1]
    return np.bincount(labels * classes + scores.argmax(axis=1), minlength=classes**2).reshape(classes, classes)


def per_class(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    names: Sequence[str] | None = None,
    *,
    average_precision: bool = False,
) -> list[dict[str, Any]]:
    """A row a class, in the order of their indices: `index`, `name` (or None), `videos` of the class, videos `predicted` as it, and
    those that are both, `correct`; `accuracy` = correct ÷ videos, and, when asked for, `average_precision`, None without videos.

    Args and errors as `tin.evaluation.top_k_accuracy`; `names` are of the classes.
    """
    matrix = confusion_matrix(scores, labels)
    precisions: dict[int, float] = {}
    if average_precision:
        values = counted.average_precisions(scores, labels)(np.ones((1, len(labels))))[0]
        precisions = {int(c): float(value) for c, value in zip(np.unique(labels), values, strict=True)}
    rows = []
    for index, (videos, predicted, correct) in enumerate(
        zip(matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist(), matrix.diagonal().tolist(), strict=True)
    ):
        rows.append(
            {
                "index": index, "name": names[index] if names else None, "videos": videos, "predicted": predicted, "correct": correct,
                "accuracy": correct / videos if videos else None, "average_precision": precisions.get(index),
            }
        )  # fmt: skip
    return rows
