"""Annotation files of one data set to its canonical lists, without the videos that are not there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.annotations import ListFormat, label_names
from pipelines.errors import DataError
from pipelines.lists.files import Listing, locate, video_stem
from pipelines.lists.formats import OFFICIAL, read_rows
from pipelines.lists.labels import LABELS_FILE, class_names, settle
from pipelines.lists.rows import Row, collector_paused
from pipelines.prepare.writing import list_lines, replace_file, write_lists

SPLITS = ("train", "val", "test")
MISSING_FILE = "missing.txt"


@dataclass(frozen=True)
class PreparedList:
    """One list: what was listed, and what of it is there."""

    path: Path | None
    """The file; None where no listed video is there, so that no list was written."""
    listed: int
    written: int
    missing: tuple[str, ...]
    """Listed videos that are nowhere, by id."""


@dataclass(frozen=True)
class Prepared:
    """What was found and written."""

    labels: tuple[str, ...] | None
    """Class names by label; None where the lists have labels and nothing names them."""
    lists: Mapping[str, PreparedList]
    """By split: train, val, test, as far as they were given."""
    missing_file: Path | None
    """Names the missing videos, a line each: split and id; None where none is missing."""
    notes: tuple[str, ...]
    """What else a user should know, a sentence each."""


@dataclass(frozen=True)
class Source:
    """The rows of one split in one file."""

    split: str
    path: Path
    root: Path
    format: ListFormat
    rows: Sequence[Row]


def prepare_lists(
    files: Mapping[str, str | Path],
    out: str | Path,
    *,
    root: str | Path | None = None,
    format: ListFormat = "auto",
    labels: str | Path | None = None,
) -> Prepared:
    """Write canonical lists for annotation files of any format that `VideoList.read` takes.

    Videos that are not there are left out, counted and named in `missing.txt`; a video whose file has another suffix than the list
    says is found. Folders are listed once each, not asked for every video.

    Args:
        files: annotation file by split, "train", "val" or "test".
        out: folder for the lists, created if needed.
        root: folder that paths start from, or in which named videos are looked for; None for each file's own.
        format: of the files.
        labels: label map; None for what lies beside the files, as for `VideoList.read`. Classes of Kinetics files are those of all of
            them, in alphabetical order.

    Raises:
        ListError: as `VideoList.read`.
        DataError: no file; none of the videos is there; files beside which different class names lie; a name that no list can hold;
            lists in `out` that differ from these.
    """
    if not files or not set(files) <= set(SPLITS):
        raise DataError(f"nothing to prepare: give annotation files for some of {', '.join(SPLITS)}")
    with collector_paused():
        sources = []
        for split, file in files.items():
            path = Path(file)
            folder = Path(root) if root is not None else path.parent
            used, rows = read_rows(path, format, folder)
            if other := sorted({row.split for row in rows if row.split not in (None, split)} - {None}):
                raise DataError(f"{path} is given for {split}, but holds videos of {', '.join(map(str, other))}")
            sources.append(Source(split, path, folder, used, rows))
        names, origin = shared_names(sources, labels)
        return write_prepared(sources, names, origin, Path(out))


def shared_names(sources: Sequence[Source], labels: str | Path | None) -> tuple[list[str] | None, str]:
    """Class names by label for all files together, and what they come from; DataError where the files disagree."""
    if labels is None and all(source.format == "kinetics" for source in sources):
        own = class_names(row for source in sources for row in source.rows)
        return own or None, "the files themselves"
    chosen: tuple[list[str] | None, str] = (None, "")
    for source in sources:
        names, origin = label_names(source.path, source.format, source.rows, labels)
        if names is not None and chosen[0] is not None and names != chosen[0]:
            raise DataError(f"{origin} and {chosen[1]} name different classes: name the right file of labels")
        if names is not None:
            chosen = names, origin
    return chosen


def write_prepared(sources: Sequence[Source], names: list[str] | None, origin: str, out: Path) -> Prepared:
    """Find the videos of all sources and write the lists."""
    settled = [
        Source(source.split, source.path, source.root, source.format, settle(source.rows, names, source.path, origin))
        for source in sources
    ]
    places = _find(settled, names)
    if not any(place is not None for found in places for place in found):
        raise DataError(_nothing_found(settled))

    files: dict[str, Sequence[str]] = {}
    lists: dict[str, PreparedList] = {}
    for split in SPLITS:
        rows = [
            (row, place)
            for source, found in zip(settled, places, strict=True)
            if source.split == split
            for row, place in zip(source.rows, found, strict=True)
        ]
        if not rows:
            continue
        there = [(row, place) for row, place in rows if place is not None]
        # Counts are for frame folders: a video's is not believed.
        counted = all(row.frames is not None and video_stem(place) is None for row, place in there)
        if there:
            files[f"{split}.txt"] = list_lines(
                ((place, row.frames if counted else None, _index(row)) for row, place in there), out
            )
        lists[split] = PreparedList(
            out / f"{split}.txt" if there else None,
            len(rows),
            len(there),
            tuple(row.id for row, place in rows if place is None),
        )
    if names is not None:
        files[LABELS_FILE] = names
    write_lists(out, files)
    missing = [f"{split} {id}" for split, found in lists.items() for id in found.missing]
    return Prepared(
        tuple(names) if names is not None else None,
        lists,
        _write_missing(out, missing),
        tuple(_notes(settled, places, names)),
    )


def _index(row: Row) -> int | None:
    assert not isinstance(row.label, str)
    return row.label


def _find(sources: Sequence[Source], names: Sequence[str] | None) -> list[list[str | None]]:
    """Where the videos of each source are: for those with names each root is searched once, for all of them."""
    places: list[list[str | None]] = [[] for _ in sources]
    named: dict[tuple[Path, ListFormat], list[int]] = {}
    listing = Listing()
    for position, source in enumerate(sources):
        if source.rows[0].names:
            named.setdefault((source.root, source.format), []).append(position)
        else:
            places[position] = [listing.find(os.path.join(source.root, row.id)) for row in source.rows]
    for (root, format), positions in named.items():
        rows = [row._replace(split=sources[position].split) for position in positions for row in sources[position].rows]
        found = iter(
            locate(rows, root, classes=names, folders_first=format == "sthv1", ignore_times=format not in OFFICIAL)
        )
        for position in positions:
            places[position] = [next(found) for _ in sources[position].rows]
    return places


def _nothing_found(sources: Sequence[Source]) -> str:
    source = sources[0]
    row, listed = source.rows[0], sum(len(source.rows) for source in sources)
    if row.names:
        wanted = f"looked in it and five folders deep for files and folders such as {row.names[0]!r}, with any suffix of videos"
    else:
        wanted = f"looked for {os.path.join(source.root, row.id)!r} and so on"
    return f"none of the {listed} listed videos is in {source.root}: {wanted}; name the folder of the videos"


def _write_missing(out: Path, missing: Sequence[str]) -> Path | None:
    path = out / MISSING_FILE
    if missing or path.exists():
        replace_file(path, "".join(f"{line}\n" for line in missing).encode(errors="surrogateescape"))
    return path if missing else None


def _notes(sources: Sequence[Source], places: Sequence[Sequence[str | None]], names: Sequence[str] | None) -> list[str]:
    notes = []
    classes: dict[str, set[int]] = {split: set() for split in SPLITS}
    where: dict[str, set[str]] = {split: set() for split in SPLITS}
    renamed = 0
    for source, found in zip(sources, places, strict=True):
        for row, place in zip(source.rows, found, strict=True):
            if place is None:
                continue
            where[source.split].add(place)
            if (label := _index(row)) is not None:
                classes[source.split].add(label)
            renamed += not row.names and not place.endswith(row.id)
    if renamed:
        notes.append(f"{renamed} videos have another suffix than the list says; they are listed as they are")
    if names is None and any(classes.values()):
        notes.append(f"nothing names the classes: a {LABELS_FILE} beside the list or a label map would")
    if where["train"] and not classes["train"]:
        notes.append("train.txt has no labels, so nothing can be trained on it")
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        if both := len(where[first] & where[second]):
            notes.append(f"{both} videos are in {first}.txt and in {second}.txt")
    if classes["train"] and (untrained := sorted((classes["val"] | classes["test"]) - classes["train"])):
        notes.append(f"{len(untrained)} classes have no video to train on: {_some(untrained, names)}")
    if (
        names is not None
        and (empty := sorted(set(range(len(names))) - set().union(*classes.values())))
        and any(classes.values())
    ):
        notes.append(f"{len(empty)} of {len(names)} classes have no video at all: {_some(empty, names)}")
    return notes


def _some(labels: Sequence[int], names: Sequence[str] | None) -> str:
    shown = ", ".join(names[label] if names else str(label) for label in labels[:5])
    return shown + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
