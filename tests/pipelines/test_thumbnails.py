"""Small pictures of what a model saw: the plan's frames and crop, as the loader gives them, and reasons instead of failures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines import ClipSpec, Loader, VideoIndex, VideoList
from pipelines.thumbnails import MAX_FRAMES, seen_frames
from tests.pipelines.videos import listed, rotate_header, write_frames, write_video

SPEC = ClipSpec(num_segments=4, input_size=64, short_side=72)


def seen(videos: VideoList, spec: ClipSpec = SPEC) -> dict[str, np.ndarray | str]:
    return seen_frames(videos.entries, VideoIndex.build(videos, workers=0), spec, workers=0)  # type: ignore[return-value]


@pytest.mark.parametrize("crop", ["center", "ten"])
def test_they_are_the_frames_and_the_crop_that_the_loader_gives(tmp_path: Path, crop: str) -> None:
    turned = rotate_header(write_video(tmp_path / "turned.mp4"), 90)
    videos = listed(tmp_path, [write_video(tmp_path / "a.mp4", frames=30), turned, write_frames(tmp_path / "f", 20)])
    index = VideoIndex.build(videos, workers=0)
    shown = seen(videos, ClipSpec(num_segments=4, input_size=64, short_side=72, test_crop=crop))
    with Loader(
        videos, index, SPEC, batch_size=1, training=False, num_workers=0
    ) as loader:  # the centre is the view that is shown
        for batch, picture in zip(loader, shown.values(), strict=True):
            pixels = batch.frames.permute(0, 2, 3, 1).numpy() * np.array(SPEC.std) + np.array(SPEC.mean)
            assert isinstance(picture, np.ndarray)
            assert picture.shape == (4, 64, 64, 3)
            assert picture.dtype == np.uint8
            assert np.abs(picture - pixels).mean() < 2
            assert np.abs(picture[::-1] - pixels).mean() > 10  # other frames are not like them


def test_long_clips_are_thinned_and_large_frames_made_small(tmp_path: Path) -> None:
    videos = listed(tmp_path, [write_video(tmp_path / "a.mp4", frames=40)])
    spec = ClipSpec(num_segments=32)
    (picture,) = seen(videos, spec).values()
    assert isinstance(picture, np.ndarray)
    assert picture.shape == (MAX_FRAMES, 112, 112, 3)
    blue = picture[..., 2].mean(axis=(1, 2))
    assert (np.diff(blue) > 5).all()


def test_what_cannot_be_read_has_a_reason(tmp_path: Path) -> None:
    good = write_video(tmp_path / "good.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    whole = write_video(tmp_path / "lost.mp4")
    images = write_frames(tmp_path / "f", 8)
    videos = listed(tmp_path, [good, "bad.mp4", "gone.mp4", whole, images])
    index = VideoIndex.build(videos, workers=0)
    whole.unlink()  # after the index has seen them
    (images / "00002.jpg").write_bytes(b"no image")
    found = seen_frames(videos.entries, index, SPEC, workers=1)
    assert [isinstance(found[entry.id], str) for entry in videos.entries] == [False, True, True, True, True]
    assert "cannot be opened as a video" in str(found["bad.mp4"])
    assert found["gone.mp4"] == "no such file"
    assert found[str(whole)] == "no such file"
    assert "an image cannot be read" in str(found[str(images)])
