"""Colour jitter is drawn once a clip, reaches the pixels as one linear map, and is nowhere when it is off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from pipelines import ClipPlan, ClipSpec, VideoEntry, VideoInfo, make_plan
from pipelines.color import UNCHANGED, ColorJitter
from pipelines.decode import decode_frames
from pipelines.errors import SettingsError
from pipelines.graphs import ClipGraph
from pipelines.probe import probe
from tests.pipelines.videos import write_frames

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # results stay in 0…255
JITTER = ColorJitter(brightness=0.4, contrast=0.3, saturation=0.5, hue=0.1)


def test_draws_are_uniform_in_torchvisions_ranges_and_independent() -> None:
    rng = np.random.default_rng(0)
    draws = np.stack(
        [ColorJitter(brightness=0.4, contrast=1.5, saturation=1.0, hue=0.1).draw(rng) for _ in range(4000)]
    )
    for column, (low, high) in enumerate([(0.6, 1.4), (0.0, 2.5), (0.0, 2.0), (-36.0, 36.0)]):
        assert low <= draws[:, column].min() <= draws[:, column].max() <= high
        assert stats.kstest(draws[:, column], "uniform", (low, high - low)).pvalue > 1e-3
    correlation = np.corrcoef(draws.T) - np.eye(4)
    assert np.abs(correlation).max() < 0.06


def test_probability_leaves_the_other_clips_as_they_are() -> None:
    rng = np.random.default_rng(0)
    draws = np.stack([ColorJitter(brightness=0.4, probability=0.8).draw(rng) for _ in range(2000)])
    changed = (draws != UNCHANGED).any(axis=1).sum()
    assert stats.binomtest(int(changed), 2000, 0.8).pvalue > 1e-3


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, "changes nothing"), ({"hue": 0.6}, "hue 0.6"), ({"brightness": -0.1}, "brightness -0.1"),
        ({"contrast": float("nan")}, "contrast nan"), ({"saturation": "much"}, "saturation 'much'"),
        ({"brightness": 0.1, "probability": 2}, "probability 2"),
    ],
)  # fmt: skip
def test_ranges_that_cannot_work_are_refused_by_name(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        ColorJitter(**settings)


def clip(path: Path, spec: ClipSpec, **keys: int) -> tuple[VideoInfo, ClipPlan]:
    info = probe(str(path), None, None, False)
    return info, make_plan(
        VideoEntry(path, 3, path.name), info, spec, training=True, **{"seed": 0, "epoch": 0, "id": 0, **keys}
    )


def pixels(spec: ClipSpec, info: VideoInfo, plan: ClipPlan, source: str, given: Any, *, color: bool) -> torch.Tensor:
    graph = ClipGraph(
        spec,
        source,
        num_crops=1,
        batch_size=1,
        num_frames=8,
        device=torch.device("cpu"),
        dtype=torch.float32,
        color=color,
    )
    return graph([plan], [info], [given])


def jittered(frames: torch.Tensor, color: np.ndarray) -> torch.Tensor:
    """The documented map on (T, 3, H, W) in 0…255: hue and saturation in YIQ, contrast about 128, brightness."""
    brightness, contrast, saturation, turn = color.tolist()
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
    c, s = saturation * np.cos(np.deg2rad(turn)), saturation * np.sin(np.deg2rad(turn))
    linear = np.linalg.inv(to_yiq) @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]]) @ to_yiq
    mixed = torch.einsum("ij,tjhw->tihw", torch.from_numpy(linear), frames.double())
    return (brightness * (128 + contrast * (mixed - 128))).round().clamp(0, 255)


@pytest.mark.parametrize("name", ["k400_SOX5yA1l24A.mp4", "vp9_640x480.webm"])
def test_jitter_is_one_map_for_all_frames_of_a_real_clip_and_changes_nothing_else(real_videos: Path, name: str) -> None:
    path = real_videos / "codecs" / name
    plain, colorful = ClipSpec(**PLAIN), ClipSpec(**PLAIN, color_jitter=JITTER)  # type: ignore[arg-type]
    info, before = clip(path, plain)
    _, after = clip(path, colorful)
    assert before.color is None
    assert after.color is not None
    assert (before.indices == after.indices).all()
    assert (before.boxes == after.boxes).all()
    assert (before.flips == after.flips).all()
    sources = {"decoded": decode_frames(path, after.indices.reshape(-1))}
    if name.endswith("webm"):
        sources["video"] = path  # DALI's own decoder takes VP9 on a CPU
    for source, given in sources.items():
        off = pixels(plain, info, before, source, given, color=False)
        on = pixels(colorful, info, after, source, given, color=True)
        assert (on - off).abs().mean() > 3
        assert (on - jittered(off, after.color)).abs().max() <= 1
        unchanged = ClipPlan(after.indices, after.boxes, after.flips, 3, 0, UNCHANGED)
        assert torch.equal(pixels(colorful, info, unchanged, source, given, color=True), off)


def test_jitter_reaches_the_images_of_a_frame_folder(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip", 12)
    spec = ClipSpec(**PLAIN, input_size=32, short_side=32, color_jitter={"brightness": 0.5})  # type: ignore[arg-type]
    info, plan = clip(folder, spec)
    assert plan.color is not None
    paths = [folder / f"{index + 1:05}.jpg" for index in plan.indices.reshape(-1).tolist()]
    on = pixels(spec, info, plan, "images", paths, color=True)
    levels = torch.from_numpy(8.0 * plan.indices[0]) * float(plan.color[0])
    assert (on.mean((1, 2, 3)) - levels).abs().max() <= 4


def test_each_clip_and_copy_draws_its_own_colours(real_videos: Path) -> None:
    path = real_videos / "codecs" / "vp9_640x480.webm"
    spec = ClipSpec(color_jitter=JITTER)
    keys = [{}, {"seed": 1}, {"epoch": 1}, {"id": 1}, {"copy": 1}, {"copy": 2}]
    colors = [clip(path, spec, **key)[1].color for key in keys]
    assert len({tuple(color.tolist()) for color in colors if color is not None}) == len(keys)
    again = clip(path, spec, copy=2)[1].color
    assert again is not None
    assert (again == colors[-1]).all()
