"""The comparison with other readers: it counts what is in full stride, sees a wrong frame, and names what is not installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu_data import data
from benchmarks.peers_data import _rate
from benchmarks.reading.agreement import compare
from pipelines import VideoIndex, VideoList
from tests.conftest import REPOSITORY
from tin.bench.timing import Rounds


class TestRate:
    def test_the_processes_of_a_reader_add_up(self) -> None:
        first = [(0, 10.0 + 0.5 * i, 1) for i in range(9)]
        second = [(1, 10.1 + 0.25 * i, 1) for i in range(17)]
        assert _rate(first + second, since=10.0) == pytest.approx(2 + 4)

    def test_a_batch_counts_from_the_one_before_it(self) -> None:
        assert _rate([(0, 3.0, 8), (0, 5.0, 8), (0, 7.0, 4)], since=2.0) == pytest.approx(12 / 4)

    def test_what_was_ready_before_the_turn_does_not_count(self) -> None:
        turn = [(0, 20.0, 1), (0, 21.0, 1), (0, 22.0, 1)]
        assert _rate([(0, 3.0, 1), *turn], since=19.5) == pytest.approx(1.0)

    def test_a_turn_without_two_clips_of_a_process_is_refused(self) -> None:
        with pytest.raises(SystemExit, match="more --seconds"):
            _rate([(0, 3.0, 1), (1, 4.0, 1)], since=2.0)


class TestAgreement:
    def around(self) -> np.ndarray:
        """(neighbours, T, H, W, 3): frame i is grey 10 · i."""
        levels = 10 * (np.array([3, 9, 15]) + np.arange(-3, 4)[:, None])
        return np.broadcast_to(levels[..., None, None, None], (7, 3, 4, 6, 3)).astype(np.uint8)

    def test_rounding_is_agreement(self) -> None:
        true = self.around()
        near = compare([true[3] + 1], [true])
        assert near == {
            "same_frames": True, "frame_mean_abs": 1.0, "frame_max_abs": 1, "next_frame_mean_abs": 9.0
        }  # fmt: skip

    def test_one_wrong_frame_is_none(self) -> None:
        true = self.around()
        given = true[3].copy()
        given[1] = true[4][1]
        assert not compare([given], [true])["same_frames"]

    def test_nor_are_frames_of_another_size(self) -> None:
        true = self.around()
        assert not compare([true[3][:, :2]], [true])["same_frames"]


@pytest.fixture
def clips(tmp_path: Path, real_videos: Path) -> Path:
    """A list of four real videos."""
    files = sorted((real_videos / "fights" / "fight").iterdir())[:4]
    (tmp_path / "train.txt").write_text("".join(f"{file} 0\n" for file in files))
    return tmp_path / "train.txt"


@pytest.mark.slow
def test_readers_are_compared_on_real_videos(clips: Path) -> None:
    out = clips.parent / "out.json"
    names = ["loader", "decode-only", "pyav", "decord"]
    options = ["--only", *names, "--workers", "1", "--batch-size", "2", "--seconds", "1", "--rounds", "2"]
    result = run("peers_data.py", clips, *options, "--out", out)
    measured = json.loads(out.read_text())["results"]["peers_data"]
    if importlib.util.find_spec("decord") is None:
        assert "decord: not installed" in result
        assert measured["settings"]["not_installed"] == ["decord"]
    rows = {line["name"]: line for line in measured["rows"]}
    assert set(rows) >= {"loader", "decode-only", "pyav"}
    for line in rows.values():
        assert line["samples"] == 2
        assert line["median"] > 0
        assert line["cpu_seconds_per_clip"] > 0
    assert rows["loader"]["ratio_to_decode_only"] > 0
    assert measured["agreement"]["loader"]["same_frames"]
    assert measured["agreement"]["pyav"]["clip_mean_abs"] < 2


@pytest.mark.slow
def test_the_files_of_the_comparison_are_made(tmp_path: Path, real_videos: Path) -> None:
    source = real_videos / "codecs" / "k400_SOX5yA1l24A.mp4"
    asis = real_videos / "codecs" / "ssv2_id166766_webm_named_mp4.mp4"
    run("peer_files.py", tmp_path / "files", source, "--vp9", asis, "--count", "2")
    found = {}
    for folder in sorted((tmp_path / "files").iterdir()):
        videos = VideoList.read(folder / "train.txt")
        index = VideoIndex.build(videos)
        found[folder.name] = [index[entry] for entry in videos.entries]
    assert list(found) == ["gop8", "jpeg", "untouched", "vp9"]
    assert all(len(infos) == 2 and all(info.error is None for info in infos) for infos in found.values())
    assert [info.num_frames for info in found["gop8"]] == [info.num_frames for info in found["untouched"]]
    assert found["gop8"][0].keyframes[:3] == (0, 8, 16)
    assert [(info.codec, info.height, info.num_frames) for info in found["vp9"]] == [("vp9", 240, 48), ("vp9", 240, 49)]
    assert [(info.codec, info.height, info.num_frames) for info in found["jpeg"]] == [("images", 240, 48)] * 2


@pytest.mark.slow
def test_the_gpu_comparison_runs_on_a_processor_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, real_videos: Path
) -> None:
    (tmp_path / "codecs").mkdir()
    (tmp_path / "codecs" / "k400_x.mp4").symlink_to(real_videos / "codecs" / "k400_SOX5yA1l24A.mp4")
    monkeypatch.setenv("TIN_TEST_VIDEOS", str(tmp_path))
    result = data(torch.device("cpu"), Rounds(0, 1), 1, batch_size=2)
    assert json.loads(json.dumps(result)) == result
    assert result["settings"]["videos"] == ["k400_x.mp4"]
    assert [line["name"].partition(",")[0] for line in result["rows"]] == ["untouched"] * 2 + ["gop 8"] * 2
    assert all(line["median"] > 0 for line in result["rows"])
    assert result["rows"][0]["decoder_utilization"] is None


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(REPOSITORY / "benchmarks" / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout
