"""The result file: metrics, coverage and every video's scores, with what produced them."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tin.errors import TinError
from tin.evaluation.evaluate import Scores

SCHEMA = "tin-result"
VERSION = 1


def build_result(
    scores: Scores,
    metrics: Mapping[str, float],
    names: Sequence[str],
    *,
    label_names: Sequence[str] | None = None,
    **provenance: Any,
) -> dict[str, Any]:
    """The content of a result file (`docs/results.md` describes every key).

    Args:
        scores: of `tin.evaluation.evaluate`.
        metrics: of `tin.evaluation.compute`; they stand over the scored videos alone, see `coverage`.
        names: of all videos of the list, in its order.
        label_names: class names, when the data set has them.
        provenance: further keys: checkpoint, recipe, versions, command.
    """
    row_of = {int(video): row for row, video in enumerate(scores.ids)}
    failed = {failure.id: failure.reason for failure in scores.failures}
    videos: list[dict[str, Any]] = []
    vectors: list[list[float] | None] = []
    for video, name in enumerate(names):
        row = row_of.get(video)
        if row is None:
            videos.append({"id": name, "failed": failed[video]})
            vectors.append(None)
            continue
        label = int(scores.labels[row])
        prediction = int(scores.scores[row].argmax())
        videos.append({"id": name, "label": label if label >= 0 else None, "prediction": prediction})
        vectors.append([float(f"{value:.7g}") for value in scores.scores[row]])
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "metrics": dict(metrics),
        "coverage": {
            "expected": scores.expected,
            "scored": len(scores.ids),
            "failed": len(scores.failures),
            "failures": [{"id": failure.name, "reason": failure.reason} for failure in scores.failures],
        },
        **provenance,
        "label_names": list(label_names) if label_names else None,
        "videos": videos,
        "scores": vectors,
    }


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        TinError: the folder does not exist or cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8"
        ) as file:
            temporary = file.name
            json.dump(content, file, indent=1, allow_nan=False)
            file.write("\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise TinError(f"cannot write {path}: {error.strerror or error}") from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
