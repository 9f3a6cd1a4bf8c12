"""Result files read back, checked key by key."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic_core
from numpy.typing import NDArray
from pydantic import ValidationError

from tin.errors import TinError
from tin.evaluation.evaluate import Failed, Scores
from tin.evaluation.metrics import Average
from tin.evaluation.schema import SCHEMA, VERSION, Checkpoint, ClassFigures, Coverage, ResultFile, Video, Views
from tin.evaluation.tables import confusion_matrix, per_class


@dataclass(frozen=True)
class Result:
    """A result file. Where a list of a thing a video is said, it is in list order, failed videos included."""

    path: Path
    metrics: dict[str, float]
    """Over the scored videos; empty without labels."""
    intervals: dict[str, tuple[float, float]]
    """95 % interval of each metric; empty without labels, and in files of version 1."""
    coverage: Coverage
    per_class: list[ClassFigures]
    """A row a class; empty without labels."""
    confusion: NDArray[np.int64] | None
    """(classes, classes) numbers of videos, rows labels and columns predictions; None without labels."""
    label_names: list[str] | None
    reversals: dict[int, int]
    """Class → class of the same video played backwards; empty where the data set has none."""
    videos: list[Video]
    """`id`, `label`, `prediction`, and `failed`: why it has no scores, or None."""
    labels: NDArray[np.int64]
    """(videos,) −1 where there is none, and for failed videos."""
    predictions: NDArray[np.int64]
    """(videos,) −1 for failed videos."""
    scores: NDArray[np.float32]
    """(videos, classes), not a number for failed videos."""
    scored: NDArray[np.bool_]
    """(videos,) whether it has scores."""
    average: Average
    list_name: str
    root: str | None
    """The folder that the list's paths are relative to; None in older files."""
    created: str | None
    """When it was made, ISO 8601 in UTC; None in older files."""
    checkpoint: Checkpoint | None
    recipe: dict[str, Any] | None
    views: Views | None
    versions: dict[str, str]
    command: list[str]

    @property
    def num_classes(self) -> int:
        """Classes of the model; 0 when every video failed."""
        return self.scores.shape[1]

    @property
    def labelled(self) -> bool:
        """Whether every scored video has a label, and there is one."""
        return bool(self.scored.any() and (self.labels[self.scored] >= 0).all())

    def as_scores(self) -> Scores:
        """As `tin.evaluation.evaluate` gave them."""
        failures = tuple(
            Failed(number, video.id, video.failed)
            for number, video in enumerate(self.videos)
            if video.failed is not None
        )
        ids = np.flatnonzero(self.scored)
        return Scores(ids, self.scores[ids], self.labels[ids], failures, len(self.videos))


def load_result(path: str | os.PathLike[str]) -> Result:
    """Read a result file of this version or the one before, and check it.

    Raises:
        TinError: it cannot be read, is no result, or is of another version; a key is missing, of the wrong type, or contradicts another.
            The message names the file and the key.
    """
    path = Path(path)
    file = _checked(_parsed(path), path)
    classes = next((len(row) for row in file.scores if row is not None), 0)
    missing = [np.nan] * classes
    scores = np.array([missing if row is None else row for row in file.scores], np.float32).reshape(
        len(file.scores), classes
    )
    absent = [-1 if video.label is None else video.label for video in file.videos]
    return Result(
        path=path,
        metrics=file.metrics,
        intervals={name: (low, high) for name, (low, high) in file.intervals.values.items()} if file.intervals else {},
        coverage=file.coverage,
        per_class=file.per_class or [],
        confusion=None if file.confusion is None else np.array(file.confusion, np.int64),
        label_names=file.label_names,
        reversals={pair[0]: pair[1] for pair in file.reversals or ()},
        videos=file.videos,
        labels=np.array(absent, np.int64),
        predictions=np.array([-1 if video.prediction is None else video.prediction for video in file.videos], np.int64),
        scores=scores,
        scored=np.array([row is not None for row in file.scores], bool),
        average=file.average,
        list_name=file.list,
        root=file.root,
        created=file.created,
        checkpoint=file.checkpoint,
        recipe=file.recipe,
        views=file.views,
        versions=file.versions,
        command=file.command,
    )


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = pydantic_core.from_json(path.read_bytes(), allow_inf_nan=False)
    except OSError as error:
        raise TinError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        hint = "; give the .json of tin-cli test --out" if path.suffix in (".pkl", ".csv") else ""
        raise TinError(f"{path} is no result file: {error}{hint}") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise TinError(f'{path} is no result file: it lacks "schema": "{SCHEMA}", which tin-cli test --out writes')
    return content


def _checked(content: dict[str, Any], path: Path) -> ResultFile:
    version = content.get("version")
    try:
        if version == 1:
            return _of_version_1(content)
        if version != VERSION:
            raise TinError(
                f"{path}: 'version' is {version!r}, and this program reads 1 and {VERSION}: a newer one wrote it"
            )
        return ResultFile.model_validate(content)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors(include_input=True)[:3]]
        more = f"; and {error.error_count() - 3} more" if error.error_count() > 3 else ""
        raise TinError(f"{path}: {'; '.join(problems)}{more}") from None


def _of_version_1(content: dict[str, Any]) -> ResultFile:
    """Version 1 had no tables, intervals or views, and did not say which weights of a checkpoint it used."""
    newer = ("intervals", "per_class", "confusion", "ensemble", "views", "commit", "reversals")
    if isinstance(content.get("checkpoint"), dict):
        content["checkpoint"].setdefault("weights", None)
    file = ResultFile.model_validate({**dict.fromkeys(newer), **content, "version": VERSION})
    rows = [(row, video.label) for row, video in zip(file.scores, file.videos, strict=True) if row is not None]
    if not rows or any(label is None for _, label in rows):
        return file
    scores, labels = np.array([row for row, _ in rows], np.float32), np.array([label for _, label in rows])
    return file.model_copy(
        update={
            "per_class": [ClassFigures(**row) for row in per_class(scores, labels, file.label_names)],
            "confusion": confusion_matrix(scores, labels).tolist(),
        }
    )


def _explain(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should", "should")
    return f"'{key}' {message} (got {str(problem['input'])[:60]})" if key else message
