"""Lists of videos: `path label` and `path frames label` files, and folders with a folder per class."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.errors import DataError, ListError

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts",
    ".vob", ".webm", ".wmv",
))
# fmt: on
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))
LABELS_FILE = "labels.txt"

ListFormat = Literal["auto", "videos", "frames"]
_EXPECTED = {0: "`path`", 1: "`path label`", 2: "`path frames label`"}
_LABELLED = re.compile(r"(?P<path>.*\S)[\s,]+(?P<label>-?\d+)")
_COUNTED = re.compile(r"(?P<path>.*[^\s,])[\s,]+(?P<frames>-?\d+)[\s,]+(?P<label>-?\d+)")


@dataclass(frozen=True, slots=True)
class VideoEntry:
    """One video file or frame folder of a list."""

    path: Path
    """Where it is: the path of the list joined to the list's root."""
    label: int | None
    """Class index, None in a list without labels."""
    id: str
    """The path as written in the list; unique in it."""
    num_frames: int | None = None
    """Frames as the list claims (frame folders); the index counts for itself."""


@dataclass(frozen=True)
class VideoList:
    """Videos with labels, in list order. `read` and `from_folder` make one."""

    entries: list[VideoEntry]
    labels: list[str] | None
    """Class names by label, None where no `labels.txt` lies beside the list."""
    name: str
    """What to call the list in reports: the file's name without suffix, or the folder's."""
    root: Path
    """The folder that relative paths start from."""
    source: Path
    """The list file, or the folder that was scanned."""
    template: str | None = None
    """Image names of frame folders, such as `img_{:05}.jpg` counted from 1; None to find out from each folder."""

    def __len__(self) -> int:
        return len(self.entries)

    @classmethod
    def read(
        cls,
        path: str | Path,
        root: str | Path | None = None,
        format: ListFormat = "auto",
        template: str | None = None,
    ) -> VideoList:
        """Read a list file, one video a line, fields separated by spaces, tabs or commas; blank lines are skipped.

        Args:
            path: the list file (UTF-8). Class names come from `labels.txt` beside it, one a line, when it exists.
            root: folder that relative paths start from; None for the list's folder.
            format: "videos" reads `path label`, "frames" reads `path frames label`; "auto" takes the form that most
                lines have, which may also be `path` alone (no labels). Paths may contain spaces; numbers are taken
                from the end of the line.
            template: image names of frame folders, such as `{:05}.jpg`; None to find out from each folder.

        Raises:
            ListError: no such file, not UTF-8, empty, a line of another form, a label that is negative or that
                `labels.txt` does not have, a path given twice; with file, line and text.
        """
        path = Path(path)
        if format not in ("auto", "videos", "frames"):
            raise DataError(f"unknown list format {format!r}: use auto, videos or frames")
        if template is not None:
            _check_template(template)
        lines = [(number, line.strip()) for number, line in enumerate(_lines(path), 1) if line.strip()]
        if not lines:
            raise ListError(path, None, "the list is empty; expected one `path label` or `path frames label` a line")
        labels = _read_labels(path.with_name(LABELS_FILE))
        folder = Path(root) if root is not None else path.parent
        numbers = _form(lines, folder) if format == "auto" else {"videos": 1, "frames": 2}[format]
        entries: list[VideoEntry] = []
        seen: dict[str, int] = {}
        for number, text in lines:
            entry = _entry(path, number, text, numbers, folder)
            if entry.id in seen:
                raise ListError(path, number, f"{entry.id!r} is already on line {seen[entry.id]}; remove one of them")
            seen[entry.id] = number
            if labels is not None and entry.label is not None and entry.label >= len(labels):
                raise ListError(
                    path,
                    number,
                    f"{text!r}: label {entry.label} is not in {path.with_name(LABELS_FILE)}, "
                    f"which names {len(labels)} classes (0 to {len(labels) - 1})",
                )
            entries.append(entry)
        return cls(entries, labels, path.stem, folder, path, template)

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
                VideoEntry(item, label, f"{name}/{item.name}")
                for label, name in enumerate(classes)
                for item in sorted((root / name).iterdir(), key=lambda p: p.name)
                if not item.name.startswith(".") and _is_video(item)
            ]
        except OSError as error:
            raise DataError(f"cannot look into {error.filename}: {error.strerror}") from None
        if not entries:
            raise DataError(
                f"no videos in {root}; expected {root}/CLASS/VIDEO, "
                "where VIDEO is a file such as .mp4, .webm or .avi, or a folder of images"
            )
        return cls(entries, classes, root.resolve().name, root, root, template)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode("utf-8-sig").splitlines()
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


def _read_labels(path: Path) -> list[str] | None:
    if not path.exists():
        return None
    names = [line.strip() for line in _lines(path)]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise ListError(path, None, "no class names in it; expected one a line")
    first: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise ListError(path, number, "an empty class name; the line number minus one is the label")
        if name in first:
            raise ListError(path, number, f"class {name!r} is already on line {first[name]}")
        first[name] = number
    return names


def _form(lines: list[tuple[int, str]], root: Path) -> int:
    """How many numbers end a line, 0 to 2, in most lines."""
    counts = Counter(2 if _COUNTED.fullmatch(t) else 1 if _LABELLED.fullmatch(t) else 0 for _, t in lines)
    most = max(counts, key=lambda form: (counts[form], form))
    if most == 2:
        # `my clip 7 3` may be a path that ends in a number: believe the disk.
        text = next(text for _, text in lines if _COUNTED.fullmatch(text))
        counted, labelled = _COUNTED.fullmatch(text), _LABELLED.fullmatch(text)
        assert counted
        assert labelled
        if os.path.exists(root / labelled["path"].rstrip(", \t")) and not os.path.exists(root / counted["path"]):
            return 1
    return most


def _entry(path: Path, number: int, text: str, numbers: int, root: Path) -> VideoEntry:
    """One line with `numbers` numbers after the path."""
    if numbers == 0:
        return VideoEntry(root / text, None, text)
    match = (_LABELLED if numbers == 1 else _COUNTED).fullmatch(text)
    if match is None:
        raise ListError(path, number, f"{text!r}: expected {_EXPECTED[numbers]}, as in most lines of the list")
    name, label = match["path"].rstrip(", \t"), int(match["label"])
    if not name:
        raise ListError(path, number, f"{text!r}: no path; expected {_EXPECTED[numbers]}")
    if label < 0:
        raise ListError(path, number, f"{text!r}: label {label} is negative; labels count from 0")
    frames = None
    if numbers == 2:
        frames = int(match["frames"])
        if frames < 1:
            raise ListError(path, number, f"{text!r}: {frames} frames; expected {_EXPECTED[2]} with at least one frame")
    return VideoEntry(root / name, label, name, frames)


def _is_video(item: Path) -> bool:
    if item.is_dir():
        return any(p.suffix.lower() in IMAGE_SUFFIXES for p in item.iterdir())
    return item.suffix.lower() in VIDEO_SUFFIXES


def _check_template(template: str) -> None:
    try:
        names = template.format(1), template.format(2)
    except (IndexError, KeyError, ValueError):
        names = ("", "")
    if names[0] == names[1]:
        raise DataError(
            f"image template {template!r} has no frame number in it; expected one such as 'img_{{:05}}.jpg'"
        )
