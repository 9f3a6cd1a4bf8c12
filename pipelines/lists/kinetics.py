"""The official Kinetics csv: `label,youtube_id,time_start,time_end,split`, as published for Kinetics-400, -600 and -700."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from pipelines.errors import ListError
from pipelines.lists.rows import Row, quoted

EXPECTED = "`label,youtube_id,time_start,time_end,split`"
SPLITS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}


def is_kinetics(first_line: str) -> bool:
    """Whether this is the first line of a Kinetics csv; columns may stand in any order."""
    return {"youtube_id", "time_start", "time_end"} <= set(_columns(first_line))


def read_kinetics(path: Path, text: str) -> list[Row]:
    """The rows of a Kinetics csv, with or without the column `label` (some test files have none) and other columns.

    A video's id is `{youtube_id}_{start:06d}_{end:06d}`, the name that the usual download scripts give its file; copies that cut
    the times off, or do not pad them, are looked for as well.

    Raises:
        ListError: no such header, a line of another form.
    """
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.strip()), None)
    if start is None or not is_kinetics(lines[start]):
        raise ListError(path, 1 if start is None else start + 1, f"no Kinetics csv: expected the header {EXPECTED}")
    columns = _columns(lines[start])
    at = {name: columns.index(name) for name in ("youtube_id", "time_start", "time_end")}
    id_at, start_at, end_at = at.values()
    label_at = columns.index("label") if "label" in columns else None
    split_at = columns.index("split") if "split" in columns else None
    rows = []
    for number, fields in _fields(lines, start + 1):
        try:
            name, first, last = fields[id_at].strip(), _seconds(fields[start_at]), _seconds(fields[end_at])
            label = fields[label_at].strip().strip('"') if label_at is not None else None
            split = SPLITS.get(fields[split_at].strip().lower()) if split_at is not None else None
        except (IndexError, ValueError, OverflowError):
            name = ""
        if not name or label == "":
            raise ListError(
                path,
                number,
                f"{quoted(lines[number - 1])}: expected {','.join(columns)}, the columns of line {start + 1}",
            )
        full = f"{name}_{first:06d}_{last:06d}"
        rows.append(Row(number, full, label, None, (full, f"{name}_{first}_{last}", name), split))
    if not rows:
        raise ListError(path, None, "the list is empty; there is nothing below its header")
    return rows


def _seconds(field: str) -> int:
    return int(field) if field.isdecimal() else int(float(field))


def _columns(line: str) -> list[str]:
    return [field.strip().lower() for field in next(csv.reader([line]), [])]


def _fields(lines: list[str], start: int) -> Iterator[tuple[int, list[str]]]:
    """(line number from 1, fields) of every line that is not blank; a field holds no line break."""
    for number in range(start, len(lines)):
        if lines[number].strip():
            yield number + 1, _split(lines[number])


def _split(line: str) -> list[str]:
    return next(csv.reader([line])) if '"' in line else line.split(",")
