"""Plain lists: `path label`, `path frames label` or `path` a line, with the numbers taken from the end of each."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pipelines.errors import ListError
from pipelines.lists.rows import VIDEO_SUFFIXES, Row, quoted

_EXPECTED = {0: "`path`", 1: "`path label`", 2: "`path frames label`"}
_NUMBERS = re.compile(r"(?:[\s,]+-?[0-9]+)+$")
_QUOTED = re.compile(r'"(?P<path>(?:[^"]|"")+)"(?P<numbers>(?:[\s,]+-?[0-9]+)*)')
_AFTER_FILE = re.compile(
    rf"(?P<path>.*?(?:{'|'.join(re.escape(s) for s in sorted(VIDEO_SUFFIXES))}))"
    r"(?P<numbers>(?:[\s,]+-?[0-9]+(?:\.[0-9]*)?)+)",
    re.IGNORECASE,
)
_HEADER_PATHS = frozenset(
    ("path", "video", "video_path", "video_id", "file", "filename", "file_name", "name", "id", "clip", "video_name")
)
_HEADER_NUMBERS = frozenset((
    "label", "label_index", "label_id", "class", "class_id", "class_index", "target", "frames", "num_frames", "total_frames",
    "n_frames", "start", "end", "start_frame", "end_frame", "start_time", "end_time",
))  # fmt: skip
_LOOKS = 64  # paths of a list that are looked up on the disk to settle what its lines mean


class _Line(NamedTuple):
    number: int
    text: str
    path: str
    """Without any of the numbers."""
    numbers: list[str]
    """All numbers that end the line."""
    separators: str
    """The part of the line that holds the numbers, as written."""
    is_quoted: bool


def read_plain(path: Path, text: str, form: int | None, root: Path) -> list[Row]:
    """The rows of a plain list.

    A path in double quotes is taken as it stands, with "" for a quote in it. A first line of column names is skipped.

    Args:
        path: the file, for messages.
        text: what is in it.
        form: numbers after each path, 0 to 2; None for as many as most lines have.
        root: the folder that the paths start from, asked where a list is ambiguous.

    Raises:
        ListError: a line of another form; several labels, or a part of a video.
    """
    lines = [_split(number, line) for number, raw in enumerate(text.splitlines(), 1) if (line := raw.strip())]
    if lines and is_header(lines[0].text):
        _check_header(path, lines.pop(0))
    if not lines:
        raise ListError(path, None, "the list is empty; expected one `path label` or `path frames label` a line")
    counts = Counter(len(line.numbers) for line in lines)
    if form is None:
        form = _form(lines, counts, root)
    _refuse_more_numbers(path, lines, counts, form, root)
    rows = [_row(path, line, form) for line in lines]
    return _with_names(rows, root)


def written(path: str) -> str:
    """A path as a plain list holds it: in double quotes where the reader would take it apart otherwise."""
    ambiguous = (
        path[0] in '"[{\ufeff'
        or path != path.strip()
        or path[-1] == ","
        or ";" in path
        or _NUMBERS.search(path) is not None
        or _AFTER_FILE.fullmatch(path) is not None
        or is_header(path)
    )
    return '"' + path.replace('"', '""') + '"' if ambiguous else path


def is_header(line: str) -> bool:
    """Whether a line names columns, as `path,label` or `video_id, num_frames, label_index`."""
    words = _columns(line)
    return len(words) > 1 and words[0] in _HEADER_PATHS and set(words[1:]) <= _HEADER_NUMBERS


def _split(number: int, text: str) -> _Line:
    if text[0] == '"' and (match := _QUOTED.fullmatch(text)):
        numbers = match["numbers"]
        return _Line(number, text, match["path"].replace('""', '"'), _tokens(numbers), numbers, True)
    path, _, last = text.rpartition(" ")
    is_plain = last.isdecimal() and text.isascii() and path[-1:].isalnum() and path.isprintable() and "," not in path
    if is_plain and not path[path.rfind(" ") + 1 :].lstrip("-").isdecimal():
        return _Line(number, text, path, [last], " " + last, False)  # most lines, in half of the time
    match = _NUMBERS.search(text)
    if match is None:
        return _Line(number, text, text, [], "", False)
    start = match.start()
    return _Line(number, text, text[:start], _tokens(text[start:]), text[start:], False)


def _tokens(numbers: str) -> list[str]:
    return numbers.replace(",", " ").split()


def _path(line: _Line, form: int) -> str:
    """The path of a line that ends in `form` numbers; what precedes them is the path's own."""
    extra = len(line.numbers) - form
    if line.is_quoted or extra <= 0:
        return line.path
    kept = re.match(rf"(?:[\s,]+-?[0-9]+){{{extra}}}", line.separators)
    assert kept
    return line.path + kept.group()


