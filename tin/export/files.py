"""Exported files take their names when they are whole and right, and no other file's place unless that is asked for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tin.errors import TinError


def check_target(path: Path, suffix: str, force: bool) -> None:
    """Whether a file can be written there, before minutes are spent on it.

    Raises:
        TinError: another ending than `suffix`; there is a file already, without `force`; it is a folder; its folder is missing
            or cannot be written.
    """
    if path.suffix != suffix:
        raise TinError(f"{path}: this format is written to a file that ends in {suffix}")
    if path.is_dir():
        raise TinError(f"cannot write {path}: it is a folder; give the name of a file in it")
    if path.exists() and not force:
        raise TinError(f"{path} is there already: give another name, or --force to replace it")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise TinError(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TinError(f"cannot write {path}: its folder is not writable")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Where to write what is to become `path`: the same name in a hidden folder beside it.

    All that lies in that folder takes its place when the context ends, `path` itself last; after an exception nothing does.

    Raises:
        TinError: a file cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            yield Path(folder) / path.name
            for part in sorted(Path(folder).iterdir(), key=lambda part: part.name == path.name):
                with part.open("rb") as file:
                    os.fsync(file.fileno())
                os.chmod(part, 0o644)
                os.replace(part, path.with_name(part.name))
    except OSError as error:
        raise TinError(f"cannot write {path}: {error.strerror or error}") from error
