"""One HTTPS request for a file or its rest; what goes wrong is sorted into what may pass and what will not."""

from __future__ import annotations

import errno
import http.client
import re
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import IO, Any
from urllib.parse import urlsplit

from tin import __version__

_LONGEST_PAUSE_S = 60.0


class DownloadError(Exception):
    """A file could not be fetched; the message says why, in a clause."""


class Lost(Exception):
    """A try failed in a way that the next one may not.

    Attributes:
        pause_s: when the server wants to be asked again, where it says so.
        nobody: there is no such host, no way to it, or nobody who listens: no use in waiting, unless it was there before.
        misplaced: the rest that was asked for is not to be had.
    """

    def __init__(
        self, reason: str, *, pause_s: float | None = None, nobody: bool = False, misplaced: bool = False
    ) -> None:
        super().__init__(reason)
        self.pause_s, self.nobody, self.misplaced = pause_s, nobody, misplaced


@dataclass(frozen=True)
class Answer:
    """What a server gives.

    Attributes:
        host: who gives it, after redirections.
        start: where in the file its bytes begin: what was asked for, or 0.
        total: bytes of the whole file; None where the server does not say.
        validator: what the server calls this version of the file: a strong ETag, or the date of its last change.
        body: has `read1`.
    """

    host: str
    start: int
    total: int | None
    validator: str | None
    body: Any


@contextmanager
def asked(url: str, start: int, validator: str | None, timeout_s: float) -> Iterator[Answer]:
    """Ask for a file from byte `start` on, if it still is the version called `validator`, else for all of it.

    Proxies are those of the environment, certificates the system's or those of SSL_CERT_FILE, as they are now.

    Raises:
        Lost, DownloadError: also for what goes wrong in the context, while the body is read.
    """
    headers = {"User-Agent": f"tin-video/{__version__}", "Accept-Encoding": "identity"}
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    https = urllib.request.HTTPSHandler(context=ssl.create_default_context())
    opener = urllib.request.build_opener(_HttpsOnly, https)
    with (
        _sorted_errors(_host(url)),
        opener.open(urllib.request.Request(url, headers=headers), timeout=timeout_s) as response,
    ):
        yield _answer(response, start)


def require_https(url: str, what: str | None = None) -> None:
    """Raises DownloadError for anything else; `what` says how it came to that."""
    if urlsplit(url).scheme != "https":
        raise DownloadError(f"{what or url}: that is not https, so nobody vouches for what it gives")


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        require_https(newurl, f"{_host(req.full_url)} redirects to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _answer(response: Any, asked_from: int) -> Answer:
    host = _host(response.url)
    if response.headers.get_content_type() == "text/html":
        raise DownloadError(f"{host} answers with a web page: a sign-in page of this network, perhaps")
    tag = response.headers.get("ETag")
    validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not span or int(span[1]) != asked_from:
            raise Lost(f"{host} gave another part of the file than was asked for", misplaced=True)
        return Answer(host, asked_from, None if span[2] == "*" else int(span[2]), validator, response)
    if response.status != HTTPStatus.OK:
        raise DownloadError(_status(host, response.status))
    length = response.headers.get("Content-Length", "")
    return Answer(host, 0, int(length) if length.isdecimal() else None, validator, response)


@contextmanager
def _sorted_errors(host: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None)
        cause = reason if isinstance(reason, Exception) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"the certificate of {host} is not trusted: {cause.verify_message}; behind a proxy that opens connections, "
                f"name its certificates by SSL_CERT_FILE"
            ) from error
        if isinstance(cause, TimeoutError):
            raise Lost(f"no answer from {host} in time") from error
        text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise Lost(f"the connection to {host} failed: {text}", nobody=_is_nobody(cause)) from error


def _refusal(error: urllib.error.HTTPError) -> Exception:
    """What an HTTP status means: try again, later perhaps, or give up."""
    host = _host(error.url)
    if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return Lost(f"{host} has a shorter file than what is here", misplaced=True)
    text = _status(host, error.code)
    if error.code in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or error.code >= 500:
        after = error.headers.get("Retry-After", "")
        return Lost(text, pause_s=min(float(after), _LONGEST_PAUSE_S) if after.isdecimal() else None)
    return DownloadError(text)


def _status(host: str, status: int) -> str:
    try:
        phrase = f" ({HTTPStatus(status).phrase})"
    except ValueError:
        phrase = ""
    return f"{host} answers {status}{phrase}"


def _is_nobody(error: Exception) -> bool:
    return isinstance(error, socket.gaierror | ConnectionRefusedError) or (
        isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH)
    )


def _host(url: str) -> str:
    return urlsplit(url).hostname or url
