"""The videos that a command line names: files, folders, lists and standard input made into one list."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.annotations import VIDEO_SUFFIXES, VideoEntry, VideoList, videos_below
from pipelines.errors import DataError

if TYPE_CHECKING:
    from pipelines.lists.formats import ListFormat

_HEAD_BYTES = 4096  # of a file that tell whether it is text


def gather(named: Sequence[str], root: Path | None, format: ListFormat) -> VideoList:
    """The videos of all that was named, each once, without labels, in the order of naming.

    Args:
        named: video files; folders, whose video files are found at any depth, by name; lists; and `-`, for paths on standard
            input, one a line. A file that has no video's suffix is a list where it is text.
        root: folder that relative paths in lists start from; None for each list's own.
        format: of the lists.

    Raises:
        ListError: a list cannot be read.
        DataError: there is no video at all.
    """
    entries: dict[str, VideoEntry] = {}
    for name in named:
        for entry in _entries(name, root, format):
            entries.setdefault(entry.id, entry)
    if not entries:
        what = ", ".join("standard input" if name == "-" else name for name in named)
        raise DataError(
            f"no videos in {what}: folders are searched for files with a video's suffix ({', '.join(sorted(VIDEO_SUFFIXES))}); "
            "folders of frames are named in a list"
        )
    return VideoList(list(entries.values()), None, "videos", Path(), None)


def _entries(name: str, root: Path | None, format: ListFormat) -> Iterable[VideoEntry]:
    if name == "-":
        return [_entry(os.fsdecode(line)) for line in sys.stdin.buffer.read().splitlines() if line.strip()]
    path = Path(name)
    if path.is_dir():
        return [_entry(file) for file in videos_below(path)]
    if path.suffix.lower() not in VIDEO_SUFFIXES and _is_text(path):
        listed = VideoList.read(path, root, format).entries
        return [VideoEntry(entry.path, None, str(entry.path), entry.num_frames) for entry in listed]
    return [_entry(name)]


def _entry(path: str) -> VideoEntry:
    return VideoEntry(Path(path), None, str(Path(path)))


def _is_text(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"\0" not in file.read(_HEAD_BYTES)
    except OSError:
        return False  # what it is, and that it cannot be read, the index will say
