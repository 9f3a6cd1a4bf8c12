"""The index on disk: one SQLite file of VideoInfo rows, keyed by path relative to the list's root."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

from pipelines.annotations import VideoList
from pipelines.errors import DataError
from pipelines.probe import VideoInfo

# Raised when a row's meaning changes: files of another version are probed again.
VERSION = 4
_APPLICATION = 0x54494E31  # marks the file as ours, so that no other SQLite file is ever overwritten
_COLUMNS = [field.name for field in fields(VideoInfo)]
_TUPLES = [place for place, field in enumerate(fields(VideoInfo)) if str(field.type).startswith("tuple")]
_TRUTHS = [place for place, field in enumerate(fields(VideoInfo)) if field.type == "bool"]
_WAIT_SECONDS = 60.0  # for another builder's short transaction

Row = tuple[VideoInfo, bool]


def store_paths(video_list: VideoList) -> list[Path]:
    """Where the index of a list may live, best first: beside the list, else in the user's cache directory. Nowhere where there is
    no list, but videos that were named one by one."""
    source = video_list.source
    if source is None:
        return []
    beside = source / ".index.sqlite" if source.is_dir() else source.with_name(source.stem + ".index.sqlite")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:16]
    return [beside, cache / "tin-video" / f"{source.stem}-{digest}.sqlite"]


def read_rows(path: Path) -> dict[str, Row]:
    """All rows (info, verified) by key; nothing where there is no file to read, or one of another version.

    Raises DataError where the file is not such a store.
    """
    if not os.path.isfile(path) or not os.access(path, os.R_OK) or not os.path.getsize(path):
        return {}
    try:
        with closing(_connect(path, create=False)) as connection:
            if not _is_current(connection, path):
                return {}
            rows = connection.execute(f"SELECT key, verified, {', '.join(_COLUMNS)} FROM videos")
            return {row[0]: (_info(row[2:]), bool(row[1])) for row in rows}
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"{path} cannot be read as a video index ({error}); if it is damaged, delete it and it is built again"
        ) from None


def writable(path: Path) -> bool:
    """Whether rows can be written to a store at `path`; creates it where there is none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_connect(path)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            if not _is_current(connection, path):
                connection.execute("DROP TABLE IF EXISTS videos")
                connection.execute(
                    f"CREATE TABLE videos (key TEXT PRIMARY KEY, verified INTEGER, {', '.join(_COLUMNS)}) WITHOUT ROWID"
                )
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
    except (sqlite3.OperationalError, OSError):
        return False
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"{path} cannot be read as a video index ({error}); if it is damaged, delete it and it is built again"
        ) from None
    return True


def write_rows(path: Path, rows: Iterable[tuple[str, VideoInfo, bool]]) -> None:
    """Add or replace rows (key, info, verified) in one transaction."""
    values = [(key, verified, *_values(info)) for key, info, verified in rows]
    if not values:
        return
    marks = ", ".join("?" * (len(_COLUMNS) + 2))
    try:
        with closing(_connect(path)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(f"INSERT OR REPLACE INTO videos VALUES ({marks})", values)
    except sqlite3.Error as error:
        raise DataError(f"cannot write the video index {path}: {error}") from None


def _connect(path: Path, create: bool = True) -> sqlite3.Connection:
    if create:
        return sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None)
    # Readers open for writing too, where they may: a writer that was killed leaves a journal for the next one to roll back.
    # On a read-only file system, where locks may fail, `immutable` does without: nobody can be writing there.
    read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    mode = "mode=ro&immutable=1" if read_only else "mode=rw"
    return sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True, timeout=_WAIT_SECONDS)


def _is_current(connection: sqlite3.Connection, path: Path) -> bool:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and application != _APPLICATION:
        raise DataError(f"{path} is another program's SQLite file, not a video index; choose another store")
    return bool(tables) and connection.execute("PRAGMA user_version").fetchone()[0] == VERSION


def _values(info: VideoInfo) -> list[object]:
    values = [getattr(info, name) for name in _COLUMNS]
    return [json.dumps(value) if isinstance(value, tuple) else value for value in values]


def _info(stored: Sequence[Any]) -> VideoInfo:
    values = list(stored)
    for position in _TUPLES:
        values[position] = tuple(json.loads(values[position]))
    for position in _TRUTHS:
        values[position] = bool(values[position])
    return VideoInfo(*values)
