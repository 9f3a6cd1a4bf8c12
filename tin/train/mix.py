"""Mixup and CutMix: the clips of a batch blended with each other, on their device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Mixed:
    """A batch after mixing."""

    frames: torch.Tensor
    """(N·T, C, H, W), channels_last."""
    targets: torch.Tensor
    """(N, classes) float32: the share of each class in a clip; rows add up to 1."""
    labels: torch.Tensor
    """(N,) int64: the class with the larger share, which training accuracy is counted against."""


def mix_clips(
    frames: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    *,
    mixup: float,
    cutmix: float,
    probability: float = 1.0,
    seed: int,
    step: int,
    rank: int = 0,
) -> Mixed:
    """Mix each clip with another of the batch: all its frames with the same share, or the same box of all of them.

    Mixup (Zhang et al. 2018) blends λ·clip + (1 − λ)·partner; CutMix (Yun et al. 2019) puts a box of the partner, of (1 − λ) of
    the area before it is cut off at the border, in the clip's place, and the share is that of the pixels left. λ is drawn for
    each clip from Beta(α, α). Where both are on, one of them takes a step, with equal chances. The partner is the clip a number
    of places on that is drawn for the step, never the clip itself. All draws are a function of (seed, step, rank) and N.

    Args:
        frames: (N·T, C, H, W), floating point, clip by clip.
        labels: (N,) int64 in 0…num_classes − 1.
        mixup, cutmix: α of each, 0 for off.
        probability: part of the steps that are mixed at all.
        seed, step, rank: not negative.

    Returns:
        New frames in the same dtype; the given ones stay as they are, and come back as they are where nothing is mixed.
    """
    count = len(labels)
    # The first number is a purpose: other draws of a run are keyed by a seed first.
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((_PURPOSE, seed, step, rank))))
    targets = (labels.unsqueeze(1) == torch.arange(num_classes, device=labels.device)).float()
    chance, choice = rng.random(2)
    if count < 2 or not (mixup or cutmix) or chance >= probability:
        return Mixed(frames, targets, labels)
    cuts = cutmix > 0 and (mixup == 0 or choice < 0.5)
    alpha = cutmix if cuts else mixup
    shift = int(rng.integers(1, count))
    share = rng.beta(alpha, alpha, size=count)
    batch, channels, height, width = frames.shape
    x = frames.permute(0, 2, 3, 1).reshape(
        count, batch // count, height, width, channels
    )  # a view of channels_last memory
    partner = x.roll(-shift, 0)
    if cuts:
        boxes = _boxes(share, height, width, rng)
        share = 1 - (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (height * width)
        y = torch.where(_inside(boxes, height, width, x.device), partner, x)
    else:
        y = torch.lerp(partner, x, _on(share, x).view(-1, 1, 1, 1, 1))
    own = _on(share, targets).unsqueeze(1)
    return Mixed(
        frames=y.view(batch, height, width, channels).permute(0, 3, 1, 2),
        targets=torch.lerp(targets.roll(-shift, 0), targets, own),
        labels=torch.where(own.squeeze(1) >= 0.5, labels, labels.roll(-shift, 0)),
    )


_PURPOSE = 0x6D6978  # "mix"


def _boxes(share: NDArray[np.float64], height: int, width: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(N, 4) y0, x0, y1, x1 of boxes of 1 − share of the frame about a uniform centre, cut off at the border."""
    side = np.sqrt(1 - share)
    centre_y, centre_x = rng.integers(height, size=len(share)), rng.integers(width, size=len(share))
    half_y, half_x = (height * side).astype(np.int64) // 2, (width * side).astype(np.int64) // 2
    ends = centre_y - half_y, centre_x - half_x, centre_y + half_y, centre_x + half_x
    return np.stack(ends, axis=1).clip(0, (height, width, height, width))


def _inside(boxes: NDArray[np.int64], height: int, width: int, device: torch.device) -> torch.Tensor:
    """(N, 1, H, W, 1) bool."""
    y0, x0, y1, x1 = torch.from_numpy(boxes.T.copy()).to(device, non_blocking=True).unsqueeze(2)
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    vertical, horizontal = (rows >= y0) & (rows < y1), (columns >= x0) & (columns < x1)
    return (vertical[:, :, None] & horizontal[:, None, :])[:, None, :, :, None]


def _on(values: NDArray[np.float64], like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values).to(device=like.device, dtype=like.dtype, non_blocking=True)
