"""What is finished in a folder of copies, made of what and with which settings; one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from pipelines.errors import DataError
from pipelines.media import file_state
from pipelines.transcode.errors import OutputError
from pipelines.transcode.settings import TranscodeSettings

LEDGER = "transcode.jsonl"
SCRATCH = ".unfinished"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Copy:
    """A finished copy. Its row is written before the file takes its name: a copy without a row is somebody else's file."""

    name: str
    """Path relative to the folder, with slashes."""
    source: str
    """Absolute path of what it was made of."""
    id: str
    """The source's path as its list had it."""
    source_state: tuple[int, int]
    """Bytes and time of change, ns, of the source."""
    state: tuple[int, int]
    """Bytes and time of change, ns, of the copy."""
    encoder: str

    def is_of(self, source: str, id: str, state: tuple[int, int]) -> bool:
        """Whether it shows this source as it is now, moved here or not; a source deleted since counts as unchanged."""
        if self.source == source:
            return state in (self.source_state, (0, 0))
        return (self.id, self.source_state) == (id, state)


class Ledger:
    """The rows of a folder, held in a file of JSON lines to which lines are only ever added. `open_ledger` makes one."""

    def __init__(self, out: Path, file: FileIO) -> None:
        self.out, self._file = out, file
        self.settings: dict[str, Any] | None = None
        self.copies: dict[str, Copy] = {}
        """By name."""
        self.lists: dict[str, str] = {}
        """Absolute path of the source list by list name."""
        self._read()

    def is_whole(self, copy: Copy) -> bool:
        """Whether the copy is there as it was when it was finished."""
        return file_state(self.out / copy.name) == copy.state

    def add_settings(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self._append({"transcode": _VERSION, "settings": settings})

    def add_copy(self, copy: Copy) -> None:
        self.copies[copy.name] = copy
        self._append(
            {
                "copy": copy.name, "source": copy.source, "id": copy.id, "source_state": copy.source_state,
                "state": copy.state, "encoder": copy.encoder,
            }
        )  # fmt: skip

    def add_list(self, name: str, source: str) -> None:
        if self.lists.get(name) != source:
            self.lists[name] = source
            self._append({"list": name, "source": source})

    def _append(self, row: dict[str, Any]) -> None:
        line = json.dumps(row).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise OutputError(self.out / LEDGER, error.strerror or str(error)) from None
        if written != len(line):  # the next run cuts off what is there of it
            raise OutputError(self.out / LEDGER, os.strerror(errno.ENOSPC))

    def _read(self) -> None:
        self._file.seek(0)
        data = self._file.readall()
        lines = data.split(b"\n")
        for number, line in enumerate(lines[:-1], 1):
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                place = f"{self.out / LEDGER}:{number}"
                raise DataError(f"{place}: not a line that this command wrote; remove it") from None
        if lines[-1]:  # cut off by the end of the process that wrote it
            self._file.truncate(len(data) - len(lines[-1]))
            self._file.seek(0, os.SEEK_END)

    def _take(self, row: dict[str, Any]) -> None:
        if "transcode" in row:
            if row["transcode"] != _VERSION:
                raise DataError(f"{self.out} was written by another version of this command; name another folder")
            self.settings = row["settings"]
        elif "copy" in row:
            states = tuple(row["source_state"]), tuple(row["state"])
            self.copies[row["copy"]] = Copy(row["copy"], row["source"], row["id"], *states, row["encoder"])
        else:
            self.lists[row["list"]] = row["source"]


@contextmanager
def open_ledger(out: Path, settings: TranscodeSettings) -> Iterator[Ledger]:
    """The ledger of the folder `out`, which is made or claimed for these settings, locked until the end.

    Raises DataError where `out` holds something else or other settings, or another process is writing to it.
    """
    path = out / LEDGER
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not path.exists() and any(out.iterdir()):
            raise DataError(f"{out} is not empty and holds no transcoded videos; name another folder")
        file = path.open("r+b" if path.exists() else "w+b", buffering=0)
    except OSError as error:
        raise OutputError(out, error.strerror or str(error)) from None
    with file:
        _lock(file, out)
        ledger = Ledger(out, file)
        wanted = settings.as_dict()
        if ledger.settings is None:
            ledger.add_settings(wanted)
        found = ledger.settings or {}
        differing = [f"{key} {found.get(key)}, not {wanted[key]}" for key in wanted if found.get(key) != wanted[key]]
        if differing:
            raise DataError(
                f"{out} holds videos transcoded with {', '.join(differing)}; give the same settings, name another folder, or "
                f"remove it"
            )
        yield ledger


def recorded_encoder(out: Path) -> str | None:
    """The encoder that the copies in `out` are made with; None where there are none yet."""
    try:
        with (out / LEDGER).open("rb") as file:
            return str(json.loads(file.readline())["settings"]["encoder"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """A folder for unfinished files on the file system of `out`. What interrupted runs left in theirs is removed.

    A worker that outlives a killed run finds its folder gone: it can neither finish a file there nor leave one.
    """
    home = out / SCRATCH
    shutil.rmtree(home, ignore_errors=True)
    folder = home / f"{os.getpid()}-{os.urandom(4).hex()}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(folder, error.strerror or str(error)) from None
    try:
        yield folder
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _lock(file: FileIO, out: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
    except BlockingIOError:
        raise DataError(f"another process is transcoding into {out}; wait for it or name another folder") from None
    except OSError:
        pass  # a file system without locks
