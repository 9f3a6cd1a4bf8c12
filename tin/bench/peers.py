"""The peers' way to the same result, emulated: two integer shifts of a float32 copy, a blend, a concatenation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def two_shifts_and_blend(
    x: Tensor, offset: Tensor, weight: Tensor, num_segments: int, group_size: int | None = None
) -> Tensor:
    """What `temporal_interlace` computes, in the steps of MMAction2 and the authors' code, as PyTorch operations.

    Those copy the shifted channels to float32 NCHW, run a kernel that shifts by whole frames once for each of the two
    neighbours, blend and scale the results, and concatenate them with the untouched channels. The shift is a gather along
    time here; its backward is the transposed gather, of the cost that their kernel's has (its result is wrong, this one's
    is not). The result is NCHW, as theirs is, in x's dtype.
    """
    clips, groups = offset.shape
    g = group_size or x.shape[1] // (4 * groups)
    fold, pixels = groups * g, x.shape[2] * x.shape[3]
    data = x[:, :fold].float().contiguous().view(clips, num_segments, groups, g * pixels)
    whole = offset.detach().floor()
    fraction = (offset - whole)[:, None, :, None]
    near: Tensor = _WholeShift.apply(data, whole.long())
    far: Tensor = _WholeShift.apply(data, whole.long() + 1)
    blended = ((1 - fraction) * near + fraction * far) * weight[..., None]
    return torch.cat([blended.to(x.dtype).view(x.shape[0], fold, *x.shape[2:]), x[:, fold:]], dim=1).contiguous()


class _WholeShift(torch.autograd.Function):
    """(N, T, G, pixels) moved along T by (N, G) whole frames; zero comes in."""

    @staticmethod
    def forward(ctx: Any, data: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(shift)
        return _moved(data, shift)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (shift,) = ctx.saved_tensors
        return _moved(grad, -shift), None


def _moved(data: Tensor, shift: Tensor) -> Tensor:
    last = data.shape[1] - 1
    source = torch.arange(data.shape[1], device=data.device)[None, :, None] - shift[:, None, :]
    inside = ((source >= 0) & (source <= last))[..., None]
    return data.gather(1, source.clamp(0, last)[..., None].expand_as(data)) * inside
