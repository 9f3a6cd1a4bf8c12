"""`tin-cli data check`: findings are lines, a JSON file and exit status 1; a clean list is status 0."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.videos import write_video


@pytest.fixture
def data(tmp_path: Path, real_videos: Path) -> Path:
    """One sound file, one whose damage shows on decoding alone, one that is not there."""
    write_video(tmp_path / "good.mp4")
    shutil.copy(real_videos / "codecs" / "corrupted.mp4", tmp_path)
    (tmp_path / "list.txt").write_text("good.mp4 0\ncorrupted.mp4 0\ngone.mp4 1\n")
    (tmp_path / "sound.txt").write_text("good.mp4 0\n")
    return tmp_path


def test_without_deep_only_what_the_index_knows_is_found(cli: Callable, data: Path) -> None:
    result = cli("data", "check", data / "list.txt")
    assert (result.status, result.err) == (1, "")
    assert result.out.splitlines() == [
        "gone.mp4: unreadable: no such file",
        "1 of 3 videos have something wrong with them (by the index; --deep decodes them): unreadable 1",
    ]


def test_deep_decodes_and_writes_what_it_finds(cli: Callable, data: Path) -> None:
    result = cli("data", "check", data / "list.txt", "--deep", "--workers", 1, "--out", data / "new" / "findings.json")
    assert (result.status, result.err) == (1, "")
    lines = result.out.splitlines()
    assert lines[0].startswith("corrupted.mp4: decode error: decoding fails after 28 of 50 frames")
    assert lines[1] == "gone.mp4: unreadable: no such file"
    assert lines[2].endswith("(decoded whole): decode error 1, unreadable 1")
    found = json.loads((data / "new" / "findings.json").read_text())
    assert (found["videos"], found["deep"], found["list"]) == (3, True, str(data / "list.txt"))
    assert [(finding["id"], finding["kind"]) for finding in found["findings"]] == [
        ("corrupted.mp4", "decode error"),
        ("gone.mp4", "unreadable"),
    ]


def test_a_sound_list_is_status_0(cli: Callable, data: Path) -> None:
    result = cli("data", "check", data / "sound.txt", "--deep", "--workers", 1)
    assert (result.status, result.err) == (0, "")
    assert result.out == "0 of 1 videos have something wrong with them (decoded whole)\n"


def test_a_file_that_takes_too_long_is_a_hang(cli: Callable, real_videos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("vfr_gap_1080p_demo_skeleton.mp4 0\n")
    options = ("--root", real_videos / "codecs", "--deep", "--seconds", 0.01, "--workers", 1)
    result = cli("data", "check", tmp_path / "list.txt", *options)
    assert result.status == 1
    assert result.out.startswith("vfr_gap_1080p_demo_skeleton.mp4: hang: not decoded within 0.01 seconds\n")


def test_mistakes_are_one_line_and_status_2(cli: Callable, data: Path) -> None:
    result = cli("data", "check", data / "nowhere.txt")
    assert (result.status, result.out) == (2, "")
    result = cli("data", "check", data / "list.txt", "--deep", "--seconds", 0)
    assert result.status == 2
    assert "--seconds" in result.err
    result = cli("data", "check", data / "sound.txt", "--out", data / "sound.txt" / "x.json")
    assert result.status == 2
    assert "cannot write" in result.err


def test_help_has_an_example(cli: Callable) -> None:
    assert "\n  tin-cli data check data/mine/train.txt --deep" in cli("data", "check", "--help").out
