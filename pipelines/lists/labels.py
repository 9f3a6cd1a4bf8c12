"""Class names: label maps as users have them, and class names or indices of rows checked against one."""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.errors import ListError
from pipelines.lists.rows import Row, read_text

LABELS_FILE = "labels.txt"

_NUMBER_FIRST = re.compile(r"(?P<index>[0-9]+)\s*[\s,;:]\s*(?P<name>.*\S)")
_NUMBER_LAST = re.compile(r"(?P<name>.*[^\s,;:])\s*[\s,;:]\s*(?P<index>[0-9]+)")
_HEADER = re.compile(
    r"(?:class|label|category)?[_ ]?(?:id|index|name|label|class)[\s,;]+(?:class|label|category)?[_ ]?\w*",
    re.IGNORECASE,
)
_SPLIT_WORD = re.compile(r"(train(ing)?|validation|validate|valid|val|test)([-_ ]answers)?$", re.IGNORECASE)
_JSON_FORMS = '["first class", …], {"class": 0, …} or {"0": "class", …}'


def read_labels_file(path: Path) -> list[str] | None:
    """The canonical `labels.txt`: line k, counted from 0, is the name of class k, as it stands. None where there is no file."""
    if not path.exists():
        return None
    return _checked([line.strip() for line in read_text(path).splitlines()], path)


def read_label_map(path: Path) -> list[str]:
    """Class names by label from any of the forms they come in.

    * text or csv, one name a line, in the order of the labels (`labels.txt`, Something-Something V1's labels csv);
    * text or csv with the label before or after each name, in any order, with or without a header (`0 abseiling`,
      `id,name`), where the labels are 0 … n−1, each once; otherwise the numbers belong to the names;
    * json: a list of names, or an object from name to label (Something-Something V2's labels json) or from label to name.

    Raises:
        ListError: no such file, or one that is none of these.
    """
    text = read_text(path)
    if path.suffix.lower() == ".json" or text.lstrip()[:1] in ("{", "["):
        return _json_labels(path, text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    body = lines[1:] if lines and _HEADER.fullmatch(lines[0]) else lines
    for form in (_NUMBER_FIRST, _NUMBER_LAST):
        if names := _in_order([form.fullmatch(line.replace('"', "")) for line in body]):
            return names
    if path.suffix.lower() == ".csv":
        return _checked(
            [field[0].strip() if len(field := next(csv.reader([line]))) == 1 else line for line in lines], path
        )
    return _checked([line.strip() for line in text.splitlines()], path)


def labels_beside(path: Path, format: str) -> Path | None:
    """The official label file that lies beside an official list: `…-train.csv` → `…-labels.csv`, else `labels.csv` or .json."""
    suffixes = (".json", ".csv", ".txt") if format == "sthv2" or path.suffix == ".json" else (".csv", ".json", ".txt")
    names = [_SPLIT_WORD.sub(word, path.stem) for word in ("labels", "label")]
    for name in (*names, "labels"):
        for suffix in suffixes:
            candidate = path.with_name(name + suffix)
            if candidate != path and candidate.is_file():
                return candidate
    return None


def class_names(rows: Iterable[Row]) -> list[str]:
    """The classes that rows name, in alphabetical order: Kinetics' own order of labels."""
    return sorted({row.label for row in rows if isinstance(row.label, str)})


def settle(rows: Sequence[Row], names: Sequence[str] | None, path: Path, source: str) -> list[Row]:
    """Rows with class indices for class names, without the rows of official files that repeat an earlier one.

    Args:
        rows: of one file, `path`.
        names: class names by label; None where a list with indices has none.
        source: what `names` comes from, for messages.

    Raises:
        ListError: a class or label that `names` does not have; a video that is listed twice, unless an official file says
            the same thing twice.
    """
    labels = {_key(name): label for label, name in enumerate(names or ())}
    labels.update((name, label) for label, name in enumerate(names or ()))
    settled: list[Row] = []
    seen: dict[str, Row] = {}
    for row in rows:
        label = row.label
        if isinstance(label, str):
            found = labels.get(label)
            if found is None:
                found = labels.get(_key(label))
                if found is None:
                    raise ListError(path, row.line, _unknown(row, label, names or (), source))
                labels[label] = found
            row = Row(row.line, row.id, found, row.frames, row.names, row.split)  # _replace takes thrice as long
        elif label is not None and names is not None and label >= len(names):
            raise ListError(
                path,
                row.line,
                f"{row.id!r}: label {label} is not in {source}, which names {len(names)} classes, counted from 0 to {len(names) - 1}",
            )
        earlier = seen.setdefault(row.id, row)
        if earlier is row:
            settled.append(row)
        elif not row.names or earlier.label != row.label:
            other = "" if earlier.label == row.label else ", with another label"
            raise ListError(path, row.line, f"{row.id!r} is already on line {earlier.line}{other}; remove one of them")
    return settled


def _key(name: str) -> str:
    """What names of one class have in common: `Holding [something]` and `holding something`, `air_drumming` and `air drumming`."""
    return " ".join(name.translate(_UNIFY).split()).casefold()


_UNIFY = str.maketrans({"[": None, "]": None, '"': None, "_": " "})


def _unknown(row: Row, label: str, names: Sequence[str], source: str) -> str:
    close = difflib.get_close_matches(label, names, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return f"{row.id!r}: class {label!r} is not one of the {len(names)} classes of {source}{meant}"


def _checked(names: list[str], path: Path) -> list[str]:
    """Names as they stand, less empty lines at the end; none empty, none twice."""
    while names and not names[-1]:
        names.pop()
    if not names:
        raise ListError(path, None, "no class names in it; expected one a line")
    first: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise ListError(path, number, "an empty class name; the line number minus one is the label")
        if name in first:
            raise ListError(path, number, f"class {name!r} is already on line {first[name]}")
        first[name] = number
    return names


def _in_order(matches: Sequence[re.Match[str] | None]) -> list[str] | None:
    """Names by their numbers, where every line has one and they are 0 … n−1."""
    if not matches or not all(matches):
        return None
    by_index = {int(match["index"]): match["name"].strip() for match in matches if match}
    complete = len(by_index) == len(matches) and set(by_index) == set(range(len(matches)))
    distinct = len(set(by_index.values())) == len(matches)
    return [by_index[index] for index in range(len(matches))] if complete and distinct else None


def _json_labels(path: Path, text: str) -> list[str]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ListError(path, error.lineno, f"is not JSON ({error.msg}); expected {_JSON_FORMS}") from None
    names: list[str] | None = None
    if isinstance(data, list) and all(isinstance(name, str) for name in data):
        names = data
    elif isinstance(data, dict):
        for pairs in (data.items(), ((value, key) for key, value in data.items())):
            names = names or _from_pairs([(str(name), str(index)) for name, index in pairs])
    if not names or len(set(names)) != len(names):
        raise ListError(path, None, f"is no label map: expected {_JSON_FORMS}, with labels from 0 on, each once")
    return names


def _from_pairs(pairs: Sequence[tuple[str, str]]) -> list[str] | None:
    if not all(index.isdecimal() for _, index in pairs):
        return None
    by_index = {int(index): name.strip('"') for name, index in pairs}
    return [by_index[index] for index in range(len(pairs))] if set(by_index) == set(range(len(pairs))) else None
