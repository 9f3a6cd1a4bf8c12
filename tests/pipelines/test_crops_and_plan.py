"""Crops have MMAction2's sizes, places and probabilities; plans are pure functions and refuse absurd settings."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import crops
from pipelines.annotations import VideoEntry
from pipelines.errors import SettingsError
from pipelines.index import VideoInfo
from pipelines.plan import ClipSpec, make_plan

ENTRY = VideoEntry(Path("a.mp4"), 3, "a.mp4")
INFO = VideoInfo(num_frames=300, fps=30.0, width=427, height=240, codec="h264")
FROZEN_INDICES = [27, 38, 74, 129, 163, 190, 241, 264]
FROZEN_BOX = [15.0, 106.984615385, 210.0, 210.215384615]
FROZEN_FLIP = False
FROZEN_COPY_INDICES = [23, 66, 98, 133, 158, 192, 228, 284]
FROZEN_RESIZED_BOX = [2.8125, 210.215384615, 126.5625, 163.292307692]
FROZEN_COLOR = [0.925245, 1.0, 1.0, -11.815564]


@pytest.mark.parametrize(
    ("size", "resized"),
    [((100, 176), (256, 451)), ((240, 427), (256, 455)), ((427, 240), (455, 256)), ((80, 80), (256, 256))],
)
def test_short_side_rounds_as_the_peers(size: tuple[int, int], resized: tuple[int, int]) -> None:
    assert crops.resized_size(*size, 256) == resized


def test_multi_scale_crop_draws_all_ten_pairs_and_all_places_equally() -> None:
    rng = np.random.default_rng(0)
    boxes = [crops.multi_scale_crop(256, 455, rng) for _ in range(20_000)]
    sizes = Counter((w, h) for _, _, h, w in boxes)
    sides = (256, 224, 192, 168)
    assert set(sizes) == {(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1}
    assert all(abs(count - 2000) < 5 * np.sqrt(2000 * 0.9) for count in sizes.values())
    square = Counter((y, x) for y, x, h, w in boxes if (w, h) == (192, 192))
    dy, dx = (256 - 192) // 4, (455 - 192) // 4
    assert set(square) == {(0, 0), (0, 4 * dx), (4 * dy, 0), (4 * dy, 4 * dx), (2 * dy, 2 * dx)}
    expected = sum(square.values()) / 5
    assert all(abs(count - expected) < 5 * np.sqrt(expected * 0.8) for count in square.values())


def test_thirteen_places_and_snapping_to_the_input_size() -> None:
    rng = np.random.default_rng(0)
    boxes = {crops.multi_scale_crop(222, 400, rng, scales=(1.0,), num_offsets=13) for _ in range(2000)}
    assert {box[3] for box in boxes} == {224}  # 222 is within 3 of 224
    assert {box[2] for box in boxes} == {222}  # …but a frame 222 high has no 224
    boxes = {crops.multi_scale_crop(256, 455, rng, scales=(0.75,), num_offsets=13) for _ in range(2000)}
    assert len(boxes) == 13


def test_fixed_crops() -> None:
    assert crops.center_crop(256, 455, 224) == (16, 115, 224, 224)
    assert crops.three_crop(256, 455) == [(0, 0, 256, 256), (0, 198, 256, 256), (0, 99, 256, 256)]
    assert crops.three_crop(455, 256) == [(0, 0, 256, 256), (198, 0, 256, 256), (99, 0, 256, 256)]
    ten = crops.ten_crop(256, 340, 224)
    assert [flip for _, flip in ten] == [False, True] * 5
    assert [box[:2] for box, _ in ten[::2]] == [(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)]


def test_boxes_map_back_to_source_pixels() -> None:
    assert crops.to_source((0, 0, 256, 455), (256, 455), (240, 427)) == pytest.approx((0, 0, 240, 427))
    plan = make_plan(ENTRY, INFO, ClipSpec(), training=False, seed=0, epoch=0, id=0)
    assert plan.boxes.tolist() == [pytest.approx([16 * 240 / 256, 115 * 427 / 455, 210, 224 * 427 / 455])]


def test_a_plan_depends_on_seed_epoch_and_id_alone() -> None:
    def plan(seed: int, epoch: int, id: int) -> Any:
        p = make_plan(ENTRY, INFO, ClipSpec(), training=True, seed=seed, epoch=epoch, id=id)
        return p.indices.tolist(), p.boxes.tolist(), p.flips.tolist(), p.label, p.id

    assert plan(1, 2, 3) == plan(1, 2, 3)
    others = [plan(2, 2, 3), plan(1, 3, 3), plan(1, 2, 4), plan(2, 1, 3), plan(3, 2, 1)]
    assert all(other[0] != plan(1, 2, 3)[0] for other in others)


def test_a_plan_is_the_same_in_every_release() -> None:
    """Resuming a run with a newer version must meet the same clips, so these draws may not change."""
    plan = make_plan(ENTRY, INFO, ClipSpec(), training=True, seed=7, epoch=1, id=5)
    assert plan.indices.tolist() == [FROZEN_INDICES]
    assert plan.boxes.tolist() == [pytest.approx(FROZEN_BOX)]
    assert plan.flips.tolist() == [FROZEN_FLIP]


def test_copies_and_random_resized_crops_are_the_same_in_every_release() -> None:
    """As above, of what an epoch with repeats and other crops draws; the first copy is the clip without repeats."""
    spec = ClipSpec(train_crop="random_resized", color_jitter={"brightness": 0.4, "hue": 0.1})  # type: ignore[arg-type]
    plans = [make_plan(ENTRY, INFO, spec, training=True, seed=7, epoch=1, id=5, copy=copy) for copy in range(2)]
    assert [plan.indices.tolist() for plan in plans] == [[FROZEN_INDICES], [FROZEN_COPY_INDICES]]
    assert plans[1].boxes.tolist() == [pytest.approx(FROZEN_RESIZED_BOX)]
    assert plans[1].color is not None
    assert plans[1].color.tolist() == pytest.approx(FROZEN_COLOR, rel=1e-5)


def test_training_flips_as_often_as_asked_and_stays_inside_the_frame() -> None:
    plans = [make_plan(ENTRY, INFO, ClipSpec(flip=0.25), training=True, seed=0, epoch=0, id=i) for i in range(2000)]
    assert abs(sum(bool(p.flips[0]) for p in plans) - 500) < 100
    for p in plans:
        y, x, h, w = p.boxes[0]
        assert y >= 0
        assert x >= 0
        assert y + h <= 240 + 1e-9
        assert x + w <= 427 + 1e-9


@pytest.mark.parametrize(
    ("settings", "views"),
    [
        ({}, 1),
        ({"test_crop": "three"}, 3),
        ({"test_sampling": "twice"}, 2),
        ({"test_sampling": "dense_test", "test_crop": "ten"}, 100),
        ({"test_clips": 4}, 4),
        ({"test_clips": 4, "test_crop": "three"}, 12),
        ({"test_clips": 3, "test_sampling": "dense_test", "test_crop": "ten"}, 30),
    ],
)
def test_views_are_crops_times_clips(settings: dict[str, Any], views: int) -> None:
    spec = ClipSpec(**settings)
    plan = make_plan(ENTRY, INFO, spec, training=False, seed=0, epoch=0, id=0)
    assert plan.num_views == spec.num_views(training=False) == views
    assert plan.indices.shape[1] == 8
    assert spec.num_views(training=True) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_segments", 0), ("num_segments", 2.5), ("num_segments", True), ("input_size", -1), ("input_size", 300),
        ("short_side", 10**9), ("train_sampling", "trian"), ("test_sampling", "train"), ("train_crop", "centre"),
        ("test_crop", "five"), ("scales", ()), ("scales", (1.5,)), ("num_crop_offsets", 6), ("flip", 1.5),
        ("test_clips", 0), ("test_clips", 2.5), ("crop_area", (0.5, 0.1)), ("crop_area", (0, 1)), ("crop_area", (0.1, 1.1)),
        ("crop_aspect", (1,)), ("crop_aspect", (0.5, 1000)), ("color_jitter", {"brightness": -1}),
        ("color_jitter", {"bright": 1}), ("color_jitter", True),
        ("flip", "yes"), ("mean", (1, 2)), ("mean", (float("nan"), 1, 1)), ("std", (0, 1, 1)),
    ],
)  # fmt: skip
def test_absurd_settings_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=field):
        ClipSpec(**{field: value})


def test_a_misspelt_choice_gets_a_suggestion() -> None:
    with pytest.raises(SettingsError, match=re.escape("did you mean 'train'?")):
        ClipSpec(train_sampling="trian")


def test_specs_are_immutable_values() -> None:
    assert ClipSpec(scales=[1, 0.5]) == ClipSpec(scales=(1, 0.5))  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        ClipSpec().flip = 0  # type: ignore[misc]
