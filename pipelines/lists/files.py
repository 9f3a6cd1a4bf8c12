"""Where listed videos are: folders are listed once each, whatever the number of videos."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.errors import DataError
from pipelines.lists.rows import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Row

_DEPTH = 5  # folders below the root, as in root/videos/train/class/video
_TIMES = re.compile(r"(?P<name>.+)_[0-9]{6}_[0-9]{6}")
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "validate"),
    "test": ("test", "testing"),
}


class _Found(NamedTuple):
    path: str
    is_folder: bool


def locate(
    rows: Sequence[Row],
    root: Path,
    *,
    classes: Sequence[str] | None = None,
    folders_first: bool = False,
    ignore_times: bool = False,
) -> list[str | None]:
    """The video file or frame folder of each row, by `row.names`, anywhere below `root`; None where there is none.

    A file is known by its name without suffix, so `.mkv`, `.webm` and `.mp4` are one; folders may be flat, by class (spaces or
    underscores) or by split. Of several candidates the one in a folder of the row's class, then of its split, is taken, then
    the first by name. Folders deeper than five levels, hidden ones and those of images are not entered.

    Args:
        rows: what is looked for.
        root: where.
        classes: class names by label.
        folders_first: prefer frame folders to files of the same name.
        ignore_times: `name_000010_000020.mp4` is a file for the name `name` too.

    Raises:
        DataError: `root` cannot be listed.
    """
    found = _scan(root, {name for row in rows for name in row.names}, ignore_times)
    places: list[str | None] = []
    for row in rows:
        candidates = next((found[name] for name in row.names if name in found), None)
        if candidates is None:
            places.append(None)
        elif len(candidates) == 1:
            places.append(candidates[0].path)
        else:
            places.append(min(candidates, key=lambda place: _distance(place, row, classes, folders_first)).path)
    return places


class Listing:
    """What is in the folders of some paths, each listed once, at the first question."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._stems: dict[str, dict[str, list[str]]] = {}

    def find(self, path: str) -> str | None:
        """The path itself if it exists, else a video beside it whose name differs in the suffix alone, else None."""
        folder, name = os.path.split(path)
        if name in self._list(folder):
            return path
        stem = video_stem(name)
        if stem is None:
            return None
        if folder not in self._stems:
            stems = self._stems[folder] = {}
            for other in sorted(self._names[folder]):
                if (other_stem := video_stem(other)) is not None:
                    stems.setdefault(other_stem, []).append(other)
        others = self._stems[folder].get(stem)
        return os.path.join(folder, others[0]) if others else None

    def _list(self, folder: str) -> set[str]:
        if folder not in self._names:
            try:
                self._names[folder] = set(os.listdir(folder or "."))
            except (OSError, ValueError):
                self._names[folder] = set()
        return self._names[folder]


def video_stem(name: str) -> str | None:
    """A video file's name without suffixes (`a.mp4.webm` → `a`), None for a file of another kind."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in VIDEO_SUFFIXES:
        return None
    while True:
        shorter, suffix = os.path.splitext(stem)
        if suffix.lower() not in VIDEO_SUFFIXES:
            return stem
        stem = shorter


def _scan(root: Path, wanted: Collection[str], ignore_times: bool) -> dict[str, list[_Found]]:
    """Files and folders below `root` by those of their names that are wanted."""
    found: dict[str, list[_Found]] = {}
    entered: set[tuple[int, int]] = set()
    pending = deque([(str(root), 0)])
    while pending:
        folder, depth = pending.popleft()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in entered:
                continue  # links in a circle, or to what is here as well
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = list(listing)
        except OSError as error:
            if depth == 0:
                raise DataError(f"cannot look into {folder}: {error.strerror}; name the folder of the videos") from None
            continue  # as `lost+found`, which nobody may enter
        folders, images = [], False
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            stem = video_stem(name)
            # No look at the file itself where its name tells what it is: links would cost one each.
            if entry.is_dir(follow_symlinks=False) or (stem is None and entry.is_dir()):
                folders.append(entry)
            elif stem is None:
                images = images or os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
            elif (key := _wanted_name(stem, wanted, ignore_times)) is not None:
                found.setdefault(key, []).append(_Found(entry.path, False))
        named = False
        for entry in folders:
            if (key := _wanted_name(video_stem(entry.name) or entry.name, wanted, ignore_times)) is not None:
                found.setdefault(key, []).append(_Found(entry.path, True))
                named = True
        # A folder that holds wanted frame folders is taken to hold nothing but such.
        if not named and not images and depth < _DEPTH:
            folders.sort(key=lambda entry: (entry.is_symlink(), entry.name))
            pending.extend((entry.path, depth + 1) for entry in folders)
    return found


def _wanted_name(stem: str, wanted: Collection[str], ignore_times: bool) -> str | None:
    if stem in wanted:
        return stem
    if ignore_times and (match := _TIMES.fullmatch(stem)) and match["name"] in wanted:
        return match["name"]
    return None


def _distance(
    place: _Found, row: Row, classes: Sequence[str] | None, folders_first: bool
) -> tuple[bool, bool, bool, str]:
    parts = [_plain(part) for part in _parents(place.path)]
    wanted = [_plain(part) for part in _parents(row.id)]
    if classes is not None and isinstance(row.label, int):
        wanted.append(_plain(classes[row.label]))
    splits = SPLIT_FOLDERS.get(row.split or "", ())
    return (
        place.is_folder != folders_first,
        not any(name in parts for name in wanted if name),
        not any(part.startswith(splits) for part in parts) if splits else False,
        place.path,
    )


def _parents(path: str) -> Iterable[str]:
    return os.path.dirname(path).split(os.sep)


def _plain(name: str) -> str:
    """`Petting_animal (not cat)` and `petting animal (not cat)` are one class."""
    return re.sub(r"[^0-9a-z]+", "", name.lower())
