"""The content of a result: metrics with intervals, coverage and every video's scores, with what produced them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tin.errors import TinError
from tin.evaluation import bootstrap
from tin.evaluation.evaluate import Scores
from tin.evaluation.metrics import METRICS, Average, statistics, values_of
from tin.evaluation.schema import SCHEMA, VERSION
from tin.evaluation.tables import confusion_matrix, per_class


def build_result(
    scores: Scores,
    names: Sequence[str],
    *,
    metrics: Sequence[str] = METRICS,
    ks: Sequence[int] = (1, 5),
    average: Average = "prob",
    list_name: str,
    root: str | None = None,
    label_names: Sequence[str] | None = None,
    reversals: Mapping[int, int] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    ensemble: Sequence[Mapping[str, Any]] | None = None,
    recipe: Mapping[str, Any] | None = None,
    views: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    commit: Mapping[str, Any] | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of a result file, for `tin.evaluation.write_result`; docs/results.md and `tin.evaluation.schema` describe every key.

    Metrics stand over the scored videos alone; there are none when one of them has no label.

    Args:
        scores: of `tin.evaluation.evaluate`.
        names: of all videos of the list, in its order.
        metrics, ks, average, reversals: as `tin.evaluation.compute`.
        list_name: the list of videos.
        root: the folder that its paths are relative to.
        label_names: class names, when the data set has them.
        checkpoint, ensemble, recipe, views, versions, commit, command: what made the scores.

    Returns:
        Plain values, but `scores`, whose rows are float32 (classes,).

    Raises:
        TinError: a score is not finite, or as the metrics.
    """
    rows = _rows(scores, names)
    figures: dict[str, Any] = {"metrics": {}, "intervals": None, "per_class": None, "confusion": None}
    if scores.labelled:
        made = statistics(metrics, scores.scores, scores.labels, ks=ks, average=average, reversals=reversals)
        figures = {
            "metrics": values_of(made, len(scores.ids)),
            "intervals": {
                "level": bootstrap.LEVEL, "resamples": bootstrap.RESAMPLES, "seed": bootstrap.SEED,
                "values": {name: [*span] for name, span in bootstrap.intervals(made, len(scores.ids)).items()},
            },
            "per_class": per_class(scores.scores, scores.labels, label_names, average_precision="mean_average_precision" in made),
            "confusion": confusion_matrix(scores.scores, scores.labels).tolist(),
        }  # fmt: skip
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metrics": figures["metrics"],
        "intervals": figures["intervals"],
        "coverage": {
            "expected": scores.expected,
            "scored": len(scores.ids),
            "failed": len(scores.failures),
            "failures": [{"id": failure.name, "reason": failure.reason} for failure in scores.failures],
        },
        "list": list_name,
        "root": root,
        "checkpoint": checkpoint,
        "ensemble": ensemble,
        "recipe": recipe,
        "views": views,
        "average": average,
        "versions": dict(versions or {}),
        "commit": commit,
        "command": [*command],
        "label_names": [*label_names] if label_names else None,
        "reversals": [[*pair] for pair in sorted(reversals.items())] if reversals else None,
        "per_class": figures["per_class"],
        "confusion": figures["confusion"],
        **rows,
    }


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rows(scores: Scores, names: Sequence[str]) -> dict[str, Any]:
    """A row a video, in list order."""
    bad = np.flatnonzero(~np.isfinite(scores.scores).all(axis=1))
    if len(bad):
        raise TinError(
            f"the scores of '{names[int(scores.ids[bad[0]])]}' are not finite (and of {len(bad) - 1} other videos): the network's weights "
            f"or its input are damaged"
        )
    row_of = {int(video): row for row, video in enumerate(scores.ids)}
    failed = {failure.id: failure.reason for failure in scores.failures}
    predictions = scores.scores.argmax(axis=1) if len(scores.ids) else scores.labels
    videos: list[dict[str, Any]] = []
    vectors: list[NDArray[np.float32] | None] = []
    for video, name in enumerate(names):
        row = row_of.get(video)
        if row is None:
            videos.append({"id": name, "failed": failed[video]})
            vectors.append(None)
            continue
        label = int(scores.labels[row])
        videos.append({"id": name, "label": label if label >= 0 else None, "prediction": int(predictions[row])})
        vectors.append(scores.scores[row])
    return {"videos": videos, "scores": vectors}
