"""`tin-cli data`: real folders, real videos, and one clear line for every mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import VideoIndex, VideoList

TINY = ("--train", 16, "--val", 8, "--size", 64, "--frames", 8)


def test_motion_writes_a_data_set_that_the_index_can_read(cli: Callable, tmp_path: Path) -> None:
    out = tmp_path / "motion"
    result = cli("data", "motion", out, *TINY)
    assert (result.status, result.err) == (0, "")
    assert re.fullmatch(rf"24 clips written to {out} \(\d+\.\d s\)\n", result.out)
    result = cli("data", "motion", out, *TINY)
    assert f"0 clips written to {out}, 24 were already there" in result.out
    result = cli("data", "index", out / "train.txt", "--workers", 2)
    assert (result.status, result.err) == (0, "")
    assert "16 of 16 videos readable, 128 frames in all" in result.out
    assert "h264 8, vp9 8" in result.out
    assert "64×64 16" in result.out
    assert "unreadable" not in result.out


@pytest.mark.slow
def test_motion_runs_as_a_process_of_its_own_with_spawned_workers(tin_cli: Callable, tmp_path: Path) -> None:
    result = tin_cli("data", "motion", "set", *TINY, "--workers", 2, cwd=tmp_path)
    assert (result.status, result.err) == (0, "")
    assert len(list((tmp_path / "set" / "videos").rglob("*.*"))) == 24


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--train", 12), "train 12: give a positive multiple of 8"),
        (("--frames", 16), "frames 16: give 8 times an odd number"),
        (("--size", 2000), "Invalid value for '--size'"),
        (("--workers", 0), "Invalid value for '--workers'"),
        (("--seed", "x"), "'x' is not a valid integer"),
    ],
)
def test_motion_refuses_what_it_cannot_do(cli: Callable, tmp_path: Path, options: tuple, message: str) -> None:
    result = cli("data", "motion", tmp_path / "set", *options)
    assert (result.status, result.out) == (2, "")
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_motion_refuses_a_folder_with_other_settings(cli: Callable, tmp_path: Path) -> None:
    assert cli("data", "motion", tmp_path / "set", *TINY).status == 0
    result = cli("data", "motion", tmp_path / "set", *TINY, "--seed", 5)
    assert result.status == 2
    assert "holds a motion data set of seed 0, not 5" in result.err


def test_prepare_folder_lists_real_videos_and_the_lists_read_back(
    cli: Callable, real_videos: Path, tmp_path: Path
) -> None:
    result = cli("data", "prepare", "folder", real_videos / "fights", "--out", tmp_path / "lists", "--val", 0.2)
    assert (result.status, result.err) == (0, "")
    assert "48 videos in" in result.out
    assert "12 in" in result.out
    train = VideoList.read(tmp_path / "lists" / "train.txt")
    assert train.labels == ["fight", "nofight"]
    assert all(entry.path.is_file() for entry in train.entries)


def test_prepare_folder_says_what_it_left_out_and_shows_odd_class_names(cli: Callable, tmp_path: Path) -> None:
    for path in ("[bold]/a.mp4", "[bold]/b.mp4", "[bold]/readme.txt", "docs/x.pdf"):
        (tmp_path / "in" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / path).touch()
    result = cli("data", "prepare", "folder", tmp_path / "in", "--out", tmp_path / "out")
    assert "[bold]" in result.out
    assert "1 other files in the class folders" in result.out
    assert "no class, because there is no video in it: docs" in result.out


@pytest.mark.parametrize("val", ["0", "1", "half"])
def test_prepare_folder_refuses_impossible_parts(cli: Callable, tmp_path: Path, val: str) -> None:
    result = cli("data", "prepare", "folder", tmp_path, "--out", tmp_path / "out", "--val", val)
    assert result.status == 2
    assert "--val" in result.err


def test_prepare_folder_without_videos_is_one_clear_line(cli: Callable, tmp_path: Path) -> None:
    result = cli("data", "prepare", "folder", tmp_path, "--out", tmp_path / "out")
    assert result.status == 2
    assert result.err.startswith("tin-cli: error: no videos in")
    assert result.err.count("\n") == 1


def test_index_names_unreadable_videos_and_their_reasons(cli: Callable, real_videos: Path, tmp_path: Path) -> None:
    good = next((real_videos / "fights" / "fight").glob("*.mp4"))
    (tmp_path / "bad.mp4").write_bytes(b"this is not a video")
    (tmp_path / "list.txt").write_text(f"{good} 0\nbad.mp4 1\nmissing.mp4 1\n")
    result = cli("data", "index", tmp_path / "list.txt")
    assert result.status == 0
    assert "1 of 3 videos readable" in result.out
    assert "2 unreadable:\n  bad.mp4: " in result.out
    assert re.search(r"\n  missing\.mp4: .+", result.out)
    videos = VideoList.read(tmp_path / "list.txt")
    index = VideoIndex.build(videos)
    assert f"{index[videos.entries[0]].num_frames} frames in all" in result.out


def test_index_finds_files_below_another_root_and_verifies(cli: Callable, real_videos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("corrupted.mp4 0\n")
    result = cli("data", "index", tmp_path / "list.txt", "--root", real_videos / "codecs", "--verify")
    assert "0 of 1 videos readable" in result.out
    assert "corrupted.mp4: decoding fails after 28 of 50 frames" in result.out


def test_index_of_a_broken_list_names_file_and_line(cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.mp4 1\nc.mp4 one\n")
    result = cli("data", "index", tmp_path / "list.txt")
    assert result.status == 2
    assert f"{tmp_path / 'list.txt'}:3:" in result.err


@pytest.mark.parametrize(
    "command",
    ["motion", "prepare", "prepare k400", "prepare sthv1", "prepare sthv2", "prepare list", "prepare folder", "index"],
)
def test_help_has_an_example(cli: Callable, command: str) -> None:
    result = cli("data", *command.split(), "--help")
    assert result.status == 0
    assert f"\n  tin-cli data {command} " in result.out
