"""Turn a folder per class into the canonical lists of a data set: `train.txt`, `val.txt` and `labels.txt`."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.annotations import LABELS_FILE, VideoEntry, VideoList
from pipelines.errors import DataError


@dataclass(frozen=True)
class FolderSplit:
    """What `split_folder` found and wrote.

    Attributes:
        labels: class names; a class's index is its label.
        train, val: videos of each class in the two lists.
        ignored: names in the class folders that are no videos; hidden ones are not counted.
        empty: folders beside the class folders that hold no video, and so are no classes.
    """

    labels: tuple[str, ...]
    train: tuple[int, ...]
    val: tuple[int, ...]
    ignored: int
    empty: tuple[str, ...]


def split_folder(root: str | Path, out: str | Path, *, val: float = 0.25, seed: int = 0) -> FolderSplit:
    """Split `root/CLASS/VIDEO` into training and validation lists in the folder `out`.

    Each class gives the part `val` of its videos, rounded, to `val.txt`, but leaves at least one in either list if it has two; a
    class's only video is for training. Which ones depends on `seed`, the class's name and its files' names alone. Both
    lists are in the order of class and name. Paths are relative to `out` where the videos are inside it, else absolute.

    Args:
        root: a folder per class, as `VideoList.from_folder` takes it.
        out: created if needed; may be `root` itself.
        val: part of the videos to validate on, between 0 and 1, both excluded.
        seed: of the draw.

    Raises:
        DataError: no videos, or no class with two of them; a name that a list cannot hold; lists in `out` that differ from these.
    """
    if not 0 < val < 1:
        raise DataError(f"val {val:g}: the part to validate on must lie between 0 and 1, both excluded")
    root, out = Path(root), Path(out)
    videos = VideoList.from_folder(root)
    classes = videos.labels or []
    members: list[list[VideoEntry]] = [[] for _ in classes]
    for entry in videos.entries:
        assert entry.label is not None
        members[entry.label].append(entry)
    labels = tuple(name for name, found in zip(classes, members, strict=True) if found)
    empty = tuple(name for name, found in zip(classes, members, strict=True) if not found)
    members = [found for found in members if found]

    train_lines: list[str] = []
    val_lines: list[str] = []
    counts = []
    for label, (name, found) in enumerate(zip(labels, members, strict=True)):
        chosen = _choose(name, len(found), val, seed)
        for entry, is_val in zip(found, chosen, strict=True):
            (val_lines if is_val else train_lines).append(f"{_written(entry.path, out)} {label}")
        counts.append((int((~chosen).sum()), int(chosen.sum())))
    if not val_lines:
        raise DataError(f"every class of {root} has a single video: nothing is left to validate on; add videos")

    _write_lists(out, {"train.txt": train_lines, "val.txt": val_lines, LABELS_FILE: list(labels)})
    names = (item.name for name in labels for item in (root / name).iterdir())
    visible = sum(not name.startswith(".") for name in names)
    train_counts, val_counts = zip(*counts, strict=True)
    return FolderSplit(labels, train_counts, val_counts, visible - len(videos), empty)


def _choose(name: str, count: int, val: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which of a class's `count` videos are for validation: (count,) bool."""
    wanted = min(max(round(count * val), 1), count - 1)
    # A generator a class: adding a class leaves the split of the others as it was.
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    chosen = np.zeros(count, dtype=bool)
    chosen[rng.permutation(count)[:wanted]] = True
    return chosen


def _written(path: Path, out: Path) -> str:
    """The path as the list has it."""
    place = os.path.abspath(path)
    home = os.path.abspath(out)
    inside = os.path.commonpath([place, home]) == home
    return Path(place).relative_to(home).as_posix() if inside else place


def _write_lists(out: Path, files: dict[str, list[str]]) -> None:
    """Write the files, each whole or not at all; never over lists that say something else."""
    for lines in files.values():
        for line in lines:
            if line != line.strip() or len(line.splitlines()) != 1:
                raise DataError(
                    f"{line!r}: a list cannot hold a name that has a line break or starts with a space; rename it"
                )
            try:
                line.encode()
            except UnicodeEncodeError:
                raise DataError(f"{line!r}: the name is not UTF-8; rename it") from None
    texts = {out / name: "".join(f"{line}\n" for line in lines) for name, lines in files.items()}
    try:
        for path, text in texts.items():
            if path.exists() and path.read_bytes() != text.encode():
                raise DataError(f"{path} exists and is another split; remove it or name another folder for the lists")
        out.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            unfinished = path.with_name(f".{path.name}.unfinished")
            unfinished.write_bytes(text.encode())
            os.replace(unfinished, path)
    except OSError as error:
        raise DataError(f"cannot write the lists to {out}: {error.strerror or error}") from error
