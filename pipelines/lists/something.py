"""The official Something-Something files: V1's csv `id;label` and V2's json of id and template."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from pipelines.errors import ListError
from pipelines.lists.rows import VIDEO_SUFFIXES, Row, quoted

_JSON_EXPECTED = 'a list `[{"id": "74225", "template": "Holding [something]", …}, …]`'
_CSV_LINE = re.compile(r"[0-9]+\s*;(?P<label>[^;]*)")
_BETWEEN = re.compile(r"[\s,]*")


def is_something_json(text: str) -> bool:
    """Whether a text begins as a json list or object of V2 does."""
    return re.match(r"\s*(\[\s*\{|\{\s*\")", text) is not None


def is_something_csv(lines: list[str]) -> bool:
    """Whether all lines are `number;class name`."""
    matches = [_CSV_LINE.fullmatch(line.strip()) for line in lines]
    return bool(matches) and all(match and _is_class_name(match["label"]) for match in matches)


def read_something_csv(path: Path, text: str) -> list[Row]:
    """V1's `id;class name` (train, validation), `id` alone (test), and V2's test answers, which have V1's form.

    Raises:
        ListError: a line of another form; labels in some lines alone.
    """
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, *rest = next(csv.reader([line], delimiter=";"))
        name = name.strip()
        label = rest[0].strip() if rest else ""
        if not name or len(rest) > 1:
            raise ListError(path, number, f"{quoted(line)}: expected `id;class name`")
        if number == 1 and name.lower() in ("id", "video_id"):
            continue
        rows.append(Row(number, name, label or None, None, (name,)))
    return _same_kind(path, rows, "`id;class name`")


def read_something_json(path: Path, text: str) -> list[Row]:
    """V2's train, validation and test json; the brackets are taken from the template to make the class name.

    Raises:
        ListError: no JSON, or an item without id; templates in some items alone; with the line that the item starts on.
    """
    decoder = json.JSONDecoder()
    start = text.find("[")
    if start < 0 or text[:start].strip():
        other = "; of Kinetics the csv files are read, not the json" if '"annotations"' in text[:5000] else ""
        raise ListError(path, 1, f"{quoted(text.strip().partition(chr(10))[0])}: expected {_JSON_EXPECTED}{other}")
    rows: list[Row] = []
    position, line, counted = start + 1, 1, 0
    while True:
        between = _BETWEEN.match(text, position)
        position = between.end() if between else position
        if text[position : position + 1] == "]":
            break
        line += text.count("\n", counted, position)
        counted = position
        try:
            item, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise ListError(path, error.lineno, f"is not JSON ({error.msg}); expected {_JSON_EXPECTED}") from None
        rows.append(_json_row(path, line, item))
    if text[position + 1 :].strip():
        raise ListError(path, line, f"something follows the list; expected {_JSON_EXPECTED}")
    return _same_kind(path, rows, "an id and a template")


def _json_row(path: Path, line: int, item: object) -> Row:
    name = item.get("id") if isinstance(item, dict) else None
    template = item.get("template") if isinstance(item, dict) else None
    if not isinstance(name, (str, int)) or not str(name) or not isinstance(template, (str, type(None))):
        shown = quoted(json.dumps(item, ensure_ascii=False))
        raise ListError(path, line, f"{shown}: expected an item of {_JSON_EXPECTED}")
    label = template.translate(_NO_BRACKETS).strip() if template else None
    return Row(line, str(name), label, None, (str(name),))


_NO_BRACKETS = str.maketrans("", "", "[]")


def _same_kind(path: Path, rows: list[Row], expected: str) -> list[Row]:
    """Labels in all rows or none."""
    if not rows:
        raise ListError(path, None, f"the list is empty; expected {expected} for every video")
    odd = next((row for row in rows if (row.label is None) != (rows[0].label is None)), None)
    if odd is not None:
        has = "no class" if odd.label is None else f"a class, {odd.label!r}"
        raise ListError(path, odd.line, f"{odd.id!r} has {has}, unlike those before it; expected {expected}")
    return rows


def _is_class_name(text: str) -> bool:
    """`12;take 3` and `12;a.mp4` are paths."""
    text = text.strip()
    suffix = "." + text.rpartition(".")[2].lower()
    return not re.search(r"[\s,][0-9]+$", text) and suffix not in VIDEO_SUFFIXES
