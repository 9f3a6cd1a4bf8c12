"""Proof that order alone tells the motion classes apart: exact twins, blind classifiers at chance, a simple sighted one far above."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipelines.annotations import VideoList
from pipelines.motion import CLASSES, MotionSettings, write_motion
from pipelines.motion.scene import draw_path
from pipelines.sampling import segment_indices

pytestmark = pytest.mark.slow

SETTINGS = MotionSettings(train=160, val=96, size=64)
SMALL = 12  # side of the thumbnails that the classifiers see

Frames = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Frames, npt.NDArray[np.int64]]]:
    """split -> decoded frames (clips, frames, H, W, 3), twins side by side, and labels (clips,)."""
    out = tmp_path_factory.mktemp("motion") / "set"
    write_motion(out, SETTINGS, workers=2)
    result = {}
    for split in ("train", "val"):
        entries = VideoList.read(out / f"{split}.txt").entries
        result[split] = (np.stack([decode(entry.path) for entry in entries]), np.array([e.label for e in entries]))
    return result


def decode(path: Path) -> Frames:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def thumbnails(frames: Frames) -> npt.NDArray[np.float32]:
    """The 8 test frames of each clip, small and grey: (clips, 8, SMALL, SMALL)."""
    picked = frames[:, segment_indices(frames.shape[1], 8, "test")]
    edge = picked.shape[2] // SMALL * SMALL
    grey = picked[:, :, :edge, :edge].mean(axis=-1, dtype=np.float32)
    n, t = grey.shape[:2]
    return grey.reshape(n, t, SMALL, edge // SMALL, SMALL, edge // SMALL).mean(axis=(3, 5))


def blind_features(frames: Frames) -> npt.NDArray[np.float32]:
    """Everything that any order of the test frames gives alike: each pixel's values, sorted over time."""
    small = thumbnails(frames)
    return np.sort(small, axis=1).reshape(len(small), -1)


def sighted_features(frames: Frames) -> npt.NDArray[np.float32]:
    """Sums of derivatives, as optical flow uses them: how the object moves, whatever it looks like; (clips, 7).

    Change in time times slope in x, y, outward and around, over all pixels, and the same for the object's mask, which is what
    differs from the still background.
    """
    small = thumbnails(frames)
    mask = np.abs(small - np.median(small, axis=1, keepdims=True))
    y, x = np.mgrid[-1 : 1 : SMALL * 1j, -1 : 1 : SMALL * 1j]
    weight = mask / mask.sum(axis=(2, 3), keepdims=True)
    centre_x, centre_y = (weight * x).sum(axis=(2, 3)), (weight * y).sum(axis=(2, 3))
    spread = np.sqrt(
        (weight * ((x - centre_x[..., None, None]) ** 2 + (y - centre_y[..., None, None]) ** 2)).sum(axis=(2, 3))
    )
    ramp = np.linspace(-1, 1, small.shape[1])
    change = small[:, 1:] - small[:, :-1]
    between = (small[:, 1:] + small[:, :-1]) / 2
    slope_y, slope_x = np.gradient(between, axis=(2, 3))
    rx = x - ((centre_x[:, 1:] + centre_x[:, :-1]) / 2)[..., None, None]
    ry = y - ((centre_y[:, 1:] + centre_y[:, :-1]) / 2)[..., None, None]
    flows = (slope_x, slope_y, slope_x * rx + slope_y * ry, slope_y * rx - slope_x * ry)
    scale = (change**2).sum(axis=(1, 2, 3))
    features = [(change * flow).sum(axis=(1, 2, 3)) / scale for flow in flows]
    features += [(track * ramp).sum(axis=1) for track in (centre_x, centre_y, spread)]
    return np.stack(features, axis=1)


