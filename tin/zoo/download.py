"""A file over HTTPS into its place: whole and checked, or not at all; what an interruption leaves is gone on with."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import filelock

from tin import __version__

Progress = Callable[[int, int | None], None]
"""Told of the bytes that are here and of all that are expected, None where the server does not say."""

TIMEOUT_S = 30.0
"""Without a byte from the server."""
RETRIES = 4
PAUSE_S = 1.0
"""Before the first new try; it doubles with each."""
_LONGEST_PAUSE_S = 60.0
_CHUNK = 1 << 20
_MIB = 1 << 20


class DownloadError(Exception):
    """A file could not be fetched; the message says why, in a clause."""


class _Lost(Exception):
    """A try failed in a way that the next one may not."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


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
        retries: tries in a row that may bring nothing, before it gives up.
        pause_s: seconds before the first of them; doubles with each.

    Raises:
        DownloadError: says why, in a clause that names the server's answer or what this machine lacks.
    """
    _require_https(url)
    with _alone(path):
        if _sha256(path).startswith(sha256):
            return
        part = _Part(path, url)
        failures, resumed, anew = 0, False, False
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
            except _Lost as error:
                failures = 0 if part.size > had else failures + 1
                if failures > retries:
                    raise DownloadError(str(error)) from error
                say(f"{path.name}: {error}; trying again")
                time.sleep(error.pause_s if error.pause_s is not None else pause_s * 2 ** max(0, failures - 1))
        part.finish()


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


def _transfer(part: _Part, mebibytes: float | None, progress: Progress | None, timeout_s: float) -> None:
    """Ask for what is missing and write what comes.

    Raises:
        _Lost: it may work the next time.
        DownloadError: it will not.
    """
    had = part.size
    headers = {"User-Agent": f"tin-video/{__version__}", "Accept-Encoding": "identity"}
    if had and part.validator:
        headers |= {"Range": f"bytes={had}-", "If-Range": part.validator}
    with _answered(part, had), _open(part.url, headers, timeout_s) as response:
        total = _place(part, response, had)
        host = urlsplit(response.url).hostname
        if response.headers.get_content_type() == "text/html":
            part.clear()
            raise DownloadError(f"{host} answers with a web page: a sign-in page of this network, perhaps")
        if total is not None:
            _check_size(part, total, mebibytes)
        size = part.size
        with part.appending() as append:
            while data := response.read1(_CHUNK):
                append(data)
                size += len(data)
                if progress:
                    progress(size, total)
        if total is not None and size != total:
            raise _Lost(f"the connection to {host} was lost at {size:,} of {total:,} bytes")
        part.whole = True


def _place(part: _Part, response: Any, had: int) -> int | None:
    """Put `part` where the answer's bytes go, and return the size of the whole file, where the server says it."""
    length = response.headers.get("Content-Length")
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not span or int(span[1]) != had:
            part.clear()
            raise _Lost(f"{urlsplit(response.url).hostname} gave another part of the file than was asked for")
        return None if span[2] == "*" else int(span[2])
    if response.status != HTTPStatus.OK:
        raise DownloadError(_answer(response.url, response.status))
    part.begin(_validator(response.headers))
    return int(length) if length and length.isdecimal() else None


def _validator(headers: Message) -> str | None:
    """What If-Range may name: a strong ETag, or the date of the last change."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


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


# ---------------------------------------------------------------------------------------------------------------------
# the network


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        _require_https(newurl, f"{urlsplit(req.full_url).hostname} redirects to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: Mapping[str, str], timeout_s: float) -> Any:
    # Made each time: proxies and certificates are those that the environment names now.
    context = ssl.create_default_context()
    opener = urllib.request.build_opener(_HttpsOnly, urllib.request.HTTPSHandler(context=context))
    return opener.open(urllib.request.Request(url, headers=dict(headers)), timeout=timeout_s)


def _require_https(url: str, what: str | None = None) -> None:
    if urlsplit(url).scheme != "https":
        raise DownloadError(f"{what or url}: that is not https, so nobody vouches for what it gives")


@contextmanager
def _answered(part: _Part, had: int) -> Iterator[None]:
    """Sorts what goes wrong on the network into what may pass (`_Lost`) and what will not (`DownloadError`)."""
    host = urlsplit(part.url).hostname
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(part, error) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None)
        cause = reason if isinstance(reason, Exception) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"the certificate of {host} is not trusted: {cause.verify_message}; behind a proxy that opens connections, "
                f"name its certificates by SSL_CERT_FILE"
            ) from error
        if isinstance(cause, TimeoutError):
            raise _Lost(f"no answer from {host} in time") from error
        text = f"the connection to {host} failed: {getattr(cause, 'strerror', None) or cause or type(cause).__name__}"
        if not had and not part.size and _is_no_network(cause):
            raise DownloadError(text) from error
        raise _Lost(text) from error


def _refusal(part: _Part, error: urllib.error.HTTPError) -> Exception:
    """What an HTTP status means: try again, later perhaps, or give up."""
    if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        part.clear()
        return _Lost(f"{urlsplit(error.url).hostname} has a shorter file than what is here")
    text = _answer(error.url, error.code)
    if error.code in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or error.code >= 500:
        after = error.headers.get("Retry-After", "")
        return _Lost(text, min(float(after), _LONGEST_PAUSE_S) if after.isdecimal() else None)
    return DownloadError(text)


def _answer(url: str, status: int) -> str:
    try:
        phrase = f" ({HTTPStatus(status).phrase})"
    except ValueError:
        phrase = ""
    return f"{urlsplit(url).hostname} answers {status}{phrase}"


def _is_no_network(error: Exception) -> bool:
    """Whether there is nobody to wait for: no such name, no way there, nobody who listens."""
    return isinstance(error, socket.gaierror | ConnectionRefusedError) or (
        isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    )


# ---------------------------------------------------------------------------------------------------------------------
# the disk


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
