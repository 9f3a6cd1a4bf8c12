"""Random crops have the distributions that MMAction2's and torchvision's definitions give, and never leave the frame."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from pipelines import crops
from pipelines.annotations import VideoEntry
from pipelines.index import VideoInfo
from pipelines.plan import ClipSpec, make_plan

SIDES = (256, 224, 192, 168)
PAIRS = [(w, h) for i, w in enumerate(SIDES) for j, h in enumerate(SIDES) if abs(i - j) <= 1]
FIVE = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2)]
THIRTEEN = [*FIVE, (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3)]
UNLIKELY = 1e-3  # of a fixed seed: a right implementation passes for good, a wrong one is off by many orders


@pytest.mark.parametrize(("places", "offsets"), [(5, FIVE), (13, THIRTEEN)])
def test_multi_scale_crops_are_every_pair_at_every_place_alike(places: int, offsets: list[tuple[int, int]]) -> None:
    height, width, draws = 300, 460, 400 * len(PAIRS) * places  # high enough that the largest side has places to be
    rng = np.random.default_rng(places)
    drawn = Counter(
        crops.multi_scale_crop(height, width, rng, scales=(0.854, 0.747, 0.64, 0.56), num_offsets=places)
        for _ in range(draws)
    )
    boxes = [
        (row * ((height - h) // 4), column * ((width - w) // 4), h, w) for w, h in PAIRS for column, row in offsets
    ]
    assert set(drawn) == set(boxes)
    assert stats.chisquare([drawn[box] for box in boxes]).pvalue > UNLIKELY


def test_random_resized_crops_are_distributed_as_torchvisions() -> None:
    height, width, draws = 256, 455, 4000
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    image = torch.empty(3, height, width)
    ours = np.array([crops.random_resized_crop(height, width, rng) for _ in range(draws)])
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(draws)])
    for name, of in {
        "area": lambda box: box[:, 2] * box[:, 3],
        "aspect": lambda box: box[:, 3] / box[:, 2],
        "row": lambda box: box[:, 0] / np.maximum(1, height - box[:, 2]),
        "column": lambda box: box[:, 1] / np.maximum(1, width - box[:, 3]),
    }.items():
        assert stats.ks_2samp(of(ours), of(theirs)).pvalue > UNLIKELY, name


def test_random_resized_crops_have_the_area_and_aspect_of_the_definition() -> None:
    """In a square frame and below half its area no draw is refused, so both are exactly uniform, but for whole pixels."""
    rng = np.random.default_rng(2)
    boxes = np.array([crops.random_resized_crop(4000, 4000, rng, area=(0.1, 0.5)) for _ in range(5000)])
    area, aspect = boxes[:, 2] * boxes[:, 3] / 4000**2, boxes[:, 3] / boxes[:, 2]
    assert stats.kstest(area, "uniform", (0.1, 0.4)).pvalue > UNLIKELY
    assert stats.kstest(np.log(aspect), "uniform", (np.log(0.75), np.log(16 / 9))).pvalue > UNLIKELY
    assert abs(stats.pearsonr(area, aspect).statistic) < 0.05


@pytest.mark.parametrize("size", [(10, 2000), (2000, 10), (1, 1), (7, 1000), (300, 310)])
def test_frames_that_no_draw_fits_get_torchvisions_middle(size: tuple[int, int]) -> None:
    image = torch.empty(3, *size)
    theirs = RandomResizedCrop.get_params(image, [50.0, 60.0], [3 / 4, 4 / 3])
    y, x, h, w = crops.random_resized_crop(*size, np.random.default_rng(0), area=(50.0, 60.0))
    assert (y, x, h, w) == tuple(theirs)


SPECS = [
    *(ClipSpec(train_crop=crop) for crop in ("multi_scale", "random_resized", "center")),
    ClipSpec(num_crop_offsets=13, scales=(1.0, 0.001), input_size=1, short_side=1),
    ClipSpec(train_crop="random_resized", crop_area=(1e-6, 1e-6), crop_aspect=(0.01, 100)),
    *(ClipSpec(test_crop=crop, input_size=size) for crop in ("center", "three", "ten") for size in (1, 255, 256)),
]


@given(
    height=st.integers(1, 20_000), width=st.integers(1, 20_000), spec=st.sampled_from(SPECS), seed=st.integers(0, 2**31)
)
def test_boxes_are_inside_the_frame_whatever_its_size(height: int, width: int, spec: ClipSpec, seed: int) -> None:
    info = VideoInfo(num_frames=9, fps=25.0, width=width, height=height, codec="h264")
    for training in (True, False):
        plan = make_plan(VideoEntry(Path("a"), 0, "a"), info, spec, training=training, seed=seed, epoch=0, id=0)
        y, x, h, w = plan.boxes.T
        assert min(h.min(), w.min()) > 0
        assert min(y.min(), x.min()) >= 0
        assert (y + h).max() <= height * (1 + 1e-12)
        assert (x + w).max() <= width * (1 + 1e-12)


def test_fixed_crops_of_test_views_cover_what_they_say() -> None:
    assert crops.three_crop(256, 256) == [(0, 0, 256, 256)] * 3
    ten = crops.ten_crop(256, 455, 224)
    assert len(set(ten)) == 10
    assert [box for box, flip in ten if flip] == [box for box, flip in ten if not flip]
