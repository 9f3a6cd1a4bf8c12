"""Hostile and mutated checkpoint files: none runs code, hangs, crashes or takes memory that its size does not explain."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from tests.conftest import REPOSITORY
from tests.tin import hostile_files
from tests.tin.hostile_pickles import calling

GB = 1 << 30


def outcomes(tmp_path: Path, files: dict[str, bytes]) -> list[dict[str, Any]]:
    """What loading each came to, each in a process of its own."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.tin.load_hostile", str(folder), str(tmp_path / "result.json")]
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads((tmp_path / "result.json").read_text())
    assert len(found) == len(files)
    return found


def check(found: list[dict[str, Any]], canary: Path) -> None:
    assert not canary.exists()
    assert not [f"{one['name']}: {one['text'][:300]}" for one in found if not _as_expected(one)]
    for one in found:
        assert one["peak"] <= 2 * one["bytes"] + GB, one["name"]
        if one["outcome"] != "loaded":
            assert one["text"].isprintable(), one["name"]
            assert len(one["text"]) < 1000, one["name"]


def _as_expected(one: dict[str, Any]) -> bool:
    name, outcome = Path(one["name"]).stem, one["outcome"]
    if name.startswith("mutated"):  # what no checksum covers may have changed
        return outcome in ("refused", "unfit", "loaded")
    return outcome == ("unfit" if name.partition("-")[2] in hostile_files.READABLE else "refused")


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is there when code of another has run."""
    return tmp_path_factory.mktemp("canary") / "ran"


@pytest.fixture(scope="module")
def hostile(canary: Path) -> dict[str, bytes]:
    return dict(hostile_files.hostile(str(canary)))


def test_a_sample_of_hostile_files_is_refused(tmp_path: Path, canary: Path, hostile: dict[str, bytes]) -> None:
    """`make prove` takes all."""
    some = {name: hostile[name] for name in list(hostile)[::16]}
    check(outcomes(tmp_path, some | dict(hostile_files.mutated(tmp_path, 1, 6))), canary)


def test_the_canary_would_sing(tmp_path: Path) -> None:
    """Python's own unpickler runs the very file that is refused above."""
    raw = dict(calling(str(tmp_path / "ran")))["call-posix.system"]
    pickle.loads(raw)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["zip-call-os.system.pt", "zip-laughs.pt", "zip-tensor-huge.pt", "old-giant.pth"])
def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, canary: Path, hostile: dict[str, bytes], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clip.mp4").touch()
    (tmp_path / name).write_bytes(hostile[name])
    assert run(["predict", str(tmp_path / "clip.mp4"), "--checkpoint", str(tmp_path / name)]) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"tin-cli: error: {tmp_path / name} ")
    assert said.err.count("\n") == 1
    assert not canary.exists()


@pytest.mark.prove
@pytest.mark.timeout(1200)
def test_no_hostile_or_mutated_file_does_any_harm(tmp_path: Path, canary: Path, hostile: dict[str, bytes]) -> None:
    mutated = dict(hostile_files.mutated(tmp_path, 7, 600))
    found = outcomes(tmp_path, hostile | mutated)
    check(found, canary)
    assert len(hostile) >= 300
    loaded = sum(one["outcome"] == "loaded" for one in found)
    large = max(found, key=lambda one: one["peak"] - 2 * one["bytes"])
    slow = max(found, key=lambda one: one["seconds"])
    print(
        f"\n{len(found)} files, {len(hostile)} hostile and {len(mutated)} mutated: {len(found) - loaded} refused, {loaded} "
        f"mutated ones load; most memory over twice the size: {(large['peak'] - 2 * large['bytes']) / 2**20:.0f} MB "
        f"({large['name']}); slowest: {slow['seconds']:.1f} s of CPU ({slow['name']})"
    )
