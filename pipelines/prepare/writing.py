"""Write canonical lists: whole or not at all, and never over lists that say something else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipelines.errors import DataError
from pipelines.lists.labels import LABELS_FILE
from pipelines.lists.plain import written


def list_lines(rows: Iterable[tuple[str, int | None, int | None]], out: Path) -> list[str]:
    """The lines of a list in the folder `out` for (place, frames, label); paths inside `out` are relative to it, others absolute.

    Reading them gives the same paths again, whatever the names (`pipelines.lists.plain.written`).

    Raises:
        DataError: a name that no list can hold, with a line break in it or not UTF-8.
    """
    home = os.path.join(os.path.abspath(out), "")
    here = os.getcwd()
    lines = []
    for place, frames, label in rows:
        path = place if place.startswith("/") and "/." not in place and "//" not in place else _absolute(place, here)
        path = written(path.removeprefix(home))
        if len(path.splitlines()) != 1:
            raise DataError(f"{path!r}: a list cannot hold a name that has a line break; rename it")
        fields = [path, *(str(number) for number in (frames, label) if number is not None)]
        lines.append(" ".join(fields))
    return lines


def write_lists(out: Path, files: Mapping[str, Sequence[str]]) -> None:
    """Write files of lines into the folder `out`, which is created if needed.

    Raises:
        DataError: a line that is not UTF-8; a file that is there and differs; a folder that cannot be written.
    """
    for name in files.get(LABELS_FILE, ()):
        if not name or name != name.strip() or len(name.splitlines()) != 1:
            raise DataError(
                f"class {name!r}: {LABELS_FILE} cannot hold an empty name, a line break, or a space at an end"
            )
    texts: dict[Path, bytes] = {}
    for name, lines in files.items():
        try:
            texts[out / name] = "".join(f"{line}\n" for line in lines).encode()
        except UnicodeEncodeError:
            wrong = next(line for line in lines if not _is_utf8(line))
            raise DataError(f"{wrong!r}: the name is not UTF-8; rename it") from None
    try:
        for path, text in texts.items():
            if path.exists() and path.read_bytes() != text:
                raise DataError(
                    f"{path} exists and says something else; remove it or name another folder for the lists"
                )
        out.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            replace_file(path, text)
    except OSError as error:
        raise DataError(f"cannot write the lists to {out}: {error.strerror or error}") from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old or the new one, never a part."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def _absolute(place: str, here: str) -> str:
    return os.path.normpath(os.path.join(here, place))


def _is_utf8(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True
