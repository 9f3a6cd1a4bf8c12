"""Predictions drawn into real videos: the same frames at the same times, upright, and only the panel is new."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.decode import decode_frames
from pipelines.errors import DecodeError
from pipelines.overlay import draw_predictions
from pipelines.probe import VideoInfo, probe
from pipelines.transcode.errors import OutputError

LINES = [("opening a bottle", 0.75), ("closing a bottle", 0.2), ("nothing", 0.0)]


def draw(source: Path, out: Path) -> tuple[VideoInfo, VideoInfo]:
    before = probe(str(source), None, None, False)
    draw_predictions(source, out, LINES, before.num_frames)
    return before, probe(str(out), None, None, True)


def times(path: Path) -> list[float]:
    with av.open(str(path), metadata_errors="ignore") as container:
        shown = sorted(float(p.pts * p.time_base) for p in container.demux(video=0) if p.size and not p.is_discard)
    return [time - shown[0] for time in shown]


@pytest.mark.parametrize(
    "name",
    [
        "k400_arm_wrestling_demo.mp4", "rot_90.mov", "nasa_rotated.mp4", "phone_rot180_vfr.mp4", "odd321x241_vp9.mp4",
        "non_zero_start.mp4", "h264_10bits.mp4", "unordered.mov",
    ],
)  # fmt: skip
def test_the_copy_has_every_frame_at_its_time_upright_in_even_h264(
    real_videos: Path, tmp_path: Path, name: str
) -> None:
    source, out = real_videos / "codecs" / name, tmp_path / "made" / "seen.mp4"
    before, after = draw(source, out)
    assert after.error is None
    assert (after.codec, after.rotation, after.pixel_format) == ("h264", 0, "yuv420p")
    assert after.num_frames == before.num_frames
    assert (after.width, after.height) == (before.width // 2 * 2, before.height // 2 * 2)
    assert times(out) == pytest.approx(times(source), abs=1e-3)
    assert [path.name for path in out.parent.iterdir()] == ["seen.mp4"]


def test_the_panel_covers_the_lower_edge_and_leaves_the_rest(real_videos: Path, tmp_path: Path) -> None:
    source, out = real_videos / "codecs" / "k400_arm_wrestling_demo.mp4", tmp_path / "seen.mp4"
    draw(source, out)
    before, after = (decode_frames(path, [0, 200])[..., 0].astype(int) for path in (source, out))
    change = np.abs(after - before).mean(axis=(0, 2))
    assert change[:150].max() < 6  # what the encoder does
    assert change[-60:-6].min() > 10
    # The bar of the first line ends at three quarters of the width, where its blue stops: on black ground it is the difference.
    colours = decode_frames(out, [0])[0].astype(int)
    first_line = colours[-64 + 6]
    blueness = first_line[:, 2] - first_line[:, 0]
    assert blueness[20:240].mean() > blueness[270:].mean() + 40


def test_the_same_video_gives_the_same_bytes(real_videos: Path, tmp_path: Path) -> None:
    source = real_videos / "codecs" / "rot_270.mov"
    for name in ("a.mp4", "b.mp4"):
        draw(source, tmp_path / name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_tiny_picture_gets_one_line(real_videos: Path, tmp_path: Path) -> None:
    source, out = real_videos / "codecs" / "unordered.mov", tmp_path / "seen.mp4"
    draw(source, out)
    before, after = (decode_frames(path, [0]).astype(int)[0] for path in (source, out))
    assert np.abs(after - before)[:28].mean() < 8


def test_a_damaged_video_leaves_no_copy_and_the_old_one(real_videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "seen.mp4"
    out.write_text("old")
    with pytest.raises(DecodeError, match="decoding fails after 28 of 50 frames"):
        draw_predictions(real_videos / "codecs" / "corrupted.mp4", out, LINES, 50)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["seen.mp4"]


def test_a_place_that_cannot_be_written_is_named(real_videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file/seen\.mp4"):
        draw_predictions(real_videos / "codecs" / "rot_0.mov", tmp_path / "file" / "seen.mp4", LINES, 3)
