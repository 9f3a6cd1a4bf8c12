"""Turn a folder per class into canonical lists, split at random, or as the folder itself is split."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.annotations import VideoEntry, VideoList
from pipelines.errors import DataError
from pipelines.lists.files import SPLIT_FOLDERS
from pipelines.lists.labels import LABELS_FILE
from pipelines.prepare.writing import list_lines, write_lists


@dataclass(frozen=True)
class FolderSplit:
    """What `split_folder` found and wrote.

    Attributes:
        labels: class names; a class's index is its label.
        train, val, test: videos of each class in the three lists; `test` is empty where there is no such list.
        ignored: names in the class folders that are no videos; hidden ones are not counted.
        empty: folders beside the class folders that hold no video, and so are no classes.
        given: whether the folder was split already, in `train`, `val` and `test`.
    """

    labels: tuple[str, ...]
    train: tuple[int, ...]
    val: tuple[int, ...]
    ignored: int
    empty: tuple[str, ...]
    test: tuple[int, ...] = ()
    given: bool = False


def split_folder(root: str | Path, out: str | Path, *, val: float = 0.25, seed: int = 0) -> FolderSplit:
    """List `root/CLASS/VIDEO` for training and validation in the folder `out`, or `root/train/CLASS/VIDEO` as it is split.

    Where `root` holds a folder `train` and one `val` or `test` (or `validation`, `testing` …), with class folders in each, those are
    the lists; without a `val`, one is split from `train`. Else each class gives the part `val` of its videos, rounded, to
    `val.txt`, but leaves at least one in either list if it has two; a class's only video is for training. Which ones depends on `seed`,
    the class's name and its files' names alone. Lists are in the order of class and name. Paths are relative to `out` where the
    videos are inside it, else absolute.

    Args:
        root: a folder per class, as `VideoList.from_folder` takes it, or one such folder per split.
        out: created if needed; may be `root` itself.
        val: part of the videos to validate on, between 0 and 1, both excluded.
        seed: of the draw.

    Raises:
        DataError: no videos, or no class with two of them; a name that a list cannot hold; lists in `out` that differ from these.
    """
    if not 0 < val < 1:
        raise DataError(f"val {val:g}: the part to validate on must lie between 0 and 1, both excluded")
    root, out = Path(root), Path(out)
    folders = _split_folders(root)
    found = {split: VideoList.from_folder(folder) for split, folder in folders.items()}
    used = {entry_class(videos, entry) for videos in found.values() for entry in videos.entries}
    labels = tuple(sorted(used))
    empty = tuple(sorted({name for videos in found.values() for name in videos.labels or ()} - used))
    members = {split: _members(videos, labels) for split, videos in found.items()}
    if "val" not in members:
        train: list[list[VideoEntry]] = []
        held: list[list[VideoEntry]] = []
        for name, entries in zip(labels, members["train"], strict=True):
            chosen = _choose(name, len(entries), val, seed)
            held.append([entry for entry, is_val in zip(entries, chosen, strict=True) if is_val])
            train.append([entry for entry, is_val in zip(entries, chosen, strict=True) if not is_val])
        if not any(held):
            raise DataError(f"every class of {root} has a single video: nothing is left to validate on; add videos")
        members |= {"train": train, "val": held}

    files: dict[str, Sequence[str]] = {
        f"{split}.txt": list_lines(
            ((str(entry.path), None, label) for label, entries in enumerate(classes) for entry in entries), out
        )
        for split, classes in members.items()
    }
    write_lists(out, files | {LABELS_FILE: list(labels)})
    counts = {split: tuple(len(entries) for entries in classes) for split, classes in members.items()}
    return FolderSplit(
        labels, counts["train"], counts["val"], _ignored(found), empty, counts.get("test", ()), len(folders) > 1
    )


def entry_class(videos: VideoList, entry: VideoEntry) -> str:
    """The name of an entry's class."""
    assert videos.labels is not None
    assert entry.label is not None
    return videos.labels[entry.label]


def _split_folders(root: Path) -> dict[str, Path]:
    """train, val and test folders of a folder that is split; else the folder itself, for train."""
    found = {split: [root / name for name in names if (root / name).is_dir()] for split, names in SPLIT_FOLDERS.items()}
    if len(found["train"]) != 1 or not (found["val"] or found["test"]):
        return {"train": root}
    for split, folders in found.items():
        if len(folders) > 1:
            raise DataError(f"{root} has several folders for {split}: {', '.join(folder.name for folder in folders)}")
    return {split: folders[0] for split, folders in found.items() if folders}


def _members(videos: VideoList, labels: tuple[str, ...]) -> list[list[VideoEntry]]:
    """The entries of each class of `labels`."""
    classes: dict[str, list[VideoEntry]] = {name: [] for name in labels}
    for entry in videos.entries:
        classes[entry_class(videos, entry)].append(entry)
    return list(classes.values())


def _choose(name: str, count: int, val: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which of a class's `count` videos are for validation: (count,) bool."""
    wanted = min(max(round(count * val), 1), max(count - 1, 0))
    # A generator a class: adding a class leaves the split of the others as it was.
    rng = np.random.default_rng([seed, zlib.crc32(name.encode(errors="surrogateescape"))])
    chosen = np.zeros(count, dtype=bool)
    chosen[rng.permutation(count)[:wanted]] = True
    return chosen


def _ignored(found: dict[str, VideoList]) -> int:
    """Visible names in the class folders that are no videos."""
    ignored = 0
    for videos in found.values():
        folders = {entry.path.parent for entry in videos.entries}
        visible = sum(not name.startswith(".") for folder in folders for name in os.listdir(folder))
        ignored += visible - len(videos)
    return ignored
