"""A real HTTPS server for tests of downloads: it knows ranges, and misbehaves as told."""

from __future__ import annotations

import re
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import trustme

_CHUNK = 16384


@dataclass
class Document:
    """What is served under a path, and how.

    Attributes:
        data: its bytes.
        etag, last_modified: what it is called, if anything.
        ranges: whether parts of it can be asked for.
        cuts: how many bytes of the answer come before the connection breaks, one for each of the first answers.
        statuses: what the first requests are answered instead.
        headers: further headers of every answer; of an error too.
        stall: set, an answer that is to be cut stays open without a byte instead.
    """

    data: bytes
    etag: str | None = '"1"'
    last_modified: str | None = None
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    stall: bool = False


class HttpsServer:
    """Serves `documents` by path at `url(path)`; `requests` holds what was asked: (path, headers)."""

    def __init__(self, folder: Path) -> None:
        """Args:
        folder: receives `ca.pem`, which a client must trust (SSL_CERT_FILE).
        """
        self.documents: dict[str, Document] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()
        authority = trustme.CA()
        self.certificates = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.certificates))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"https://localhost:{self._server.server_port}/{path}"

    def ranges(self) -> list[str | None]:
        """The Range header of every request, in turn."""
        return [headers.get("Range") for _, headers in self.requests]

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""


def _handler(server: HttpsServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            path = unquote(self.path.lstrip("/"))
            server.requests.append((path, dict(self.headers)))
            document = server.documents.get(path)
            if document is None:
                return self._head(404, 0, {})
            if document.statuses:
                return self._head(document.statuses.pop(0), 0, document.headers)
            status, data, headers = self._answer(document)
            self._head(status, len(data), headers | document.headers)
            if not document.cuts:
                return self._body(data)
            self._body(data[: document.cuts.pop(0)])
            if document.stall:
                server.released.wait(60)
            return None

        def _answer(self, document: Document) -> tuple[int, bytes, dict[str, str]]:
            names = {"ETag": document.etag, "Last-Modified": document.last_modified}
            headers = {name: value for name, value in names.items() if value}
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range") in (None, *headers.values())
            if not (asked and document.ranges and same):
                return 200, document.data, headers
            start, size = int(asked[1]), len(document.data)
            if start >= size:
                return 416, b"", {"Content-Range": f"bytes */{size}"}
            return 206, document.data[start:], headers | {"Content-Range": f"bytes {start}-{size - 1}/{size}"}

        def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in (
                {"Content-Length": str(length), "Content-Type": "application/octet-stream"} | headers
            ).items():
                if value:
                    self.send_header(name, value)
            self.end_headers()

        def _body(self, data: bytes) -> None:
            for start in range(0, len(data), _CHUNK):
                self.wfile.write(data[start : start + _CHUNK])
            self.wfile.flush()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on the tests' stderr."""

    return Handler


def wait_until(condition: Any, what: str, timeout_s: float = 60.0) -> None:
    """Return when `condition()` holds; fail the test with `what` when it does not come to hold."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(0.02)
