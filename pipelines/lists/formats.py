"""The formats by name, and which of them a file has."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from pipelines.errors import DataError
from pipelines.lists.kinetics import is_kinetics, read_kinetics
from pipelines.lists.plain import read_plain
from pipelines.lists.rows import Row, read_text
from pipelines.lists.something import is_something_csv, is_something_json, read_something_csv, read_something_json

ListFormat = Literal["auto", "videos", "frames", "kinetics", "sthv1", "sthv2"]
OFFICIAL = ("kinetics", "sthv1", "sthv2")
_LOOKED_AT = 50  # lines of a file that tell its format


def read_rows(path: Path, format: ListFormat, root: Path) -> tuple[ListFormat, list[Row]]:
    """The rows of an annotation file, and the format they were in ("auto" for a plain list of whatever form).

    Args:
        path: the file.
        format: how to read it; "auto" looks.
        root: the folder of the videos, asked where a plain list is ambiguous.

    Raises:
        DataError: no such format.
        ListError: with file, line, text and what was expected.
    """
    if format not in get_args(ListFormat):
        raise DataError(f"unknown list format {format!r}: use {', '.join(get_args(ListFormat))}")
    text = read_text(path)
    if format == "auto":
        format = detect(text)
    if format == "kinetics":
        return format, read_kinetics(path, text)
    if format == "sthv1":
        return format, read_something_csv(path, text)
    if format == "sthv2":
        return format, read_something_json(path, text)
    form = {"auto": None, "videos": 1, "frames": 2}[format]
    return format, read_plain(path, text, form, root)


def detect(text: str) -> ListFormat:
    """kinetics, sthv1 or sthv2 where a text begins as such a file; "auto", a plain list, where it does not."""
    if is_something_json(text):
        return "sthv2"
    lines = [line for line in text[:20_000].splitlines()[: _LOOKED_AT + 1] if line.strip()][:_LOOKED_AT]
    if lines and is_kinetics(lines[0]):
        return "kinetics"
    return "sthv1" if is_something_csv(lines) else "auto"
