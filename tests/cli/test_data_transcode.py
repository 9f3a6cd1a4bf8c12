"""`tin-cli data transcode`: a list in, a data set that trains out; one clear line for every mistake."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import VideoIndex, VideoList
from pipelines.transcode import pick_encoder
from tests.conftest import REPOSITORY
from tests.pipelines.videos import write_video


@pytest.fixture
def videos(real_videos: Path, tmp_path: Path) -> Path:
    """A list of two real videos and two that cannot be read."""
    codecs = real_videos / "codecs"
    (tmp_path / "labels.txt").write_text("jumping\nturning\n")
    (tmp_path / "bad.mp4").write_bytes(b"this is not a video")
    lines = (f"{codecs / 'rot_90.mov'} 1", "bad.mp4 0", f"{codecs / 'odd321x241_vp9.mp4'} 0", "missing.mp4 1")
    (tmp_path / "train.txt").write_text("".join(f"{line}\n" for line in lines))
    return tmp_path / "train.txt"


def test_the_copies_are_a_data_set_and_a_second_run_keeps_them(cli: Callable, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = cli("data", "transcode", videos, out, "--short-side", 128, "--gop", 4, "--workers", 1)
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(f"encoder {pick_encoder()[0]}: NVENC ")
    assert re.search(rf"\n2 of 4 videos in {out / 'train.txt'}: 2 copied \(\d+\.\d s\)\n", result.out)
    assert re.search(r"\n  bytes   [\d.]+ kB → [\d.]+ kB\n", result.out)
    assert (
        f"\n2 unreadable, left out and listed in {out / 'unreadable.txt'}:\n  bad.mp4: cannot be opened" in result.out
    )
    assert result.out.endswith("  missing.mp4: no such file\n")
    copies = VideoList.read(out / "train.txt")
    assert copies.labels == ["jumping", "turning"]
    assert [entry.label for entry in copies.entries] == [1, 0]
    index = VideoIndex.build(copies, workers=0)
    assert [min(index[entry].width, index[entry].height) for entry in copies.entries] == [128, 128]
    assert [index[entry].keyframes for entry in copies.entries] == [(0,), (0, 4, 8, 12, 16, 20, 24)]
    result = cli("data", "transcode", videos, out, "--short-side", 128, "--gop", 4)
    assert ": 0 copied, 2 were already there (" in result.out
    assert f"that of the copies in {out}\n" in result.out


def test_other_settings_for_the_same_folder_are_one_clear_line(cli: Callable, videos: Path, tmp_path: Path) -> None:
    assert cli("data", "transcode", videos, tmp_path / "out", "--encoder", "libx264").status == 0
    result = cli("data", "transcode", videos, tmp_path / "out", "--encoder", "libx264", "--preset", "fast")
    assert result.status == 2
    assert "holds videos transcoded with preset veryfast, not fast; give the same settings" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gop", 0), "Invalid value for '--gop'"),
        (("--short-side", 255), "short_side 255: give an even number"),
        (("--crf", 52), "Invalid value for '--crf'"),
        (("--encoder", "libx264", "--preset", "p4"), "preset 'p4' is none of libx264's"),
        (("--encoder", "mpeg4"), "Invalid value for '--encoder'"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_made(
    cli: Callable, videos: Path, tmp_path: Path, options: tuple, message: str
) -> None:
    result = cli("data", "transcode", videos, tmp_path / "out", *options)
    assert result.status == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_clear_line(cli: Callable, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = cli("data", "transcode", videos, tmp_path / "file" / "out", "--encoder", "libx264")
    assert result.status == 2
    assert f"cannot write {tmp_path / 'file' / 'out'}: Not a directory" in result.err


def test_ctrl_c_ends_it_and_the_next_run_completes_it(cli: Callable, tmp_path: Path) -> None:
    names = [write_video(tmp_path / f"{number}.mp4", frames=30, size=(360, 640)).name for number in range(8)]
    (tmp_path / "l.txt").write_text("".join(f"{name} 0\n" for name in names))
    command = [sys.executable, "-m", "cli.main", "data", "transcode", "l.txt", "out", "--workers", "1"]
    with subprocess.Popen(
        command, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "out").glob("*.mp4")):
            assert time.monotonic() < deadline, "hangs"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors.strip()) == (130, "tin-cli: error: interrupted")
    assert not (tmp_path / "out" / ".unfinished").exists()
    result = cli("data", "transcode", tmp_path / "l.txt", tmp_path / "out")
    assert re.search(r"8 of 8 videos in .*: [1-7] copied, [1-7] were already there", result.out)


def test_help_has_an_example(cli: Callable) -> None:
    result = cli("data", "transcode", "--help")
    assert result.status == 0
    assert "tin-cli data transcode [OPTIONS] LIST OUT" in result.out
    assert "\n  tin-cli data transcode k400/train.txt " in result.out
