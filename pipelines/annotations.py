"""Lists of videos: the annotation files that users have, and folders with a folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import DataError, ListError
from pipelines.lists.files import locate
from pipelines.lists.formats import OFFICIAL, ListFormat, read_rows
from pipelines.lists.labels import LABELS_FILE, class_names, labels_beside, read_label_map, read_labels_file, settle
from pipelines.lists.rows import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Row, collector_paused

__all__ = ["IMAGE_SUFFIXES", "LABELS_FILE", "VIDEO_SUFFIXES", "ListFormat", "VideoEntry", "VideoList", "videos_below"]

_MISSING_SUFFIX = {"kinetics": ".mp4", "sthv2": ".webm"}  # what the file of a missing video would be called


@dataclass(frozen=True, slots=True)
class VideoEntry:
    """One video file or frame folder of a list."""

    path: Path
    """Where it is, or would be: the path of the list joined to the list's root, or the file found there for a name."""
    label: int | None
    """Class index, None in a list without labels."""
    id: str
    """The path as written in the list, or the data set's own name of the video; unique in the list."""
    num_frames: int | None = None
    """Frames as the list claims (frame folders); the index counts for itself."""


@dataclass(frozen=True)
class VideoList:
    """Videos with labels, in list order. `read`, `from_folder` and `from_files` make one."""

    entries: list[VideoEntry]
    labels: list[str] | None
    """Class names by label, None where nothing names them."""
    name: str
    """What to call the list in reports: the file's name without suffix, or the folder's."""
    root: Path
    """The folder that relative paths start from."""
    source: Path | None
    """The list file, or the folder that was scanned; None for videos that were named one by one."""
    template: str | None = None
    """Image names of frame folders, such as `img_{:05}.jpg` counted from 1; None to find out from each folder."""
    labels_from: str = ""
    """What `labels` come from: a file, or words for it."""

    def __len__(self) -> int:
        return len(self.entries)

    @classmethod
    def read(
        cls,
        path: str | Path,
        root: str | Path | None = None,
        format: ListFormat = "auto",
        template: str | None = None,
        labels: str | Path | Sequence[str] | None = None,
    ) -> VideoList:
        """Read an annotation file.

        | format | what |
        |---|---|
        | `videos` | `path label` a line |
        | `frames` | `path frames label` a line |
        | `kinetics` | the official csv, `label,youtube_id,time_start,time_end,split` |
        | `sthv1` | Something-Something V1's csv, `id;label` |
        | `sthv2` | Something-Something V2's json |
        | `auto` | whichever of these the file is; of a plain list the form that most lines have, which may also be `path` alone |

        Fields of plain lists are separated by spaces, tabs or commas; paths may contain spaces, since the numbers are taken from
        the end of the line, or stand in double quotes. Blank lines and a first line of column names are skipped.

        Videos that official files and lists of names without suffix mean are looked for below `root`, in any arrangement of folders
        (`pipelines.lists.files.locate`). Those that are nowhere are entries all the same, and unreadable in the index.

        Args:
            path: the file (UTF-8).
            root: folder that relative paths start from; None for the file's own.
            format: see above.
            template: image names of frame folders, such as `{:05}.jpg`; None to find out from each folder.
            labels: class names by label, or a file of them in any form that `pipelines.lists.labels.read_label_map` takes. None
                for the official label file beside an official list, else `labels.txt` beside it, else, of Kinetics, the classes of
                the file itself in alphabetical order.

        Raises:
            ListError: no such file, not UTF-8, empty, a line of another form, several labels a video, a label or class that the
                names do not have, a video listed twice; with file, line, text and what was expected.
            DataError: an unknown format or a wrong template; a Kinetics file of several splits; a root that cannot be listed.
        """
        path = Path(path)
        if template is not None:
            _check_template(template)
        folder = Path(root) if root is not None else path.parent
        with collector_paused():
            format, rows = read_rows(path, format, folder)
            splits = sorted({row.split for row in rows if row.split})
            if len(splits) > 1:
                raise DataError(
                    f"{path} holds several splits ({', '.join(splits)}): make a list of each with tin-cli data prepare k400"
                )
            names, source = label_names(path, format, rows, labels)
            rows = settle(rows, names, path, source)
            entries = _entries(rows, names, folder, format)
        return cls(entries, names, path.stem, folder, path, template, source if names else "")

    @classmethod
    def from_folder(cls, root: str | Path, template: str | None = None) -> VideoList:
        """A folder per class, `root/CLASS/VIDEO`: labels are the class folders in alphabetical order.

        A class folder may hold video files and frame folders (folders with .jpg, .jpeg or .png images). Hidden names
        and files of other kinds are skipped. Raises DataError where there is no class folder or no video.
        """
        root = Path(root)
        if template is not None:
            _check_template(template)
        if not root.is_dir():
            raise DataError(f"{root} is not a folder; expected a folder with one folder per class")
        try:
            classes = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
            entries = [
                VideoEntry(root / name / item, label, f"{name}/{item}")
                for label, name in enumerate(classes)
                for item in sorted(_videos_in(root / name))
            ]
        except OSError as error:
            raise DataError(f"cannot look into {error.filename}: {error.strerror}") from None
        if not entries:
            raise DataError(
                f"no videos in {root}; expected {root}/CLASS/VIDEO, "
                "where VIDEO is a file such as .mp4, .webm or .avi, or a folder of images"
            )
        return cls(entries, classes, root.resolve().name, root, root, template)

    @classmethod
    def from_files(cls, *paths: str | Path) -> VideoList:
        """Videos without labels: files, and folders whose video files are found at any depth, by name; each once, as named first.

        Nothing is looked into: files that cannot be read are unreadable in the index, which of such a list is not kept. Hidden
        names in folders are skipped, and folders of frames, which only a list can name.

        Args:
            paths: at least one; relative ones start from the working folder.

        Raises:
            DataError: there is no video, or a folder cannot be looked into.
        """
        found = (file for path in paths for file in (videos_below(path) if os.path.isdir(path) else [path]))
        entries = {str(path): VideoEntry(path, None, str(path)) for path in map(Path, found)}
        if not entries:
            raise DataError(
                f"no videos in {', '.join(map(str, paths)) or 'nothing'}: name video files, or folders that hold some "
                f"({', '.join(sorted(VIDEO_SUFFIXES))})"
            )
        return cls(list(entries.values()), None, "videos", Path(), None)


