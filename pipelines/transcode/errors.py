"""What goes wrong with a copy through no fault of its source; both travel from worker processes by pickle."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import DataError, DecodeError


class EncoderError(DecodeError):
    """An encoder does not take a video, or not with these settings; names the video."""


class OutputError(DataError):
    """A file cannot be written; the reason is the system's."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = Path(path), reason

    def __str__(self) -> str:
        return f"cannot write {self.path}: {self.reason}"
