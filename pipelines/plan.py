"""What to decode and crop: a clip's plan, a pure function of the video, the settings and (seed, epoch, id)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines import crops, sampling
from pipelines.color import ColorJitter
from pipelines.errors import SettingsError

if TYPE_CHECKING:
    from pipelines.annotations import VideoEntry
    from pipelines.index import VideoInfo

TRAIN_SAMPLING = ("train", "keep_tail", "dense_train", "test")
TEST_SAMPLING = ("test", "twice", "dense_test")
TRAIN_CROPS = ("multi_scale", "random_resized", "center")
TEST_CROPS = ("center", "three", "ten")
MAX_SEGMENTS = 1024
MAX_SIDE = 8192
MAX_CLIPS = 1000

# Random numbers of their own for what was added later, so that a clip without it stays as it was. Keys (seed, epoch, id) and
# the purposes of pipelines.order must not meet these; 0 would be no key at all (SeedSequence pads with zeros).
_COPY, _COLOR = 3, 4


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """How clips are cut from videos. The defaults are MMAction2's TIN recipes for Kinetics.

    Raises SettingsError, naming the field and what it may be, for settings that cannot work.
    """

    num_segments: int = 8
    """T, frames of a clip."""
    input_size: int = 224
    """Height and width of the frames that the model sees, pixels."""
    short_side: int = 256
    """The frame is cropped as if its short side had been resized to this, pixels."""
    train_sampling: str = "train"
    """How training draws frames: train, keep_tail, dense_train or test (see sampling.segment_indices)."""
    test_sampling: str = "test"
    """How testing picks frames: test (one clip), twice (two) or dense_test (ten)."""
    test_clips: int | None = None
    """Clips that test and dense_test take of a video, evenly spread (MMAction2's num_clips); None for 1 and 10."""
    train_crop: str = "multi_scale"
    """multi_scale (random), random_resized (random; Szegedy et al. 2015) or center."""
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """Sides of multi_scale crops, as parts of the short side."""
    num_crop_offsets: int = 5
    """Places of multi_scale crops: 5, or 13 as in TSM's configurations."""
    crop_area: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest part of the frame that random_resized takes."""
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width ÷ height of random_resized, at most 100."""
    test_crop: str = "center"
    """center (one view), three (squares of short_side) or ten (corners and centre, with mirrors)."""
    flip: float = 0.5
    """Probability that a training clip is mirrored; 0 where left and right are labels, unless `flip_labels` exchanges them."""
    flip_labels: tuple[int, ...] | None = None
    """For each class the one that its mirrored videos show, or −1 where none does and the clip must not be mirrored
    (`pipelines.mirror`). None leaves labels alone."""
    color_jitter: ColorJitter | None = None
    """Random colours of training clips; a mapping of ColorJitter's fields will do. None leaves them alone."""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Subtracted from R, G, B in 0…255."""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Then divided by this."""

    def __post_init__(self) -> None:
        for field in fields(self):  # lists from a settings file are as good as tuples
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        if isinstance(self.color_jitter, Mapping):
            object.__setattr__(self, "color_jitter", ColorJitter.from_mapping(self.color_jitter))
        _whole("num_segments", self.num_segments, 1, MAX_SEGMENTS)
        _whole("input_size", self.input_size, 1, MAX_SIDE)
        _whole("short_side", self.short_side, 1, MAX_SIDE)
        if self.short_side < self.input_size:
            raise SettingsError(
                f"short_side {self.short_side} is smaller than input_size {self.input_size}: "
                f"a crop of {self.input_size} does not fit; raise short_side or lower input_size"
            )
        _choice("train_sampling", self.train_sampling, TRAIN_SAMPLING)
        _choice("test_sampling", self.test_sampling, TEST_SAMPLING)
        _choice("train_crop", self.train_crop, TRAIN_CROPS)
        _choice("test_crop", self.test_crop, TEST_CROPS)
        if self.test_clips is not None:
            _whole("test_clips", self.test_clips, 1, MAX_CLIPS)
            sampling.num_clips(self.test_sampling, self.test_clips)
        if self.color_jitter is not None and not isinstance(self.color_jitter, ColorJitter):
            raise SettingsError(f"color_jitter {self.color_jitter!r} must be a ColorJitter or a mapping of its fields")
        _range("crop_area", self.crop_area, 1)
        _range("crop_aspect", self.crop_aspect, 100)
        if self.flip_labels is not None:
            _pairs_up(self.flip_labels)
        if not self.scales or not all(_number(s) and 0 < s <= 1 for s in self.scales):
            raise SettingsError(f"scales {self.scales} must be one or more numbers in (0, 1]")
        if self.num_crop_offsets not in crops.OFFSETS:
            raise SettingsError(f"num_crop_offsets {self.num_crop_offsets!r} must be 5 or 13")
        if not _number(self.flip) or not 0 <= self.flip <= 1:
            raise SettingsError(f"flip {self.flip!r} is a probability: it must be between 0 and 1")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(_number(v) and np.isfinite(v) for v in values):
                raise SettingsError(f"{name} {values} must be three numbers, for R, G and B in 0…255")
        if min(self.std) <= 0:
            raise SettingsError(f"std {self.std} must be above 0")

    def num_clips(self, *, training: bool) -> int:
        """Clips a video: 1 in training; in testing `test_clips`, else 1, 2 for `twice`, 10 for `dense_test`."""
        return 1 if training else sampling.num_clips(self.test_sampling, self.test_clips)

    def num_crops(self, *, training: bool) -> int:
        """Crops a clip: 1 in training; 3 for `three`, 10 for `ten`."""
        return 1 if training else {"center": 1, "three": 3, "ten": 10}[self.test_crop]

    def num_views(self, *, training: bool) -> int:
        """V, views a video: crops × clips."""
        return self.num_clips(training=training) * self.num_crops(training=training)


@dataclass(frozen=True)
class ClipPlan:
    """What is taken from one video. View v is crop v // clips of clip v % clips."""

    indices: NDArray[np.int64]
    """(clips, T) frame indices from 0."""
    boxes: NDArray[np.float64]
    """(crops, 4): y, x, height, width in pixels of the frame as displayed (rotation applied), fractions kept."""
    flips: NDArray[np.bool_]
    """(crops,): mirror left to right."""
    label: int | None
    """Of the clip as it is shown: a mirrored one's may differ from the list's (`ClipSpec.flip_labels`)."""
    id: int
    """Position in the list."""
    color: NDArray[np.float32] | None = None
    """(4,) brightness, contrast and saturation factors and the turn of the hue in degrees; None without color_jitter."""

    @property
    def num_views(self) -> int:
        """V: crops × clips."""
        return len(self.indices) * len(self.boxes)


def make_plan(
    entry: VideoEntry, info: VideoInfo, spec: ClipSpec, *, training: bool, seed: int, epoch: int, id: int, copy: int = 0
) -> ClipPlan:
    """The plan of one clip. The same arguments give the same plan anywhere; `entry` gives the label alone.

    In training, frames, crop, flip and colours are drawn from generators seeded with (seed, epoch, id), and with `copy` where
    an epoch shows a video more than once; in testing nothing is random. None of these numbers may be negative.

    Raises:
        SettingsError: a negative number, or a label that `flip_labels` has no entry for.
    """
    size = info.height, info.width
    resized = crops.resized_size(*size, spec.short_side)
    label, color = entry.label, None
    views: Sequence[tuple[crops.Box, bool]]
    if training:
        # Copy 0 has no purpose in its key: it is the clip that epochs without copies show.
        rng = generator(seed, epoch, id, *((_COPY, copy) if copy else ()))
        indices = sampling.segment_indices(info.num_frames, spec.num_segments, spec.train_sampling, rng)
        box = _train_box(spec, resized, rng)
        flip = bool(rng.random() < spec.flip)
        if flip and label is not None and spec.flip_labels is not None:
            label, flip = _mirrored(entry, spec.flip_labels)
        views = [(box, flip)]
        if spec.color_jitter is not None:
            color = spec.color_jitter.draw(generator(seed, epoch, id, _COLOR, copy))
    else:
        indices = sampling.segment_indices(
            info.num_frames, spec.num_segments, spec.test_sampling, clips=spec.test_clips
        )
        if spec.test_crop == "center":
            views = [(crops.center_crop(*resized, spec.input_size), False)]
        elif spec.test_crop == "three":
            views = [(box, False) for box in crops.three_crop(*resized)]
        else:
            views = crops.ten_crop(*resized, spec.input_size)
    return ClipPlan(
        indices=indices.reshape(-1, spec.num_segments),
        boxes=np.array([crops.to_source(box, resized, size) for box, _ in views], dtype=np.float64),
        flips=np.array([flip for _, flip in views], dtype=np.bool_),
        label=label,
        id=id,
        color=color,
    )


def _train_box(spec: ClipSpec, resized: tuple[int, int], rng: np.random.Generator) -> crops.Box:
    if spec.train_crop == "multi_scale":
        return crops.multi_scale_crop(
            *resized, rng, input_size=spec.input_size, scales=spec.scales, num_offsets=spec.num_crop_offsets
        )
    if spec.train_crop == "random_resized":
        return crops.random_resized_crop(*resized, rng, area=spec.crop_area, aspect=spec.crop_aspect)
    return crops.center_crop(*resized, spec.input_size)


def _mirrored(entry: VideoEntry, flip_labels: tuple[int, ...]) -> tuple[int, bool]:
    """The label and the flip of a clip that was drawn to be mirrored."""
    assert entry.label is not None
    if entry.label >= len(flip_labels):
        raise SettingsError(
            f"flip_labels has {len(flip_labels)} classes, but {entry.id} is of class {entry.label}: give the map of this list's labels"
        )
    partner = flip_labels[entry.label]
    return (entry.label, False) if partner < 0 else (partner, True)


def generator(*keys: int) -> np.random.Generator:
    """A generator that depends on the non-negative whole numbers `keys` alone; equal on every platform."""
    if min(keys) < 0:
        raise SettingsError(f"seed, epoch and id must not be negative, got {keys}")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(keys)))


def _whole(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SettingsError(f"{name} {value!r} must be a whole number from {low} to {high}")


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SettingsError(f"{name} {value!r} must be one of {', '.join(allowed)}{hint}")


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _range(name: str, value: tuple[float, float], high: float) -> None:
    if len(value) != 2 or not all(_number(v) for v in value) or not 0 < value[0] <= value[1] <= high:
        raise SettingsError(f"{name} {value} must be two numbers, the smaller first, above 0 and at most {high}")


def _pairs_up(flip_labels: tuple[int, ...]) -> None:
    for label, partner in enumerate(flip_labels):
        if not isinstance(partner, int) or isinstance(partner, bool) or not -1 <= partner < len(flip_labels):
            raise SettingsError(f"flip_labels maps class {label} to {partner!r}: it must be a class, or -1 for none")
        if partner >= 0 and flip_labels[partner] != label:
            raise SettingsError(
                f"flip_labels does not pair up: it maps class {label} to {partner}, but {partner} to {flip_labels[partner]}"
            )
