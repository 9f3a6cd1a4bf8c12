"""Where to crop: boxes in pixels of the frame as if its short side had been resized, and their way back to source pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Box = tuple[int, int, int, int]  # y, x, height, width
FloatBox = tuple[float, float, float, float]

# Offsets in quarters of the free space, (x, y): corners and centre; TSM's configurations add the eight between them.
_FIVE = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2))
_THIRTEEN = (*_FIVE, (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))
OFFSETS = {5: _FIVE, 13: _THIRTEEN}


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) after the short side becomes `short_side`, as MMAction2 rounds: 240×427 gives 256×455 at 256."""
    scale = short_side / min(height, width)
    if height < width:
        return short_side, int(width * scale + 0.5)
    if width < height:
        return int(height * scale + 0.5), short_side
    return short_side, short_side


def to_source(box: Box, resized: tuple[int, int], source: tuple[int, int]) -> FloatBox:
    """A box (y, x, height, width) of the resized frame in pixels, fractions kept, of the source frame; sizes are (height, width)."""
    sy, sx = source[0] / resized[0], source[1] / resized[1]
    return box[0] * sy, box[1] * sx, box[2] * sy, box[3] * sx


def multi_scale_crop(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    input_size: int = 224,
    scales: Sequence[float] = (1.0, 0.875, 0.75, 0.66),
    num_offsets: int = 5,
    max_scale_gap: int = 1,
) -> Box:
    """A random box (y, x, height, width) as MMAction2's MultiScaleCrop draws it: sides int(min(h, w)·scale), their scales at most
    `max_scale_gap` places apart, a side within 3 of `input_size` snapped to it, then one of `num_offsets` places.

    All pairs of sides are equally likely, and all places.
    """
    sizes = [int(min(height, width) * scale) for scale in scales]
    pairs = [(w, h) for i, h in enumerate(sizes) for j, w in enumerate(sizes) if abs(i - j) <= max_scale_gap]
    w, h = (input_size if abs(side - input_size) < 3 else side for side in pairs[rng.integers(len(pairs))])
    w, h = max(1, min(w, width)), max(1, min(h, height))  # a side snapped up may not leave a tiny frame
    column, row = OFFSETS[num_offsets][rng.integers(num_offsets)]
    return row * ((height - h) // 4), column * ((width - w) // 4), h, w


def random_resized_crop(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A random box (y, x, height, width) as torchvision's RandomResizedCrop draws it (Szegedy et al. 2015): a part of the frame's
    area, uniform in `area`; a ratio of width to height, log-uniform in `aspect`; any whole place, all equally likely.

    After ten draws that do not fit, the largest box in the middle whose ratio is within `aspect`.
    """
    for _ in range(10):
        pixels = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    ratio = min(max(width / height, aspect[0]), aspect[1])
    w, h = max(1, min(width, round(height * ratio))), max(1, min(height, round(width / ratio)))
    return (height - h) // 2, (width - w) // 2, h, w


def center_crop(height: int, width: int, size: int) -> Box:
    """The box (y, x, height, width) of size×size pixels in the middle, at ((H−size)//2, (W−size)//2)."""
    return (height - size) // 2, (width - size) // 2, size, size


def three_crop(height: int, width: int) -> list[Box]:
    """Three squares (y, x, height, width) of the short side along the long one: left (top), right (bottom), middle; as MMAction2's
    ThreeCrop."""
    size = min(height, width)
    y, x = (height - size) // 2, (width - size) // 2
    if width >= height:
        return [(0, 0, size, size), (0, 2 * x, size, size), (0, x, size, size)]
    return [(0, 0, size, size), (2 * y, 0, size, size), (y, 0, size, size)]


def ten_crop(height: int, width: int, size: int) -> list[tuple[Box, bool]]:
    """The four corners and the centre of size×size pixels, each plain and then mirrored: [((y, x, height, width), flip), …]; as
    MMAction2's TenCrop."""
    sy, sx = (height - size) // 4, (width - size) // 4
    return [((row * sy, column * sx, size, size), flip) for column, row in _FIVE for flip in (False, True)]
