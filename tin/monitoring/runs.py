"""A run's record read back from its folder: the points of every curve, and its offsets, each step once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tin.errors import TinError

Points = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Epochs, from 0 at the start, and values; NaN where a value was not finite."""

_NO_METRIC = frozenset(("time", "world_size", "global_step", "epoch", "coverage"))
"""Numbers of a validation's line that are no measure of the network."""


@dataclass(frozen=True)
class RunRecord:
    """What `tin.train.log.RunLog` wrote about a run."""

    path: Path
    """The log."""
    steps: list[dict[str, Any]]
    """Lines of training, in order of their `global_step`, which rises; at least one, or one of `validations`."""
    validations: list[dict[str, Any]]
    offsets: list[dict[str, Any]]
    """Lines of `offsets.jsonl` (`tin.monitoring.OffsetHistory`); none where the network learns no shift."""

    def training(self, key: str) -> Points | None:
        """A field of `tin.train.progress.StepReport` over the epochs; None where no line has a number for it."""
        return _points(self.steps, key, lambda line: line["epoch"] - 1 + line["step"] / line["steps"])

    def validation(self, key: str) -> Points | None:
        """A metric over the epochs; None where no line has a number for it."""
        return _points(self.validations, key, lambda line: line["epoch"])

    @property
    def metrics(self) -> list[str]:
        """Of the validations, in the order in which they were written."""
        found = dict.fromkeys(key for line in self.validations for key in line if key not in _NO_METRIC)
        return [key for key in found if any(isinstance(line.get(key), int | float) for line in self.validations)]


def read_run(path: Path) -> RunRecord:
    """Read the log of a run, which may still be going on.

    Where a run was resumed, what it had done past the point it went on from is done again: the later lines count. A last line that is
    still being written is left out.

    Args:
        path: the run's folder (`--work-dir`), or a log in such a folder.

    Raises:
        TinError: there is no log, nothing in it yet, or a line that is none of a log; with file and line.
    """
    log = path / "log.jsonl" if path.is_dir() else path
    if not log.is_file():
        where = f"{path} holds no log.jsonl" if path.is_dir() else f"there is no run {path}"
        raise TinError(f"{where}: give the --work-dir of a tin-cli train run")
    steps: list[dict[str, Any]] = []
    validations: list[dict[str, Any]] = []
    for number, line in _lines(log):
        kind = line.get("event")
        if kind not in ("step", "validation"):
            continue
        wanted = ("global_step", "epoch", "step", "steps") if kind == "step" else ("global_step", "epoch")
        if missing := [key for key in wanted if not isinstance(line.get(key), int)]:
            raise TinError(f"{log}:{number}: a line of event {kind!r} without {', '.join(missing)}: no log of a run")
        _drop_from(validations, line["global_step"])
        _drop_from(steps, line["global_step"] + (kind == "validation"))
        (steps if kind == "step" else validations).append(line)
    if not steps and not validations:
        raise TinError(f"{log} has no step in it yet: train for as long as train.log_every steps at least")
    offsets: list[dict[str, Any]] = []
    for number, line in _lines(log.with_name("offsets.jsonl")):
        if not isinstance(line.get("global_step"), int) or not isinstance(line.get("blocks"), dict):
            raise TinError(f"{log.with_name('offsets.jsonl')}:{number}: no line of offsets")
        _drop_from(offsets, line["global_step"])
        offsets.append(line)
    return RunRecord(log, steps, validations, offsets)


def _drop_from(lines: list[dict[str, Any]], step: int) -> None:
    """Forget what was written about this step and later ones: it is being done again."""
    while lines and lines[-1]["global_step"] >= step:
        lines.pop()


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The whole lines of a file, numbered from 1; nothing where there is no file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise TinError(f"cannot read {path}: {error}") from None
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise TinError(f"{path}:{number}: no JSON object: {line[:60]!r}; a run's log has one in every line")
        yield number, value


def _points(lines: list[dict[str, Any]], key: str, epoch: Callable[[dict[str, Any]], float]) -> Points | None:
    if not any(isinstance(line.get(key), int | float) for line in lines):
        return None
    numbers = [(epoch(line), _number(line.get(key))) for line in lines if key in line]
    at, values = np.array(numbers, dtype=np.float64).T
    return at, values


def _number(value: Any) -> float:
    """null stands for what was not finite."""
    return float(value) if isinstance(value, int | float) else float("nan")
