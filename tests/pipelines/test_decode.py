"""Decoding: exact frames, upright, whatever the container; shortcuts give the pixels of a full decode."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines import decode
from pipelines.decode import decode_frames
from pipelines.errors import DecodeError
from tests.pipelines.videos import codecs, rotate_header, write_video


def decode_all(path: Path) -> list[NDArray[np.uint8]]:
    """Every frame that PyAV gives, turned upright by the sign convention of FFmpeg's own display filter."""
    frames = []
    with av.open(str(path), metadata_errors="ignore") as container:
        for frame in container.decode(container.streams.video[0]):
            frames.append(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
    return frames


def test_every_real_file_gives_the_frames_of_a_full_decode(real_videos: Path) -> None:
    rng = np.random.default_rng(0)
    for row in codecs(real_videos):
        count, path = int(row["decoded"] or 0), real_videos / "codecs" / row["file"]
        if count == 0 or row["error"] or int(row["w"]) * int(row["h"]) * count > 20_000_000:
            continue
        expected = decode_all(path)
        assert len(expected) == count
        for indices in (rng.integers(0, count, 6), np.array([count - 1, 0])):
            frames = decode_frames(path, indices)
            assert frames.dtype == np.uint8
            for index, frame in zip(indices, frames, strict=True):
                np.testing.assert_array_equal(frame, expected[index], f"{path.name} frame {index}")


def test_shortcuts_are_taken(real_videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file with a keyframe every 12 frames, the last frame alone does not cost a decode from the start."""

    def refuse(*_: object) -> None:
        raise AssertionError("decoded from the start")

    monkeypatch.setattr(decode, "_decode_from_start", refuse)
    decode_frames(real_videos / "codecs" / "ucf101_v_SoccerJuggling_g23_c01.avi", [239, 17])


def test_a_damaged_file_gives_what_precedes_the_damage_and_then_says_where(real_videos: Path) -> None:
    path = real_videos / "codecs" / "corrupted.mp4"
    assert decode_frames(path, [0, 20]).shape == (2, 720, 1280, 3)
    with pytest.raises(DecodeError, match=r"28 frames.*frame 49"):
        decode_frames(path, [0, 49])


def test_a_frame_past_the_end_is_refused_with_counts(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=10)
    with pytest.raises(DecodeError, match="only 10 frames decode; frame 10"):
        decode_frames(path, [10])
    with pytest.raises(DecodeError, match="from 0"):
        decode_frames(path, [-1])


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_videos_come_out_upright(tmp_path: Path, degrees: int) -> None:
    path = write_video(tmp_path / "a.mp4")  # one file: two encodings need not be of the same bits
    upright = decode_frames(path, [0, 5])
    turned = decode_frames(rotate_header(path, degrees), [0, 5])
    np.testing.assert_array_equal(turned, np.rot90(upright, degrees // 90, axes=(1, 2)))


def test_what_is_no_video_is_named_with_the_reason(tmp_path: Path, real_videos: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello, this is no video" * 50)
    reasons = {
        tmp_path / "empty.mp4": "empty",
        tmp_path / "text.mp4": "cannot be opened as a video",
        tmp_path / "missing.mp4": "no such file",
        tmp_path: "folder",
        real_videos / "codecs" / "audio_only_nasa.mp3": "no video stream",
    }
    for path, reason in reasons.items():
        with pytest.raises(DecodeError, match=reason) as caught:
            decode_frames(path, [0])
        assert str(path) in str(caught.value)