def videos_below(folder: str | Path) -> Iterator[str]:
    """The video files at any depth below a folder, by name, hidden ones left out. Raises DataError where one cannot be listed."""
    for place, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES and not name.startswith("."):
                yield os.path.join(place, name)


def label_names(
    path: Path, format: ListFormat, rows: Sequence[Row], labels: str | Path | Sequence[str] | None
) -> tuple[list[str] | None, str]:
    """Class names by label for the rows of a file, and what they come from, as `VideoList.read` says."""
    if isinstance(labels, (str, Path)):
        return read_label_map(Path(labels)), str(labels)
    if labels is not None:
        return list(labels), "the given labels"
    if format in OFFICIAL and format != "kinetics" and (official := labels_beside(path, format)) is not None:
        return read_label_map(official), str(official)
    beside = path.with_name(LABELS_FILE)
    names = read_labels_file(beside)
    if names is None and any(isinstance(row.label, str) for row in rows):
        if format != "kinetics":
            suffix = "json" if format == "sthv2" else "csv"
            raise ListError(
                path,
                None,
                "names classes, but no file beside it says which label each has: put the official labels file "
                f"(…-labels.{suffix}) there or name it; V1 and V2 order their classes differently",
            )
        return class_names(rows), f"{path} itself"
    return names, str(beside)


def _entries(rows: Sequence[Row], names: Sequence[str] | None, folder: Path, format: ListFormat) -> list[VideoEntry]:
    if not rows[0].names:
        return [VideoEntry(folder / row.id, row.label, row.id, row.frames) for row in rows]  # type: ignore[arg-type]
    places = locate(rows, folder, classes=names, folders_first=format == "sthv1", ignore_times=format not in OFFICIAL)
    suffix = _MISSING_SUFFIX.get(format, "")
    return [
        VideoEntry(Path(place) if place else folder / f"{row.id}{suffix}", row.label, row.id, row.frames)  # type: ignore[arg-type]
        for row, place in zip(rows, places, strict=True)
    ]


def _videos_in(folder: Path) -> list[str]:
    """Names of the videos and frame folders in a class folder."""
    with os.scandir(folder) as listing:
        return [item.name for item in listing if not item.name.startswith(".") and _is_video(item)]


def _refuse(error: OSError) -> None:
    raise DataError(f"cannot look into {error.filename}: {error.strerror}")


def _is_video(item: os.DirEntry[str]) -> bool:
    if item.is_dir():
        with os.scandir(item.path) as images:
            return any(os.path.splitext(image.name)[1].lower() in IMAGE_SUFFIXES for image in images)
    return os.path.splitext(item.name)[1].lower() in VIDEO_SUFFIXES


def _check_template(template: str) -> None:
    try:
        names = template.format(1), template.format(2)
    except (IndexError, KeyError, ValueError):
        names = ("", "")
    if names[0] == names[1]:
        raise DataError(
            f"image template {template!r} has no frame number in it; expected one such as 'img_{{:05}}.jpg'"
        )
