"""TIN's offset networks for another number of segments: their layers of size T, resampled in time."""

from __future__ import annotations

import re
from typing import Literal

import torch
from torch import Tensor

Segments = Literal["refuse", "resample", "fresh"]
"""What to do with a TIN of another number of segments: an error, `resampled`, or let the layers start afresh."""

_OF_SIZE_T = re.compile(r"\.tin\.offset\.(fc1\.weight|fc1\.bias|fc2\.weight)$")


def depends_on_segments(name: str) -> bool:
    """Whether a weight, by its plain name, has the number of segments in its shape."""
    return _OF_SIZE_T.search(name) is not None


def can_resample(name: str, value: Tensor, own: Tensor) -> bool:
    """Whether two tensors differ in the number of segments alone."""
    if not depends_on_segments(name) or value.dim() != own.dim() or not value.is_floating_point() or not value.numel():
        return False
    square = value.dim() == 1 or value.shape[0] == value.shape[1]
    return square if name.endswith("fc1.weight") or value.dim() == 1 else value.shape[0] == own.shape[0]


def resampled(name: str, value: Tensor, num_segments: int) -> Tensor:
    """A layer of an offset network for `num_segments` frames instead of the T it was trained with.

    The network is fc2(relu(fc1(d))) of a descriptor d (T) in time. Both axes of size T are taken as cells of equal length of
    the clip. The new network's descriptor is averaged to T cells, each of its hidden units is the mean of the old units whose
    cells it overlaps, and every old unit's weight in fc2 is shared among the new ones. So for a multiple of T it gives for any
    descriptor what the old one gives for that averaged; otherwise units at the seams are mixed before the ReLU, and it gives
    about that. Offsets keep their unit, frames.

    Args:
        name: of the weight, for which `depends_on_segments` is true.
        value: fc1.weight (T, T), fc1.bias (T) or fc2.weight (2, T), of any floating dtype.

    Returns:
        The same in the new size, of the same dtype.
    """
    old = value.shape[-1]
    edges = torch.arange(num_segments + 1, dtype=torch.float64) / num_segments, torch.arange(old + 1).double() / old
    first = torch.maximum(edges[0][:-1, None], edges[1][None, :-1])
    last = torch.minimum(edges[0][1:, None], edges[1][None, 1:])
    overlap = (last - first).clamp(min=0)  # (new, old), in clips
    mean, share = overlap * num_segments, overlap * old
    exact = value.double()
    if name.endswith("fc1.weight"):
        exact = mean @ exact @ share.T
    elif name.endswith("fc1.bias"):
        exact = mean @ exact
    else:
        exact = exact @ share.T
    return exact.to(value.dtype)
