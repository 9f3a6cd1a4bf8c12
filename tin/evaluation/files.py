"""Result files: JSON, a table for spreadsheets, and the list of scores that other programs average; each whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import pickle
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from tin.errors import TinError

SUFFIXES = (".json", ".csv", ".pkl")
_TOP = 5  # classes a video in a table
_BY_ROW = ("per_class", "confusion", "videos")


def write_result(path: Path, content: Mapping[str, Any]) -> None:
    """Write the content of a result (`tin.evaluation.build_result`) in the form that the file's name ends in.

    * `.json`: all of it, a line a video (docs/results.md).
    * `.csv`: a row a video: id, label, prediction and their names, the label's score, the five highest classes and their scores, or why
      it failed.
    * `.pkl`: the list of scores as MMAction2 dumps them, an array (classes,) float32 a video, None where one failed.

    Raises:
        TinError: another ending; the folder cannot be made or written.
    """
    check_path(path)
    if path.suffix == ".json":
        with _whole(path, "w") as file:
            file.writelines(_json_text(content))
    elif path.suffix == ".csv":
        with _whole(path, "w", newline="") as file:
            csv.writer(file).writerows(_table(content))
    else:
        with _whole(path, "wb") as file:
            pickle.dump(content["scores"], file)


def check_path(path: Path) -> None:
    """Whether a result can be written there, before hours are spent on it: makes the folder.

    Raises:
        TinError: as `write_result`.
    """
    if path.suffix not in SUFFIXES:
        raise TinError(f"{path}: a result is written as {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}; end its name so")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TinError(f"cannot write {path}: {error.strerror or error}") from None
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise TinError(f"cannot write {path}: {'it is a folder' if path.is_dir() else 'its folder is not writable'}")


@contextmanager
def _whole(path: Path, mode: str, newline: str | None = None) -> Iterator[IO[Any]]:
    """A file that takes its name when it is complete."""
    temporary = None
    encoding = None if "b" in mode else "utf-8"
    try:
        with tempfile.NamedTemporaryFile(
            mode, dir=path.parent, prefix=f".{path.name}.", delete=False, encoding=encoding, newline=newline
        ) as file:
            temporary = file.name
            yield file
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise TinError(f"cannot write {path}: {error.strerror or error}") from None
        raise


def _json_text(content: Mapping[str, Any]) -> Iterator[str]:
    """A key a line, and of long lists an element a line: such a file can be read, compared and searched by lines."""
    separator = "{\n"
    for key, value in content.items():
        yield f"{separator}{json.dumps(key)}: "
        if key in _BY_ROW and value:
            yield "[\n" + ",\n".join(_dumps(row) for row in value) + "\n]"
        elif key == "scores":
            yield from _score_lines(value)
        else:
            yield _dumps(value)
        separator = ",\n"
    yield "\n}\n"


def _score_lines(scores: list[Any]) -> Iterator[str]:
    separator = "[\n"
    for row in scores:
        # nine digits bring back every float32 as it was
        yield separator + ("null" if row is None else "[" + ", ".join(["%.9g"] * len(row)) % tuple(row.tolist()) + "]")
        separator = ",\n"
    yield "\n]" if scores else "[]"


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _table(content: Mapping[str, Any]) -> Iterator[list[Any]]:
    names = content["label_names"]

    def name(number: int | None) -> str:
        return names[number] if names and number is not None else ""

    yield [
        "id", "label", "label_name", "prediction", "prediction_name", "label_score", "top5", "top5_scores", "failed",
    ]  # fmt: skip
    for video, row in zip(content["videos"], content["scores"], strict=True):
        if row is None:
            yield [video["id"], *[""] * 7, video["failed"]]
            continue
        label, prediction = video["label"], video["prediction"]
        top = np.argsort(-row, kind="stable")[:_TOP]
        yield [
            video["id"], "" if label is None else label, name(label), prediction, name(prediction),
            "" if label is None else f"{row[label]:.9g}", " ".join(map(str, top)), " ".join(f"{row[c]:.9g}" for c in top), "",
        ]  # fmt: skip
