"""The official annotation files of Kinetics and Something-Something, found by name in a folder, to canonical lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pipelines.errors import DataError, ListError
from pipelines.lists.formats import ListFormat, read_rows
from pipelines.lists.kinetics import EXPECTED, is_kinetics
from pipelines.lists.rows import collector_paused
from pipelines.prepare.lists import SPLITS, Prepared, Source, shared_names, write_prepared

Official = Literal["k400", "sthv1", "sthv2"]
_FORMAT: dict[Official, ListFormat] = {"k400": "kinetics", "sthv1": "sthv1", "sthv2": "sthv2"}
_CLASSES = {"k400": 400, "sthv1": 174, "sthv2": 174}
_SUFFIX = {"k400": ".csv", "sthv1": ".csv", "sthv2": ".json"}
_FILES = {
    "k400": f"train.csv, val.csv and test.csv with the header {EXPECTED}",
    "sthv1": "something-something-v1-train.csv, -validation.csv, -test.csv and -labels.csv",
    "sthv2": "train.json, validation.json, test.json and labels.json, with or without something-something-v2- before them",
}
_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "validate": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


def prepare_official(
    dataset: Official,
    root: str | Path,
    out: str | Path,
    *,
    annotations: str | Path | None = None,
    labels: str | Path | None = None,
) -> Prepared:
    """Write canonical lists from the official files of a data set, for the videos that are there.

    Args:
        dataset: "k400" (also Kinetics-600 and -700), "sthv1" or "sthv2" (also Jester, which has V1's form).
        root: folder of the videos or frame folders, in any arrangement (`pipelines.lists.files.locate`).
        out: folder for the lists, created if needed.
        annotations: folder with the official files under their names, or one of the files; None for `root`, or `annotations` or `labels`
            in it. `test-answers.csv` gives the test videos their labels.
        labels: label map; None for the official labels file (Something-Something), or all classes in alphabetical order
            (Kinetics).

    Returns:
        What was found and written; see `prepare_lists`, which this is for other files.

    Raises:
        ListError: a line that is wrong; with file, line, text and what was expected.
        DataError: no official files, or two for one split; none of the videos is there; lists in `out` that differ.
    """
    root = Path(root)
    folder, files = _official_files(dataset, root, Path(annotations) if annotations is not None else None)
    with collector_paused():
        sources = [source for path in files for source in _sources(dataset, path, root)]
        sources.sort(key=lambda source: SPLITS.index(source.split))
        sources, notes = _with_answers(sources, folder, root)
        names, origin = shared_names(sources, labels)
        for split in SPLITS:
            paths = [str(source.path) for source in sources if source.split == split]
            if len(paths) > 1:
                raise DataError(
                    f"{' and '.join(paths)} both hold {split} videos: put the files of one data set into a folder of their own"
                )
        prepared = write_prepared(sources, names, origin, Path(out))
    usual, found = _CLASSES[dataset], len(prepared.labels or ())
    if found != usual:
        notes.append(f"{found} classes where {dataset} has {usual}: train with --num-classes {found}")
    return replace(prepared, notes=(*prepared.notes, *notes))


def _official_files(dataset: Official, root: Path, annotations: Path | None) -> tuple[Path, list[Path]]:
    """The folder that holds the official files, and those of them that list videos."""
    if annotations is not None and annotations.is_file():
        return annotations.parent, [annotations]
    folders = [annotations] if annotations is not None else [root, root / "annotations", root / "labels"]
    for folder in folders:
        try:
            files = sorted(item for item in folder.glob(f"*{_SUFFIX[dataset]}") if _lists_videos(dataset, item))
        except OSError as error:
            raise DataError(f"cannot look into {folder}: {error.strerror}") from None
        if files:
            return folder, files
    raise DataError(
        f"no official files of {dataset} in {', '.join(map(str, folders))}; expected {_FILES[dataset]}: name their folder "
        "with --annotations"
    )


def _lists_videos(dataset: Official, path: Path) -> bool:
    if dataset == "k400":
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return is_kinetics(file.readline())
    words = _words(path)
    return _split_of(path) is not None and not words & {"answers", "labels", "label"}


def _words(path: Path) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", path.stem.lower()))


def _split_of(path: Path) -> str | None:
    return next((_WORDS[word] for word in sorted(_words(path)) if word in _WORDS), None)


def _sources(dataset: Official, path: Path, root: Path) -> list[Source]:
    """The splits of a file: as its rows say, else as its name does."""
    format, rows = read_rows(path, _FORMAT[dataset], root)
    named = _split_of(path)
    if named is None and any(row.split is None for row in rows):
        row = next(row for row in rows if row.split is None)
        raise ListError(
            path,
            row.line,
            f"{row.id!r}: neither its column `split` nor the file's name says whether it is for train, val or test",
        )
    splits = [row.split or named for row in rows]
    return [
        Source(split, path, root, format, [row for row, own in zip(rows, splits, strict=True) if own == split])
        for split in SPLITS
        if split in splits
    ]


def _with_answers(sources: Sequence[Source], folder: Path, root: Path) -> tuple[list[Source], list[str]]:
    """The test videos with the labels of the published answers, where those are for these videos."""
    path = next(iter(sorted(folder.glob("*test-answers.csv"))), None)
    if path is None:
        return list(sources), []
    _, rows = read_rows(path, "sthv1", root)
    labels = {row.id: row.label for row in rows}
    answered, notes = [], []
    for source in sources:
        if source.split == "test" and all(row.label is None for row in source.rows):
            if all(row.id in labels for row in source.rows):
                source = replace(source, rows=[row._replace(label=labels[row.id]) for row in source.rows])
            else:
                notes.append(f"{path} does not answer all of {source.path} and was left out")
        answered.append(source)
    return answered, notes
