"""A row of an annotation file, whatever its format, and the text it comes from."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipelines.errors import ListError

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
    ".vob", ".webm", ".wmv",
))
# fmt: on
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))


class Row(NamedTuple):
    """One video as an annotation file has it."""

    line: int
    """Where it stands in the file, from 1."""
    id: str
    """The path as written, or the data set's own name of the video; unique in a file."""
    label: int | str | None
    """Class index, class name (official files), or None where there is no label."""
    frames: int | None = None
    """Frames as the file claims."""
    names: tuple[str, ...] = ()
    """What the video's file (less its suffix) or frame folder may be called, best first; () where `id` is the path."""
    split: str | None = None
    """train, val or test where the row itself says so (Kinetics)."""


def read_text(path: Path) -> str:
    """A text file, UTF-8 with or without byte order mark; ListError where it is none."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ListError(path, None, "no such list file") from None
    except IsADirectoryError:
        raise ListError(path, None, "is a folder, not a list; VideoList.from_folder reads a folder per class") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ListError(
            path, line, f"byte {error.object[error.start]:#04x} is not UTF-8 text; save the list as UTF-8"
        ) from None
    except OSError as error:
        raise ListError(path, None, f"cannot be read: {error.strerror or error}") from None


def quoted(text: str) -> str:
    """A line as an error message shows it: quoted, and cut after 120 characters."""
    return repr(text if len(text) <= 120 else text[:119] + "…")


@contextmanager
def collector_paused() -> Iterator[None]:
    """No cyclic garbage collection meanwhile: with 240,000 rows growing it would take half of the time, for nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
