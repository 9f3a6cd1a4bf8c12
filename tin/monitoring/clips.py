"""A picture of the clips that a network is trained on: a row each, its frames from left to right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

MAX_CLIPS = 8
MAX_SIDE = 112
"""Pixels of a frame in the picture; larger ones are averaged down, so that 8 × 8 frames take about a megabyte."""
_GAP = 2
_CAPTION = 16


@torch.no_grad()
def clip_tiles(frames: Tensor, num_segments: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """What a batch looks like: the first clips of it, without the normalisation, small.

    Everything is computed where the frames are, and nothing waits for the device.

    Args:
        frames: (N·T, 3, H, W), normalised, any float dtype and memory format.
        num_segments: T.
        mean, std: what they were normalised with, RGB of 0…255.

    Returns:
        (min(N, MAX_CLIPS), T, 3, h, w) uint8, h and w at most MAX_SIDE; what is not finite is black.
    """
    some = frames[: MAX_CLIPS * num_segments].detach().float()
    side = max(some.shape[2:])
    if side > MAX_SIDE:
        height, width = (max(1, round(length * MAX_SIDE / side)) for length in some.shape[2:])
        some = adaptive_avg_pool2d(some, (height, width))
    scale, shift = (torch.tensor(values, dtype=some.dtype).to(some.device, non_blocking=True) for values in (std, mean))
    pixels = (some * scale.view(3, 1, 1) + shift.view(3, 1, 1)).nan_to_num(0.0, 0.0, 0.0)
    return pixels.round().clamp(0, 255).to(torch.uint8).unflatten(0, (-1, num_segments))


def clip_grid(tiles: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.uint8]:
    """The picture of `clip_tiles`, with a line above each clip; tiny frames are enlarged by a whole factor.

    Args:
        tiles: (clips, T, 3, h, w).
        captions: one a clip; of one that is too long the end is shown.

    Returns:
        (height, width, 3), RGB.
    """
    from matplotlib.font_manager import findfont  # half a second, and the main process alone draws
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(findfont("DejaVu Sans"), 11)  # comes with matplotlib; Latin, Greek, Cyrillic and more
    factor = max(1, MAX_SIDE // max(tiles.shape[3:]))
    tiles = tiles.repeat(factor, axis=3).repeat(factor, axis=4)
    clips, segments, _, height, width = tiles.shape
    grid = np.full((clips * (_CAPTION + height), segments * (width + _GAP) - _GAP, 3), 255, dtype=np.uint8)
    for row in range(clips):
        top = row * (_CAPTION + height) + _CAPTION
        for column in range(segments):
            left = column * (width + _GAP)
            grid[top : top + height, left : left + width] = tiles[row, column].transpose(1, 2, 0)
    picture = Image.fromarray(grid)
    draw = ImageDraw.Draw(picture)
    for row, caption in enumerate(captions):
        draw.text(
            (2, row * (_CAPTION + height) + 1), _end_of(caption, font, grid.shape[1] - 4), fill=(0, 0, 0), font=font
        )
    return np.asarray(picture)


def _end_of(text: str, font: FreeTypeFont, width: int) -> str:
    """As much of the text as fits into `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text
