"""Temporal interlace in operators that every runtime has: one product with a small matrix of each clip and group."""

from __future__ import annotations

import torch
from torch import Tensor


def interlace_by_matrix(
    x: Tensor, offset: Tensor, weight: Tensor, num_segments: int, group_size: int | None = None
) -> Tensor:
    """`tin.ops.temporal_interlace` for finite inputs, without a gather and without a floor.

    Reading between two frames is a product with a hat function: `out[t] = Σ_s mix[t, s]·x[s]` over the T frames of a clip, with
    `mix[t, s] = weight[t] · max(0, 1 − |t − s − offset|)`. Frames outside of the clip are in no sum, which makes them zero. Where
    the op floors an offset, a runtime that rounds differently might take other frames; this is continuous in the offset.

    Args and result are the op's; offset and weight are float32, the matrix is rounded to the type of x. A frame that is Inf or
    NaN makes its whole group NaN, where the op keeps it to the frames that read it.
    """
    height, width = x.shape[2:]
    groups = offset.shape[1]
    group_size = x.shape[1] // (4 * groups) if group_size is None else group_size
    fold = groups * group_size
    frame = torch.arange(num_segments, dtype=offset.dtype, device=x.device)
    away = (frame[:, None] - frame - offset[..., None, None]).abs()  # (N, G, T, T)
    mix = torch.relu(1 - away) * weight.transpose(1, 2)[..., None]
    clips = x[:, :fold].reshape(-1, num_segments, groups, group_size * height * width).transpose(1, 2)
    moved = torch.matmul(mix.to(x.dtype), clips).transpose(1, 2).reshape(-1, fold, height, width)
    return torch.cat([moved, x[:, fold:]], dim=1)
