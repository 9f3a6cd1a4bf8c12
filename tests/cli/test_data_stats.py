"""`tin-cli data stats`: one table, one picture, and one clear line for every mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.videos import write_frames, write_video


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", frames=16 + 8 * number)
    (tmp_path / "list.txt").write_text("0.mp4 0\n1.mp4 2\n2.mp4 2\ngone.mp4 1\n")
    return tmp_path


def row(out: str, name: str) -> list[str]:
    return re.search(rf"^ *{re.escape(name)} +(.+?) *$", out, re.MULTILINE)[1].split()  # type: ignore[index]


def test_the_table_has_lengths_codecs_groups_classes_and_cost(cli: Callable, data: Path) -> None:
    result = cli("data", "stats", data / "list.txt", "--png", data / "out" / "a.png")
    assert (result.status, result.err) == (0, "")
    assert "3 of 4 videos readable, 72 frames, " in result.out
    assert row(result.out, "frames")[:5] == ["16", "16.8", "24", "31.2", "32"]
    assert row(result.out, "seconds")[2] == "0.96"
    assert 4 < float(row(result.out, "frames a keyframe")[2]) <= 8
    assert 1 < float(row(result.out, "decode cost")[2]) < 5
    assert row(result.out, "codecs") == ["h264", "3"]
    assert row(result.out, "sizes") == ["160×96", "3"]
    assert row(result.out, "classes") == ["3,", "0", "to", "2", "videos", "each"]
    assert f"picture           {data / 'out' / 'a.png'}" in result.out
    assert (data / "out" / "a.png").read_bytes().startswith(b"\x89PNG")


def test_more_segments_decode_more_but_less_for_each(cli: Callable, data: Path) -> None:
    png = ("--png", data / "a.png")
    costs = [
        float(row(cli("data", "stats", data / "list.txt", "--num-segments", segments, *png).out, "decode cost")[2])
        for segments in (2, 16)
    ]
    assert costs[0] > costs[1]


def test_the_picture_is_named_after_the_list(cli: Callable, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    assert "list.stats.png" in cli("data", "stats", "list.txt").out
    assert (data / "list.stats.png").is_file()


def test_frame_folders_of_any_template(cli: Callable, tmp_path: Path) -> None:
    write_frames(tmp_path / "a", 5, template="x{:03}.jpg")
    (tmp_path / "list.txt").write_text("a 5 0\n")
    result = cli("data", "stats", tmp_path / "list.txt", "--template", "x{:03}.jpg", "--png", tmp_path / "a.png")
    assert result.status == 0
    assert row(result.out, "frames")[:1] == ["5"]
    assert row(result.out, "codecs") == ["images", "1"]


def test_nothing_readable_and_no_place_for_the_picture_are_one_line(cli: Callable, data: Path) -> None:
    (data / "empty.txt").write_text("gone.mp4 0\n")
    result = cli("data", "stats", data / "empty.txt", "--png", data / "a.png")
    assert result.status == 2
    assert result.err == "tin-cli: error: no video of empty is readable: there is nothing to draw\n"
    result = cli("data", "stats", data / "list.txt", "--png", data / "list.txt" / "a.png")
    assert result.status == 2
    assert "cannot write the picture" in result.err
    assert result.err.count("\n") == 1


def test_help_has_an_example(cli: Callable) -> None:
    assert "\n  tin-cli data stats data/mine/train.txt" in cli("data", "stats", "--help").out