def _form(lines: Sequence[_Line], counts: Counter[int], root: Path) -> int:
    """How many numbers follow the path, 0 to 2, in most lines."""
    shares = Counter[int]()
    for count, lines_with in counts.items():
        shares[min(count, 2)] += lines_with
    most = max(shares, key=lambda form: (shares[form], form))
    # `my clip 7 3` may be a path that ends in a number: believe the disk.
    ambiguous = (line for line in lines if len(line.numbers) >= most and not line.is_quoted)
    for line in islice(ambiguous, _LOOKS):
        found = [form for form in range(most, -1, -1) if _path(line, form) and os.path.exists(root / _path(line, form))]
        if found:
            return found[0]
    return most


def _refuse_more_numbers(path: Path, lines: Sequence[_Line], counts: Counter[int], form: int, root: Path) -> None:
    """More numbers than the form has, where they are no part of the path: several labels, or parts of videos."""
    if form and max(counts) <= form:
        return
    suspects = [line for line in lines if _has_more(line, form)]
    for line in [line for line in suspects if not line.is_quoted][:_LOOKS]:
        if os.path.exists(root / _path(line, form)):
            return  # the list has paths that end in numbers
    for line in suspects:
        match = _AFTER_FILE.fullmatch(line.text)
        numbers = _tokens(match["numbers"]) if match else line.numbers
        if match is None and form < 2 and not line.is_quoted:
            continue  # a frame folder such as `clip 12`, in a list that says so
        if any("." in number for number in numbers) or _are_ranges(lines, counts):
            raise ListError(
                path,
                line.number,
                f"{quoted(line.text)}: looks like `path label start end`, a part of a video; parts are not read: cut the videos "
                "(ffmpeg -ss START -to END -i VIDEO PART) and list the pieces, or leave start and end out to use whole videos",
            )
        raise ListError(
            path,
            line.number,
            f"{quoted(line.text)}: {len(numbers)} numbers after the path; expected {_EXPECTED[form]}. A list with several "
            f"labels a video (multi-label) is not supported; if {_path(line, form)!r} is the path, it is not in {root}",
        )


def _has_more(line: _Line, form: int) -> bool:
    if line.is_quoted:
        return len(line.numbers) > form
    if len(line.numbers) > form:
        return form == 2 or _AFTER_FILE.fullmatch(line.text) is not None
    # Seconds with a fraction are no numbers of a list: `a.mp4 3 0.5 10.25` would pass as a path.
    return form == 0 and re.search(r"[\s,]", line.text) is not None and _AFTER_FILE.fullmatch(line.text) is not None


def _are_ranges(lines: Sequence[_Line], counts: Counter[int]) -> bool:
    """Whether every line ends in label, start and end."""
    return set(counts) == {3} and all(int(line.numbers[1]) < int(line.numbers[2]) for line in lines)


def _row(path: Path, line: _Line, form: int) -> Row:
    if len(line.numbers) < form or (line.is_quoted and len(line.numbers) > form):
        raise ListError(
            path,
            line.number,
            f"{quoted(line.text)}: expected {_EXPECTED[form]}, as in most lines of the list"
            + ("; several labels a video (multi-label) are not supported" if form == 2 and line.numbers else ""),
        )
    name = _path(line, form)
    if not name:
        raise ListError(path, line.number, f"{quoted(line.text)}: no path; expected {_EXPECTED[form]}")
    if form == 0:
        return Row(line.number, name, None)
    label = int(line.numbers[-1])
    if label < 0:
        raise ListError(path, line.number, f"{quoted(line.text)}: label {label} is negative; labels count from 0")
    frames = int(line.numbers[-2]) if form == 2 else None
    if frames is not None and frames < 1:
        raise ListError(
            path, line.number, f"{quoted(line.text)}: {frames} frames; expected {_EXPECTED[2]} with at least one frame"
        )
    return Row(line.number, name, label, frames)


def _columns(line: str) -> list[str]:
    return [re.sub(r'^"(.*)"$', r"\1", word).lower() for word in re.split(r"[\s,]+", line)]


def _check_header(path: Path, line: _Line) -> None:
    words = _columns(line.text)
    labels = [position for position, word in enumerate(words) if word.startswith(("label", "class", "target"))]
    if labels != [len(words) - 1] or len(words) > 3:
        raise ListError(
            path,
            line.number,
            f"{quoted(line.text)}: columns in another order or number; expected `path, label` or `path, frames, label`",
        )


def _with_names(rows: list[Row], root: Path) -> list[Row]:
    """Rows with names to look for, where the paths are no paths but names of videos, as in Kinetics' `video_id, num_frames,
    label_index`: none has a suffix, and none of those looked up is on the disk."""
    if not root.is_dir():
        return rows
    looked = rows[:: max(1, len(rows) // _LOOKS)]
    if any(_suffix(row.id) in VIDEO_SUFFIXES or os.path.exists(root / row.id) for row in looked):
        return rows
    return [Row(*row[:4], (row.id.rpartition("/")[2],)) for row in rows]


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