def accuracy_within_pairs(model, train, val) -> float:  # type: ignore[no-untyped-def]
    """Mean accuracy of telling the two classes of each pair apart, a model a pair; chance is 0.5."""
    scores = []
    for first in range(0, len(CLASSES), 2):
        (x, y), (x_val, y_val) = ((x[y // 2 == first // 2], y[y // 2 == first // 2]) for x, y in (train, val))
        scores.append(model.fit(x, y).score(x_val, y_val))
    return float(np.mean(scores))


def test_decoded_twins_are_exact_reversals(decoded: dict) -> None:  # type: ignore[type-arg]
    for frames, labels in decoded.values():
        assert np.array_equal(frames[1::2], frames[0::2, ::-1])
        assert np.array_equal(labels[1::2], labels[0::2] ^ 1)


def test_test_sampling_shows_a_twin_the_same_frames_backwards(decoded: dict) -> None:  # type: ignore[type-arg]
    indices = segment_indices(SETTINGS.frames, 8, "test")
    assert indices.tolist() == [1, 4, 7, 10, 13, 16, 19, 22]
    frames, _ = decoded["val"]
    assert np.array_equal(frames[1::2][:, indices], frames[0::2][:, indices][:, ::-1])


def test_sorted_frames_tell_nothing_within_a_pair(decoded: dict) -> None:  # type: ignore[type-arg]
    train, val = ((blind_features(frames), labels) for frames, labels in (decoded["train"], decoded["val"]))
    forest = RandomForestClassifier(50, random_state=0)
    # Twins have the same features and opposite labels, so one of each two is right, whatever a model has learned.
    assert accuracy_within_pairs(forest, train, val) == 0.5


def test_single_frames_tell_nothing_within_a_pair(decoded: dict) -> None:  # type: ignore[type-arg]
    """Frame by frame, no twins to cancel: one frame of each validation scene, drawn from one of its two clips."""
    (frames, labels), (val_frames, val_labels) = decoded["train"], decoded["val"]
    small, val_small = thumbnails(frames), thumbnails(val_frames)
    train = small.reshape(len(small) * 8, -1), np.repeat(labels, 8)
    val = val_small.reshape(len(val_small) * 8, -1), np.repeat(val_labels, 8)
    forest = RandomForestClassifier(30, min_samples_leaf=4, random_state=0, n_jobs=2)
    assert abs(accuracy_within_pairs(forest, train, val) - 0.5) < 1e-9
    rng = np.random.default_rng(0)
    alone = np.arange(0, len(val_small), 2) + rng.integers(0, 2, len(val_small) // 2)
    val = val_small[alone, rng.integers(0, 8, len(alone))].reshape(len(alone), -1), val_labels[alone]
    # 48 clips: three standard deviations are 0.22
    assert abs(accuracy_within_pairs(forest, train, val) - 0.5) < 0.22


def test_a_simple_model_that_sees_the_order_tells_the_pairs_apart(decoded: dict) -> None:  # type: ignore[type-arg]
    """The counterpart of the blind tests: on the same frames order does tell, so those could have failed."""
    train, val = ((sighted_features(frames), labels) for frames, labels in (decoded["train"], decoded["val"]))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    assert accuracy_within_pairs(model, train, val) > 0.9


def test_blind_features_would_find_order_if_quality_leaked_it(decoded: dict) -> None:  # type: ignore[type-arg]
    """Fade each clip over time, as a drifting codec would: the same blind test is then far above chance."""
    fade = np.linspace(1.0, 0.6, SETTINGS.frames, dtype=np.float32)[None, :, None, None, None]

    def faded(frames: Frames) -> npt.NDArray[np.float32]:
        small = thumbnails(np.clip(frames * fade, 0, 255).astype(np.uint8))
        return np.sort(small, axis=1).reshape(len(small), -1)

    train, val = ((faded(frames), labels) for frames, labels in (decoded["train"], decoded["val"]))
    assert accuracy_within_pairs(RandomForestClassifier(50, random_state=0), train, val) > 0.6


@pytest.mark.parametrize("label", range(8))
def test_paths_show_what_their_class_says_and_reversed_the_opposite(label: int) -> None:
    name = CLASSES[label]
    for seed in range(20):
        path = draw_path(label, 24, np.random.default_rng(seed))
        back = draw_path(label ^ 1, 24, np.random.default_rng(seed))
        assert all(np.allclose(getattr(path, f)[::-1], getattr(back, f)) for f in ("x", "y", "radius", "angle"))
        steps = {
            "x": np.diff(path.x),
            "y": np.diff(path.y),
            "radius": np.diff(path.radius),
            "angle": np.diff(path.angle),
        }
        field, sign = {
            "left": ("x", -1), "right": ("x", 1), "up": ("y", -1), "down": ("y", 1),
            "shrink": ("radius", -1), "grow": ("radius", 1), "anticlockwise": ("angle", -1), "clockwise": ("angle", 1),
        }[name]  # fmt: skip
        assert (steps[field] * sign > 0).all()
