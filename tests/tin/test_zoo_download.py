"""Downloads over real HTTPS: cut, resumed, refused, shared by processes, never half there."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tin.https_server import Document, HttpsServer, wait_until
from tin.zoo.download import DownloadError, download

DATA = b"PK\x03\x04" + bytes(range(256)) * 2000
SHA256 = hashlib.sha256(DATA).hexdigest()
OTHER = DATA[::-1]


def fetch(server: HttpsServer, folder: Path, document: Document, sha256: str = SHA256[:8], **how: float) -> list[str]:
    """Fetch `document`, quickly; what was said on the way."""
    server.documents["x.pth"] = document
    said: list[str] = []
    try:
        download(server.url("x.pth"), folder / "x.pth", sha256=sha256, say=said.append, **({"pause_s": 0.01} | how))  # type: ignore[arg-type]
    finally:
        said.append("")  # the end
    return said[:-1]


def files(folder: Path) -> list[str]:
    """What lies in a folder, but for locks, which say nothing once their process is gone."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


class TestFetching:
    def test_a_file_comes_whole_with_its_progress_and_nothing_stays_beside_it(
        self, server: HttpsServer, tmp_path: Path
    ) -> None:
        server.documents["x.pth"] = Document(DATA)
        seen: list[tuple[int, int | None]] = []
        target = tmp_path / "new" / "x.pth"
        download(server.url("x.pth"), target, sha256=SHA256[:8], progress=lambda *done: seen.append(done))
        assert target.read_bytes() == DATA
        assert files(target.parent) == ["x.pth"]
        assert seen[-1] == (len(DATA), len(DATA))
        assert seen == sorted(seen)
        assert len(seen) > 1

    def test_a_file_that_is_there_is_not_fetched_again(self, server: HttpsServer, tmp_path: Path) -> None:
        (tmp_path / "x.pth").write_bytes(DATA)
        fetch(server, tmp_path, Document(OTHER))
        assert server.requests == []

    def test_redirections_are_followed_to_https_alone(self, server: HttpsServer, tmp_path: Path) -> None:
        server.documents["real"] = Document(DATA, cuts=[100_000])
        moved = Document(b"", statuses=[302, 302], headers={"Location": server.url("real")})
        fetch(server, tmp_path, moved)
        assert (tmp_path / "x.pth").read_bytes() == DATA
        assert server.ranges() == [None, None, "bytes=100000-", "bytes=100000-"]
        moved = Document(b"", statuses=[302], headers={"Location": server.url("real").replace("https", "http")})
        with pytest.raises(DownloadError, match=r"localhost redirects to http://localhost:\d+/real: that is not https"):
            fetch(server, tmp_path, moved, sha256="0" * 8)

    @pytest.mark.parametrize("url", ["http://localhost/x", "file:///etc/passwd", "ftp://localhost/x", "x.pth"])
    def test_only_https_is_asked(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(DownloadError, match="is not https"):
            download(url, tmp_path / "x.pth", sha256="0")

    def test_a_server_that_nobody_vouches_for_is_refused_at_once(
        self, server: HttpsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(DownloadError, match=r"the certificate of localhost is not trusted: .*SSL_CERT_FILE"):
            fetch(server, tmp_path, Document(DATA))
        assert server.requests == []
        assert files(tmp_path) == []

    def test_a_proxy_of_the_environment_is_asked(
        self, server: HttpsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("https_proxy", "http://localhost:1")
        monkeypatch.delenv("no_proxy", raising=False)
        with pytest.raises(DownloadError, match="the connection to localhost failed"):
            fetch(server, tmp_path, Document(DATA))
        assert server.requests == []


class TestInterruptions:
    def test_a_cut_connection_goes_on_where_it_broke(self, server: HttpsServer, tmp_path: Path) -> None:
        said = fetch(server, tmp_path, Document(DATA, cuts=[200_000, 100_000, 0]))
        assert (tmp_path / "x.pth").read_bytes() == DATA
        assert server.ranges() == [None, "bytes=200000-", "bytes=300000-", "bytes=300000-"]
        assert server.requests[1][1]["If-Range"] == '"1"'
        assert said[0] == f"x.pth: the connection to localhost was lost at 200,000 of {len(DATA):,} bytes; trying again"
        assert files(tmp_path) == ["x.pth"]

    def test_a_silent_server_is_left_and_asked_again(self, server: HttpsServer, tmp_path: Path) -> None:
        said = fetch(server, tmp_path, Document(DATA, cuts=[200_000], stall=True), timeout_s=0.5)
        assert said == ["x.pth: no answer from localhost in time; trying again"]
        assert server.ranges() == [None, "bytes=200000-"]
        assert (tmp_path / "x.pth").read_bytes() == DATA

    def test_a_server_that_keeps_failing_is_given_up_and_what_came_stays(
        self, server: HttpsServer, tmp_path: Path
    ) -> None:
        with pytest.raises(DownloadError, match=r"was lost at 1,000 of"):
            fetch(server, tmp_path, Document(DATA, cuts=[1000] + [0] * 9), retries=2)
        assert len(server.requests) == 4
        assert files(tmp_path) == [".x.pth.part", ".x.pth.part.json"]
        fetch(server, tmp_path, Document(DATA))
        assert server.ranges()[-1] == "bytes=1000-"
        assert files(tmp_path) == ["x.pth"]

    def test_a_server_without_ranges_starts_anew(self, server: HttpsServer, tmp_path: Path) -> None:
        fetch(server, tmp_path, Document(DATA, ranges=False, cuts=[200_000, 100_000]))
        assert (tmp_path / "x.pth").read_bytes() == DATA
        assert len(server.requests) == 3

    def test_a_file_without_a_name_of_its_version_starts_anew(self, server: HttpsServer, tmp_path: Path) -> None:
        fetch(server, tmp_path, Document(DATA, etag='W/"weak"', cuts=[200_000]))
        assert server.ranges() == [None, None]
        (tmp_path / "x.pth").unlink()
        dated = Document(DATA, etag=None, last_modified="Wed, 29 Jul 2020 00:00:00 GMT", cuts=[200_000])
        fetch(server, tmp_path, dated)
        assert server.ranges()[2:] == [None, "bytes=200000-"]

    def test_another_version_on_the_server_starts_anew(self, server: HttpsServer, tmp_path: Path) -> None:
        with pytest.raises(DownloadError):
            fetch(server, tmp_path, Document(OTHER, etag='"old"', cuts=[200_000, 0]), retries=0)
        fetch(server, tmp_path, Document(DATA, etag='"new"'))
        assert server.requests[-1][1]["If-Range"] == '"old"'
        assert (tmp_path / "x.pth").read_bytes() == DATA

    @pytest.mark.parametrize("left", [OTHER[:1000], OTHER, DATA + b"more"], ids=["start", "whole", "longer"])
    def test_a_rest_that_is_of_another_file_is_given_up_for_a_new_start(
        self, server: HttpsServer, tmp_path: Path, left: bytes
    ) -> None:
        """A server that calls two files by the same name."""
        with pytest.raises(DownloadError):
            fetch(server, tmp_path, Document(left + b".", cuts=[len(left), 0]), retries=0)
        fetch(server, tmp_path, Document(DATA))
        assert (tmp_path / "x.pth").read_bytes() == DATA
        assert files(tmp_path) == ["x.pth"]

    def test_a_whole_rest_is_taken_without_asking(self, server: HttpsServer, tmp_path: Path) -> None:
        longer = hashlib.sha256(DATA + b".").hexdigest()
        with pytest.raises(DownloadError):
            fetch(server, tmp_path, Document(DATA + b".", cuts=[len(DATA), 0]), sha256=longer, retries=0)
        server.requests.clear()
        fetch(server, tmp_path, Document(DATA))
        assert server.requests == []
        assert (tmp_path / "x.pth").read_bytes() == DATA

    @pytest.mark.parametrize("status", [500, 503, 429, 408])
    def test_a_busy_server_is_asked_again(self, server: HttpsServer, tmp_path: Path, status: int) -> None:
        said = fetch(server, tmp_path, Document(DATA, statuses=[status], headers={"Retry-After": "0"}))
        assert len(said) == 1
        assert f"localhost answers {status} (" in said[0]
        assert (tmp_path / "x.pth").read_bytes() == DATA


class TestRefusals:
    @pytest.mark.parametrize(("status", "words"), [(404, "Not Found"), (403, "Forbidden"), (410, "Gone")])
    def test_a_refusal_is_no_reason_to_try_again(
        self, server: HttpsServer, tmp_path: Path, status: int, words: str
    ) -> None:
        with pytest.raises(DownloadError, match=rf"^localhost answers {status} \({words}\)$"):
            fetch(server, tmp_path, Document(DATA, statuses=[status]))
        assert len(server.requests) == 1
        assert files(tmp_path) == []

    def test_a_web_page_is_not_taken_for_a_file(self, server: HttpsServer, tmp_path: Path) -> None:
        page = b"<!DOCTYPE html><title>Welcome to our hotel</title>"
        with pytest.raises(DownloadError, match="localhost answers with a web page: a sign-in page"):
            fetch(server, tmp_path, Document(page, headers={"Content-Type": "text/html; charset=utf-8"}))
        with pytest.raises(DownloadError, match="what came is a web page"):
            fetch(server, tmp_path, Document(page))
        assert files(tmp_path) == []

    def test_another_file_is_refused_with_both_hashes(self, server: HttpsServer, tmp_path: Path) -> None:
        found = hashlib.sha256(OTHER).hexdigest()[:8]
        with pytest.raises(DownloadError, match=rf"its SHA-256 starts with {found}, not {SHA256[:8]}"):
            fetch(server, tmp_path, Document(OTHER))
        assert len(server.requests) == 1
        assert files(tmp_path) == []

    def test_a_server_that_always_cuts_and_has_another_file_is_given_up(
        self, server: HttpsServer, tmp_path: Path
    ) -> None:
        with pytest.raises(DownloadError, match="what came is not the file"):
            fetch(server, tmp_path, Document(OTHER, cuts=[1000, 10**6] * 9))
        assert len(server.requests) == 4
        assert files(tmp_path) == []

    def test_another_size_is_refused_before_its_bytes_come(self, server: HttpsServer, tmp_path: Path) -> None:
        fetch(server, tmp_path, Document(DATA), mebibytes=round(len(DATA) / 2**20, 3))
        (tmp_path / "x.pth").unlink()
        with pytest.raises(DownloadError, match=r"the server has 512,004 bytes, not the 0\.500 MiB"):
            fetch(server, tmp_path, Document(DATA), mebibytes=0.5)
        assert files(tmp_path) == []

    def test_what_the_disk_cannot_hold_is_not_begun(self, server: HttpsServer, tmp_path: Path) -> None:
        huge = Document(DATA, headers={"Content-Length": str(10**18)})
        with pytest.raises(
            DownloadError, match=r"953,674,316,\d+ MiB are to come and .* has [\d,]+ MiB free: make room"
        ):
            fetch(server, tmp_path, huge)

    def test_a_folder_that_cannot_be_written_is_named(self, server: HttpsServer, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DownloadError, match=r"cannot write .*file/x\.pth: "):
            fetch(server, tmp_path / "file", Document(DATA))

    def test_a_host_that_is_not_there_is_not_waited_for(self, server: HttpsServer, tmp_path: Path) -> None:
        with pytest.raises(DownloadError, match=r"the connection to localhost failed: Connection refused"):
            download("https://localhost:1/x.pth", tmp_path / "x.pth", sha256="0", pause_s=1000)


SCRIPT = """
import resource, signal, sys
from pathlib import Path
from tin.zoo.download import download
if len(sys.argv) > 4:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
download(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3], pause_s=0.01)
"""


def start(server: HttpsServer, path: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, server.url("x.pth"), str(path), SHA256[:8], *more],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


class TestProcesses:
    def test_a_killed_process_leaves_what_the_next_goes_on_with(self, server: HttpsServer, tmp_path: Path) -> None:
        server.documents["x.pth"] = Document(DATA, cuts=[300_000], stall=True)
        path, part = tmp_path / "x.pth", tmp_path / ".x.pth.part"
        process = start(server, path)
        assert process.stderr is not None
        with process.stderr:
            wait_until(lambda: part.exists() and part.stat().st_size == 300_000, "300,000 bytes on the disk")
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not path.exists()
        fetch(server, tmp_path, Document(DATA))
        assert path.read_bytes() == DATA
        assert server.ranges() == [None, "bytes=300000-"]

    def test_processes_that_want_the_same_file_at_once_fetch_it_once(self, server: HttpsServer, tmp_path: Path) -> None:
        server.documents["x.pth"] = Document(DATA, cuts=[300_000], stall=True)
        processes = [start(server, tmp_path / "x.pth") for _ in range(3)]
        wait_until(lambda: server.requests, "a request")
        server.documents["x.pth"].stall = False
        server.released.set()
        try:
            for process in processes:
                assert process.communicate()[1] == ""
                assert process.returncode == 0
        finally:
            server.released.clear()
        assert len(server.requests) == 2  # of the one whose connection was cut
        assert (tmp_path / "x.pth").read_bytes() == DATA

    def test_a_disk_that_is_full_is_said_so_and_what_came_stays(self, server: HttpsServer, tmp_path: Path) -> None:
        """A real full disk: a process that may not write files beyond 100,000 bytes."""
        server.documents["x.pth"] = Document(DATA)
        process = start(server, tmp_path / "x.pth", "100000")
        assert "DownloadError: cannot write" in process.communicate()[1].splitlines()[-1]
        assert (tmp_path / ".x.pth.part").stat().st_size == 100_000
        fetch(server, tmp_path, Document(DATA))
        assert server.ranges() == [None, "bytes=100000-"]
        assert (tmp_path / "x.pth").read_bytes() == DATA
