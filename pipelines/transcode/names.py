"""The names of copies: a source's place below its root, or its like, with the ending .mp4; never one name for two sources."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.annotations import VIDEO_SUFFIXES, VideoEntry
from pipelines.errors import DataError
from pipelines.probe import VideoInfo
from pipelines.transcode.ledger import SCRATCH, Copy

SUFFIX = ".mp4"


@dataclass(frozen=True, slots=True)
class Source:
    """A video to copy."""

    entry: VideoEntry
    info: VideoInfo
    path: str
    """Absolute."""
    name: str
    """Of its copy: relative to the folder of copies, with slashes."""
    copy: Copy | None
    """Made of it by an earlier run and true to it still, if its file is whole."""

    @property
    def state(self) -> tuple[int, int]:
        return self.info.bytes, self.info.mtime


def name_sources(
    entries: Sequence[tuple[VideoEntry, VideoInfo]], root: Path, copies: Mapping[str, Copy]
) -> list[Source]:
    """A name for the copy of every video, in order.

    `ROOT/a/b.avi` becomes `a/b.mp4`; where that is another source's, `a/b.avi.mp4`, then `a/b.avi~2.mp4` and so on. Videos
    outside the root have their place below the folder that holds all of these. What has a copy keeps its name, whatever is
    added to the list later.

    Args:
        entries: the list's.
        root: the list's.
        copies: what earlier runs finished, by name.

    Raises:
        DataError: a name that a list file cannot hold.
    """
    by_path: dict[str, list[Copy]] = {}
    by_id: dict[str, list[Copy]] = {}
    for made in copies.values():
        by_path.setdefault(made.source, []).append(made)
        by_id.setdefault(made.id, []).append(made)
    paths = [os.path.abspath(entry.path) for entry, _ in entries]
    home = PurePosixPath(os.path.abspath(root))
    outside = [path for path in paths if not PurePosixPath(path).is_relative_to(home)]
    other = PurePosixPath(os.path.commonpath([os.path.dirname(path) for path in outside]) if outside else home)
    own: list[Copy | None] = []
    taken: set[str] = set()
    for (entry, _), path, (_, info) in zip(entries, paths, entries, strict=True):
        state = (info.bytes, info.mtime)
        known = [*by_path.get(path, ()), *by_id.get(entry.id, ())]
        # A source that has changed keeps its name too; a copy of a moved one is taken over.
        fits = (made for made in known if made.source == path or made.is_of(path, entry.id, state))
        copy = next((made for made in fits if made.name not in taken), None)
        own.append(copy)
        if copy is not None:
            taken.add(copy.name)
    sources = []
    for (entry, info), path, copy in zip(entries, paths, own, strict=True):
        if copy is not None:
            name = copy.name
        else:
            name = next(name for name in _candidates(path, (home, other)) if name not in copies and name not in taken)
            taken.add(name)
        if name != name.strip() or len(name.splitlines()) != 1:
            raise DataError(
                f"{name!r}: a list cannot hold a name that has a line break or starts with a space; rename it"
            )
        fresh = copy if copy is not None and copy.is_of(path, entry.id, (info.bytes, info.mtime)) else None
        sources.append(Source(entry, info, path, name, fresh))
    return sources


def _candidates(path: str, homes: Sequence[PurePosixPath]) -> Iterator[str]:
    place = PurePosixPath(path)
    place = place.relative_to(next(home for home in homes if place.is_relative_to(home)))
    if place.parts[0] == SCRATCH:
        place = "videos" / place
    if place.suffix.lower() in VIDEO_SUFFIXES:
        yield place.with_suffix(SUFFIX).as_posix()
    whole = place.as_posix()
    yield whole + SUFFIX
    number = 2
    while True:
        yield f"{whole}~{number}{SUFFIX}"
        number += 1
