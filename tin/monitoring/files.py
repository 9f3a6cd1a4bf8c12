"""Files that only grow and never stop a run: what a full disk refuses waits in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tin.errors import TinError

Warn = Callable[[str], None]


class Appender:
    """Bytes that reach a file in order and whole, if need be later.

    They are given to the operating system at once, so a process that is killed has lost nothing that it wrote. When the disk is
    full, or its quota, they stay in memory, `warn` is told once, and every further write tries again.

    Args:
        path: the file; made when it is not there.
        warn: told when writing fails and when it works again.

    Raises:
        TinError: the file cannot be opened.
    """

    def __init__(self, path: Path, warn: Warn) -> None:
        self.path = path
        self._warn = warn
        self._waiting = b""
        self._failing = False
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise TinError(f"cannot write {path}: {error.strerror}; choose another --work-dir") from None

    def write(self, data: bytes) -> None:
        self._waiting += data
        try:
            while self._waiting:
                written = self._file.write(self._waiting) or 0
                self._waiting = self._waiting[written:]
        except OSError as error:
            if not self._failing:
                self._warn(f"cannot write {self.path}: {error.strerror}; what belongs there waits in memory for room")
            self._failing = True
        else:
            if self._failing:
                self._warn(f"{self.path} is written again, nothing is missing")
            self._failing = False

    def close(self) -> None:
        self.write(b"")
        if self._waiting:
            self._warn(f"the last {len(self._waiting)} bytes of {self.path} could not be written and are lost")
        self._file.close()


def drop_unfinished_line(path: Path) -> None:
    """Take away the end of a text file after its last newline: half a line, left by a process that was killed while it wrote."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65_536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        file.truncate(end)


def replace_text(path: Path, text: str, warn: Warn) -> None:
    """Write a whole file anew; the old one stays until the new one is complete, and where the disk is full."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        warn(f"cannot write {path}: {error.strerror}; the old one stays")
