"""`tin-cli zoo`: a table for people and for programs, and files fetched over real HTTPS."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from tests.conftest import REPOSITORY
from tests.tin.https_server import Document, HttpsServer
from tin.zoo import published

Cli = Callable[..., Any]
DATA = bytes(range(256)) * 1000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def small(server: HttpsServer, monkeypatch: pytest.MonkeyPatch) -> HttpsServer:
    """Gives out `tin_r50_k400`, a small file."""
    server.documents["tin.pth"] = Document(DATA)
    digest = hashlib.sha256(DATA).hexdigest()[:8]
    entry = replace(published()["tin_r50_k400"], url=server.url("tin.pth"), sha256=digest)
    monkeypatch.setitem(published(), "tin_r50_k400", entry)
    return server


def test_every_file_is_listed_twice_the_same(cli: Cli, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "resnet18-f37072fd.pth").touch()
    words, facts = cli("zoo", "list"), json.loads(cli("zoo", "list", "--json").out)
    assert words.status == 0
    rows = {line.split()[0]: line for line in words.out.splitlines()[1:]}
    assert list(rows) == [fact["name"] for fact in facts] == list(published())
    for fact in facts:
        row = rows[fact["name"]]
        assert f"{fact['top1']:.2f}" in row
        assert fact["dataset"] in row
        assert row.endswith("yes") is fact["here"] is (fact["name"] == "resnet18_imagenet")
        assert fact["licence"]
        assert fact["path"] == str(cache / fact["file"])
    assert "44.7 MiB" in rows["resnet18_imagenet"]


def test_a_file_is_fetched_once_and_only_its_path_is_printed(cli: Cli, cache: Path, small: HttpsServer) -> None:
    first = cli("zoo", "get", "tin_r50_k400")
    assert (first.status, first.out) == (0, f"{cache / 'tin.pth'}\n")
    assert "fetching https://localhost" in first.err
    assert "Apache-2.0" in first.err
    assert (cache / "tin.pth").read_bytes() == DATA
    again = cli("zoo", "get", "tin_r50_k400", "--offline")
    assert (again.out, again.err) == (first.out, "")
    assert len(small.requests) == 1


def test_a_copy_goes_where_it_was_asked_for_and_over_nothing(
    cli: Cli, cache: Path, small: HttpsServer, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "mine.pth"
    assert cli("zoo", "get", "tin_r50_k400", "--out", out).out == f"{out}\n"
    assert out.read_bytes() == DATA
    assert [path.name for path in out.parent.iterdir()] == ["mine.pth"]
    out.write_text("mine")
    refused = cli("zoo", "get", "tin_r50_k400", "--out", out)
    assert refused.status == 2
    assert f"{out} exists" in refused.err
    assert out.read_text() == "mine"


def test_a_lost_connection_is_told_and_gone_on_with(cli: Cli, cache: Path, small: HttpsServer) -> None:
    small.documents["tin.pth"].cuts = [100_000]
    result = cli("zoo", "get", "tin_r50_k400")
    assert result.status == 0
    assert "tin.pth: the connection to localhost was lost at 100,000 of 256,000 bytes; trying again\n" in result.err
    assert small.ranges() == [None, "bytes=100000-"]


def test_a_terminal_shows_how_far_it_is(
    cli: Cli, cache: Path, small: HttpsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    result = cli("zoo", "get", "tin_r50_k400")
    assert result.out == f"{cache / 'tin.pth'}\n"
    assert "250.0/250.0 KiB" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", result.err)


@pytest.mark.parametrize("how", ["option", "environment"])
def test_offline_says_what_to_place_where(
    cli: Cli, cache: Path, small: HttpsServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "environment":
        monkeypatch.setenv("TIN_OFFLINE", "1")
    result = cli("zoo", "get", "tin_r50_k400", *(["--offline"] if how == "option" else []))
    assert result.status == 2
    error = result.err.splitlines()[-1]
    assert ("--offline" if how == "option" else "TIN_OFFLINE=1") in error
    assert f"download {small.url('tin.pth')}" in error
    assert str(cache / "tin.pth") in error
    assert small.requests == []


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "localhost answers 404 (Not Found)"),
        (Document(b"<html>", headers={"Content-Type": "text/html"}), "localhost answers with a web page"),
        (Document(b"other"), "its SHA-256 starts with d9298a10"),
    ],
)
def test_what_goes_wrong_is_one_clear_line(
    cli: Cli, cache: Path, small: HttpsServer, document: Document | None, message: str
) -> None:
    small.documents = {"tin.pth": document} if document else {}
    result = cli("zoo", "get", "tin_r50_k400")
    assert (result.status, result.out) == (2, "")
    error = result.err.splitlines()[-1]
    assert error.startswith("tin-cli: error: cannot fetch the weights tin.pth (")
    assert message in error
    assert not (cache / "tin.pth").exists()


def test_a_wrong_name_is_answered_with_the_nearest(cli: Cli, cache: Path) -> None:
    result = cli("zoo", "get", "tin-r50-k400")
    assert result.status == 2
    assert "unknown published model 'tin-r50-k400': did you mean 'tin_r50_k400'?" in result.err


TRAIN = """
import sys
from dataclasses import replace
from cli.main import main
from tin.zoo import published
model = published()["resnet18_imagenet"]
published()[model.name] = replace(model, url=sys.argv[1], sha256=sys.argv[2], mebibytes=None)
main(["train", *sys.argv[3:]])
"""


@pytest.mark.slow
def test_training_starts_from_published_weights(cache: Path, small: HttpsServer, motion: Path, tmp_path: Path) -> None:
    """In a process of its own, with the table's address of the file changed to the test's server."""
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    data = (tmp_path / "resnet18.pth").read_bytes()
    small.documents["resnet18.pth"] = Document(data, cuts=[len(data) // 2])
    command = [
        small.url("resnet18.pth"), hashlib.sha256(data).hexdigest()[:8], "--recipe", "tin_motion", "--data", motion,
        "--work-dir", tmp_path / "run", "--epochs", "1", "--no-validate", "--device", "cpu", "--workers", "1",
        "--pretrained", "resnet18_imagenet",
    ]  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-c", TRAIN, *map(str, command)], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "resnet18.pth: the connection to localhost was lost at" in ran.stdout
    assert f"{cache / 'resnet18.pth'} (plain names): 120 weights loaded, 66 new, 2 dropped" in ran.stdout
    assert json.loads((tmp_path / "run" / "pretrained.json").read_text())["path"] == str(cache / "resnet18.pth")
    assert small.ranges() == [None, f"bytes={len(data) // 2}-"]
