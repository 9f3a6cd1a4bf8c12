"""The errors that the data side raises: each says what is wrong, where, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class DataError(Exception):
    """A problem with the user's data or data settings. The message is one complete sentence for a person."""


class ListError(DataError):
    """A list file that cannot be read, or a line of it that is wrong; the message starts with `file:line`."""

    def __init__(self, path: str | Path, line: int | None, problem: str) -> None:
        super().__init__(path, line, problem)
        self.path, self.line, self.problem = Path(path), line, problem

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}" if self.line is not None else f"{self.path}: {self.problem}"


class SettingsError(DataError):
    """A clip setting that cannot work: names the field, the value and what is allowed."""


class DecodeError(DataError):
    """A video or image that cannot be decoded as asked; the message names the file and the reason."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = Path(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class WorkerError(DataError):
    """The decoding processes cannot be started or die again and again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that could not be used."""

    id: int
    """Position in the list."""
    name: str
    """The path as written in the list."""
    reason: str


class BadVideosError(DataError):
    """More of a list cannot be read than is allowed. `failures` has all of them, the message the first."""

    def __init__(self, message: str, failures: tuple[Failure, ...]) -> None:
        super().__init__(message, failures)  # as they are, so that it can be pickled
        self.message, self.failures = message, failures

    def __str__(self) -> str:
        return self.message
