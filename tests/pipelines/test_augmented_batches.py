"""Augmentation through the loader, on real videos: what is asked for reaches the batch, and is the same on every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import Batch, ClipSpec, Loader, VideoIndex, VideoList
from pipelines.errors import SettingsError
from tests.pipelines.videos import listed

NAMES = ["vp9_640x480.webm", "k400_SOX5yA1l24A.mp4", "odd321x241_vp9.mp4", "ucf101_v_ApplyEyeMakeup_g01_c01.avi"]
SMALL = {"num_segments": 4, "input_size": 64, "short_side": 80}


@pytest.fixture(scope="module")
def videos(real_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoList, VideoIndex]:
    video_list = listed(tmp_path_factory.mktemp("list"), NAMES, real_videos / "codecs")
    return video_list, VideoIndex.build(video_list)


def batches(
    videos: tuple[VideoList, VideoIndex], spec: dict[str, Any], *, epoch: int = 0, start: int = 0, **options: Any
) -> list[Batch]:
    settings = {"batch_size": 4, "training": True, "seed": 1, "num_workers": 0, **options}
    with Loader(*videos, ClipSpec(**{**SMALL, **spec}), **settings) as loader:
        loader.set_epoch(epoch, start)
        return list(loader)


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.frames, b.frames) and torch.equal(a.labels, b.labels) and np.array_equal(a.ids, b.ids)
        for a, b in zip(one, other, strict=True)
    )


EVERYTHING = {
    "train_crop": "random_resized",
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    "flip_labels": (1, 0, 3, 2),
}


def test_batches_repeat_with_any_number_of_workers_and_from_any_step(videos: tuple[VideoList, VideoIndex]) -> None:
    options = {"repeats": 2, "class_balanced": 0.5, "batch_size": 2}
    whole = batches(videos, EVERYTHING, **options)
    assert len(whole) == 4
    assert same(whole, batches(videos, EVERYTHING, **options, num_workers=2))
    assert same(whole[3:], batches(videos, EVERYTHING, **options, start=3))
    assert not same(whole, batches(videos, EVERYTHING, **options, epoch=1))


def test_jitter_changes_the_pixels_of_a_batch_and_nothing_else(videos: tuple[VideoList, VideoIndex]) -> None:
    plain, colorful = batches(videos, {}), batches(videos, {"color_jitter": EVERYTHING["color_jitter"]})
    for before, after in zip(plain, colorful, strict=True):
        assert np.array_equal(before.ids, after.ids)
        assert torch.equal(before.labels, after.labels)
        change = (before.frames - after.frames).abs().reshape(4, -1).mean(1)
        assert change.min() > 0.02
        gray = [batch.frames.mean(1).reshape(4, -1) for batch in (before, after)]
        likeness = [torch.corrcoef(torch.stack([a, b]))[0, 1].item() for a, b in zip(*gray, strict=True)]
        assert min(likeness) > 0.9  # the same frames, in the same places
    tested = batches(videos, {"color_jitter": EVERYTHING["color_jitter"]}, training=False)
    assert same(tested, batches(videos, {}, training=False))


def test_mirrored_clips_come_with_the_partners_label(videos: tuple[VideoList, VideoIndex]) -> None:
    (plain,) = batches(videos, {"flip": 0})
    (mirrored,) = batches(videos, {"flip": 1, "flip_labels": (1, 0, 2, -1)})
    partners = {0: 1, 1: 0, 2: 2, 3: 3}
    assert mirrored.labels.tolist() == [partners[label] for label in plain.labels.tolist()]
    for n, label in enumerate(plain.labels.tolist()):
        ours, theirs = (batch.frames.view(4, 4, 3, 64, 64)[n] for batch in (plain, mirrored))
        torch.testing.assert_close(theirs, ours if label == 3 else ours.flip(-1))


def test_copies_of_a_video_are_drawn_differently_and_the_first_is_the_plain_one(
    videos: tuple[VideoList, VideoIndex],
) -> None:
    (plain,) = batches(videos, {})
    steps = batches(videos, {}, repeats=4, batch_size=4)
    assert len(steps) == 4
    for batch, video in zip(steps, plain.ids, strict=True):
        assert batch.ids.tolist() == [video] * 4
        copies = batch.frames.reshape(4, -1)
        assert all(not torch.equal(copies[a], copies[b]) for a in range(4) for b in range(a))
        n = plain.ids.tolist().index(video)
        assert torch.equal(copies[0], plain.frames.reshape(4, -1)[n])


def test_balanced_epochs_draw_videos_with_replacement(videos: tuple[VideoList, VideoIndex]) -> None:
    epochs = [batches(videos, {}, class_balanced=1.0, epoch=epoch)[0].ids.tolist() for epoch in range(8)]
    assert any(len(set(ids)) < 4 for ids in epochs)
    assert {id for ids in epochs for id in ids} == {0, 1, 2, 3}


def test_testing_takes_as_many_clips_as_asked(videos: tuple[VideoList, VideoIndex]) -> None:
    (batch,) = batches(videos, {"test_clips": 3, "test_crop": "three"}, training=False)
    assert batch.num_views == 9
    assert batch.frames.shape[0] == 4 * 9 * 4
    (fine,) = batches(videos, {"num_segments": 12}, training=False)
    one = batches(videos, {"test_clips": 3}, training=False)[0].frames.view(4, 3, 4, 3, 64, 64)
    assert torch.equal(one.transpose(1, 2).reshape(4, 12, 3, 64, 64), fine.frames.view(4, 12, 3, 64, 64))


def test_a_loader_refuses_orders_that_cannot_be_made(videos: tuple[VideoList, VideoIndex]) -> None:
    for options, word in (
        ({"repeats": 3}, "3 times"),
        ({"repeats": 0}, "repeats 0"),
        ({"class_balanced": 2}, "class_balanced 2"),
    ):
        with pytest.raises(SettingsError, match=word):
            Loader(*videos, ClipSpec(**SMALL), batch_size=4, training=True, **options)  # type: ignore[arg-type]
