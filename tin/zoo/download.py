"""A file over HTTPS into its place: whole and checked, or not at all; what an interruption leaves is gone on with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from tin.zoo.https import DownloadError, Lost, asked, require_https

__all__ = ["DownloadError", "Progress", "download"]

Progress = Callable[[int, int | None], None]
"""Told of the bytes that are here and of all that are expected, None where the server does not say."""

TIMEOUT_S = 30.0
"""Without a byte from the server."""
RETRIES = 4
PAUSE_S = 1.0
"""Before the first new try; it doubles with each."""
_CHUNK = _MIB = 1 << 20


def download(
    url: str,
    path: Path,
    *,
    sha256: str,
    mebibytes: float | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda message: None,
    timeout_s: float = TIMEOUT_S,
    retries: int = RETRIES,
    pause_s: float = PAUSE_S,
) -> None:
    """Fetch `url` to `path`, which no other process ever sees half done.

    The bytes go to `.NAME.part` beside it. A lost connection is taken up where it broke (HTTP range requests), in this process
    or, after a kill, in the next one; where the server cannot do that, or has another file now, it starts anew. One process of
    a machine fetches, others wait for it. Proxies are those of the environment (`https_proxy`), certificates the system's, or
    those of `SSL_CERT_FILE`.

    Args:
        url: https; redirections to anything else are refused.
        path: where the file goes. Folders that are missing are made. A file there that has the right hash is left.
        sha256: the first hexadecimal digits of the file's SHA-256.
        mebibytes: its size in 2²⁰ bytes, to a thousandth, where known; another size is refused before its bytes come.
        progress: see `Progress`.
        say: told of each try that is lost, in one line.
        timeout_s: seconds without a byte after which a connection counts as lost.
        retries: tries in a row that may bring nothing, before it gives up. A host that cannot be reached gets none.
        pause_s: seconds before the first of them; doubles with each.

    Raises:
        DownloadError: says why, in a clause that names the server's answer or what this machine lacks.
    """
    require_https(url)
    with _alone(path):
        if _sha256(path).startswith(sha256):
            return
        part = _Part(path, url)
        failures, resumed, anew, first = 0, False, False, True
        while not _sha256(part.path).startswith(sha256):
            if part.whole:
                problem = _not_the_file(part, sha256)
                part.clear()
                if anew or not resumed:
                    raise DownloadError(problem)
                resumed, anew = False, True  # these may have been parts of two files
                say(f"{path.name}: {problem}; starting anew")
            had = part.size
            resumed = resumed or had > 0
            try:
                _transfer(part, mebibytes, progress, timeout_s)
            except Lost as error:
                if error.misplaced:
                    part.clear()
                failures = 0 if part.size > had else failures + 1
                if failures > retries or (first and error.nobody):
                    raise DownloadError(str(error)) from error
                say(f"{path.name}: {error}; trying again")
                time.sleep(error.pause_s if error.pause_s is not None else pause_s * 2 ** max(0, failures - 1))
            first = False
        part.finish()


def _transfer(part: _Part, mebibytes: float | None, progress: Progress | None, timeout_s: float) -> None:
    """Ask for what is missing and write what comes.

    Raises:
        Lost: it may work the next time.
        DownloadError: it will not.
    """
    with asked(part.url, part.size, part.validator, timeout_s) as answer:
        if not answer.start:
            part.begin(answer.validator)
        size, total = part.size, answer.total
        if total is not None:
            _check_size(part, total, mebibytes)
        with part.appending() as append:
            while data := answer.body.read1(_CHUNK):
                append(data)
                size += len(data)
                if progress:
                    progress(size, total)
        if total is not None and size != total:
            raise Lost(f"the connection to {answer.host} was lost at {size:,} of {total:,} bytes")
    part.whole = True


def _check_size(part: _Part, total: int, mebibytes: float | None) -> None:
    if mebibytes is not None and abs(total / _MIB - mebibytes) > 0.001:
        part.clear()
        raise DownloadError(f"the server has {total:,} bytes, not the {mebibytes:,.3f} MiB that were published")
    missing, free = total - part.size, shutil.disk_usage(part.path.parent).free
    if missing > free:
        raise DownloadError(
            f"{missing / _MIB:,.0f} MiB are to come and {part.path.parent} has {free / _MIB:,.0f} MiB free: make room there"
        )


def _not_the_file(part: _Part, sha256: str) -> str:
    with part.path.open("rb") as file:
        head = file.read(64).lstrip()
    if head.startswith(b"<"):
        return "what came is a web page: a sign-in page of this network, perhaps"
    return f"what came is not the file: its SHA-256 starts with {_sha256(part.path)[: len(sha256)]}, not {sha256}"


class _Part:
    """What has come of a file so far, and what the server called that file, so that more of the same can be asked for."""

    def __init__(self, path: Path, url: str) -> None:
        self.url, self._target = url, path
        self.path = path.with_name(f".{path.name}.part")
        self._note = path.with_name(f".{path.name}.part.json")
        self.whole = False
        self.validator = self._noted()
        if self.validator is None:
            self.clear()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def clear(self) -> None:
        with _disk(self.path):
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        self.whole, self.validator = False, None

    def begin(self, validator: str | None) -> None:
        """Start anew with a file that the server calls so."""
        self.clear()
        with _disk(self.path):
            if validator:
                self._note.write_text(json.dumps({"url": self.url, "validator": validator}), encoding="utf-8")
            self.path.touch()
        self.validator = validator

    @contextmanager
    def appending(self) -> Iterator[Callable[[bytes], None]]:
        """A function that writes more of it. Nothing waits in a buffer that a kill would lose."""
        with _disk(self.path):
            file = self.path.open("ab", buffering=0)

        def append(data: bytes) -> None:
            left = memoryview(data)
            with _disk(self.path):
                while left:
                    left = left[file.write(left) :]

        with file:
            yield append

    def finish(self) -> None:
        """Give it its name."""
        from tin.checkpoints.files import sync_folder  # takes seconds, for PyTorch

        with _disk(self._target):
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self.path, self._target)
            self._note.unlink(missing_ok=True)
        sync_folder(self._target.parent)

    def _noted(self) -> str | None:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return str(note["validator"]) if note["url"] == self.url else None
        except (OSError, ValueError, LookupError, TypeError):
            return None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process of this machine at a time fetches a file."""
    with _disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DownloadError(f"cannot write {path}: {error.strerror or error}") from error


def _sha256(path: Path) -> str:
    """Empty where there is no file."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""
