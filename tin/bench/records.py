"""Result files of benchmarks: what was measured, with machine, versions and command, as JSON that people can read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tin.errors import TinError

_NUMBERS = re.compile(r"\[\n\s*(-?\d[^\[\]{}\"]*?)\s*\]")  # a string has no line break in it


@dataclass(frozen=True)
class Record:
    """A result file (benchmarks/README.md lists its fields).

    Attributes:
        path: the file.
        content: all of it.
    """

    path: Path
    content: dict[str, Any]

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """Name of a benchmark → its `settings` and `rows`."""
        found: dict[str, dict[str, Any]] = self.content["results"]
        return found


def new_record(described: Mapping[str, Any], command: str, results: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The content of a result file made now.

    Args:
        described: of `tin.bench.describe`.
        command: as it was typed.
        results: name of a benchmark → what it returned.
        more: further keys.
    """
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {"created": created, "command": command, **described, **more, "results": dict(results)}


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write a result file, a list of numbers on one line.

    Raises:
        TinError: it cannot be written.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False)
    text = _NUMBERS.sub(lambda found: "[" + re.sub(r",\s+", ", ", found[1]) + "]", text)
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise TinError(f"cannot write {path}: {error.strerror or error}") from None


def read_record(path: Path) -> Record:
    """Read a result file.

    Raises:
        TinError: it cannot be read, or is none; the message says what is missing.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TinError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise TinError(f"{path} is no result of tin-cli bench: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise TinError(f"{path} is no result of tin-cli bench: it has no 'results'; name a file that its --out wrote")
    for name, result in content["results"].items():
        rows = result.get("rows") if isinstance(result, dict) else None
        if not isinstance(rows, list):
            raise TinError(f"{path}: 'results.{name}' has no 'rows'")
        for number, row in enumerate(rows):
            for key, kind in (("name", str), ("unit", str), ("median", float | int), ("ratio", float | int)):
                if not isinstance(row, dict) or not isinstance(row.get(key), kind):
                    raise TinError(f"{path}: 'results.{name}.rows.{number}' has no {key!r}, or one of the wrong type")
    return Record(path, content)


def read_records(path: Path) -> list[Record]:
    """The result file, or of a folder all result files in it, by name; other JSON files there are left alone.

    Raises:
        TinError: as `read_record`; a folder without one.
    """
    if not path.is_dir():
        return [read_record(path)]
    found = []
    for file in sorted(path.glob("*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and "results" in content:
            found.append(read_record(file))
    if not found:
        raise TinError(f"{path} holds no result of tin-cli bench")
    return found
