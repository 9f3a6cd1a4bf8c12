"""Where a residual block splits into its branches: the shift, and what both branches' gradients come to, each in one pass.

PyTorch's own way reads and writes the block's input several times more: a copy with the shifted channels, and in the backward
pass a ReLU, then a sum of the two branches' gradients. What is saved there and in `tin.joins` pays for the shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tin import ops
from tin.eager import is_eager, on_cpu_in_rows
from tin.joins import is_join

MAX_SEGMENTS = 64
"""Frames a clip that the networks' kernel takes (csrc/nets.h); longer clips go through PyTorch's operators."""


class Branches(NamedTuple):
    """What a residual block's two branches take of its input x."""

    branch: Tensor
    """What the convolutions take."""
    identity: Tensor
    """What `join` or the shortcut's convolution takes: x, or each `stride`-th pixel of it; where `fold` is not None, all of it but
    its first channels."""
    fold: Tensor | None = None
    """x's first channels, where they have been overwritten in x's own memory."""


def split(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    num_segments: int,
    fold: int,
    owned: bool,
    stride: int | None = 1,
) -> Branches:
    """`temporal_interlace` for the residual branch, and x for the identity; the gradients of the two come back in one pass.

    Args:
        x: (N·T, C, H, W).
        offset, weight, num_segments: as `tin.ops.temporal_interlace`.
        fold: channels that move, G·g.
        owned: nobody but the two branches will read x: then, where that pays, the moved channels are overwritten in x's
            memory, and the three quarters that do not move stay where they are.
        stride: every how many pixels, down and across, the identity is read; None: not at all. What is overwritten is not copied
            for the others.
    """
    group_size = fold // offset.shape[1]
    if not is_eager(x) or (torch.is_grad_enabled() and (offset.requires_grad or weight.requires_grad)):
        return _shifted(x, offset, weight, num_segments, group_size, stride)
    owned = owned and _may_overwrite(x, fold)
    if torch.is_grad_enabled() and x.requires_grad:
        return Branches(*_Split.apply(x, offset, weight, num_segments, fold, owned, stride))
    if owned:
        return _overwritten(x, offset, weight, num_segments, group_size, stride, stride == 1)[0]
    return _shifted(x, offset, weight, num_segments, group_size, stride)


def split_by_nets(
    x: Tensor,
    fold: int,
    weights: Sequence[Tensor],
    num_segments: int,
    owned: bool,
    stride: int | None = 1,
    means: Tensor | None = None,
) -> Branches | None:
    """TIN's whole module: pools the first `fold` channels, asks its networks for offsets and gains, and splits.

    What PyTorch needs some twenty-five small operators for, and as many in the backward pass, is three here. Of x the moved
    channels alone are kept for the backward pass.

    Args:
        x, num_segments, owned, stride: as `split`.
        fold: channels to move, in four groups.
        weights: the networks': offset kernel (1, fold, 3) and bias, gain kernel (2, fold, 3) and bias, fc1 (T, T) and bias,
            fc2 (2, T) and bias; float32, or float64 like x.
        means: (N·T, fold), `pooled` of these channels, where it is known.

    Returns:
        None where the kernels do not take this; compose it of PyTorch's operators then.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    if not is_eager(x) or num_segments > MAX_SEGMENTS or any(w.dtype != wide for w in weights):
        return None
    owned = owned and _may_overwrite(x, fold)
    if torch.is_grad_enabled() and (x.requires_grad or any(w.requires_grad for w in weights)):
        return Branches(*_SplitByNets.apply(x, fold, num_segments, owned, stride, means, *weights))
    means = pooled(x[:, :fold]) if means is None else means
    offset, weight, _ = torch.ops.tin.interlace_nets(means, list(weights), num_segments)
    if owned:
        return _overwritten(x, offset, weight, num_segments, fold // 4, stride, stride == 1)[0]
    return _shifted(x, offset, weight, num_segments, fold // 4, stride)


def pooled(channels: Tensor) -> Tensor:
    """(N·T, F, H, W) -> means over H and W, (N·T, F), in float32 at least: rounded to half precision, a mean loses the small
    differences between frames that the offsets are read from."""
    return channels.mean(dim=(2, 3), dtype=torch.promote_types(channels.dtype, torch.float32))


def pixels(x: Tensor, stride: int) -> Tensor:
    """Every `stride`-th pixel, down and across, dense."""
    return x if stride == 1 else x[:, :, ::stride, ::stride].contiguous(memory_format=ops.memory_format(x))


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        offset: Tensor,
        weight: Tensor,
        num_segments: int,
        fold: int,
        owned: bool,
        stride: int | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.shape, ctx.num_segments, ctx.group_size, ctx.stride = x.shape, num_segments, fold // offset.shape[1], stride
        ctx.join, signs = _join_before(x, owned)
        ctx.save_for_backward(offset, weight, signs)
        ctx.set_materialize_grads(False)
        if not owned:
            return _outputs(ctx, x, _shifted(x, offset, weight, num_segments, ctx.group_size, stride))
        branches, _ = _overwritten(x, offset, weight, num_segments, ctx.group_size, stride, stride == 1)
        return _outputs(ctx, x, branches)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, passed: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None and passed is None:
            return (None,) * len(ctx.needs_input_grad)
        offset, weight, signs = ctx.saved_tensors
        x_grad = _gathered(ctx, grad, None, offset, weight, passed, signs)[0]
        return _masked(ctx, x_grad, signs), None, None, None, None, None, None


class _SplitByNets(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        fold: int,
        num_segments: int,
        owned: bool,
        stride: int | None,
        means: Tensor | None,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.shape, ctx.num_segments, ctx.group_size, ctx.stride = x.shape, num_segments, fold // 4, stride
        kept = None
        if not owned:
            kept, means = _kept_and_pooled(x, fold)
        elif means is None:
            means = pooled(x[:, :fold])
        offset, weight, state = torch.ops.tin.interlace_nets(means, list(weights), num_segments)
        ctx.join, signs = _join_before(x, owned)
        if kept is None:
            branches, kept = _overwritten(x, offset, weight, num_segments, ctx.group_size, stride, True)
        else:
            branches = _shifted(x, offset, weight, num_segments, ctx.group_size, stride)
        ctx.save_for_backward(kept, means, offset, weight, state, signs, *weights)
        ctx.set_materialize_grads(False)
        return _outputs(ctx, x, branches)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, passed: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None and passed is None:
            return (None,) * len(ctx.needs_input_grad)
        kept, means, offset, weight, state, signs, *weights = ctx.saved_tensors
        x_grad, offset_grad, weight_grad = _gathered(ctx, grad, kept, offset, weight, passed, signs)
        means_grad, *grads = torch.ops.tin.interlace_nets_backward(
            means, weights, offset, weight, state, offset_grad, weight_grad, ctx.num_segments
        )
        _spread(x_grad, means_grad, signs)
        return _masked(ctx, x_grad, signs), None, None, None, None, None, *grads


def _join_before(x: Tensor, owned: bool) -> tuple[Any, Tensor | None]:
    """The join that made x and its signs, where a split may mask the gradient for it, in its own pass."""
    join: Any = x.grad_fn if owned else None
    if not is_join(join) or x.shape[2] * x.shape[3] == 1:
        return None, None
    signs, join.signs = join.signs, None
    return join, signs


def _masked(ctx: Any, x_grad: Tensor, signs: Tensor | None) -> Tensor:
    """Tells the join that its part is done."""
    if signs is not None:
        ctx.join.masked = x_grad
    return x_grad


def _outputs(ctx: Any, x: Tensor, branches: Branches) -> tuple[Tensor, Tensor, Tensor | None]:
    """What a split's forward returns to autograd."""
    branch, identity, fold = branches
    if branch is x:
        ctx.mark_dirty(x)
    if fold is not None:
        ctx.mark_non_differentiable(fold)
        # the same memory, but to autograd a tensor of its own: it stands for what x was
        identity = x.new_empty(0).set_(x.untyped_storage(), x.storage_offset(), x.shape, x.stride())
    elif identity is x:
        identity = x.view_as(x)
    return branch, identity, fold


def _shifted(
    x: Tensor, offset: Tensor, weight: Tensor, num_segments: int, group_size: int, stride: int | None
) -> Branches:
    """x shifted, in memory of its own."""
    return Branches(ops.temporal_interlace(x, offset, weight, num_segments, group_size), pixels(x, stride or 1))


def _overwritten(
    x: Tensor, offset: Tensor, weight: Tensor, num_segments: int, group_size: int, stride: int | None, keep: bool
) -> tuple[Branches, Tensor | None]:
    """x shifted where it is, and what the moved channels were, if they are to be kept."""
    identity = pixels(x, stride or 1)
    kept = torch.ops.tin.temporal_interlace_(x, offset, weight, num_segments, group_size, keep)
    return Branches(x, identity, kept if stride == 1 else None), kept if keep else None


def _gathered(
    ctx: Any,
    grad: Tensor | None,
    kept: Tensor | None,
    offset: Tensor,
    weight: Tensor,
    passed: Tensor | None,
    signs: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, of both branches together, and, with `kept`, of offset and weight; with `signs`, as the join passes it."""
    if grad is None:  # nobody used the branch
        assert passed is not None
        grad = passed.new_zeros(ctx.shape).contiguous(memory_format=ops.memory_format(passed))
    if signs is not None:
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.tin.split_backward(
            grad, kept, offset, weight, ctx.num_segments, ctx.group_size, passed, ctx.stride, signs
        )
        return found
    sums, whole = kept is not None, passed if ctx.stride == 1 else None
    x_grad, offset_grad, weight_grad = torch.ops.tin.temporal_interlace_backward(
        grad, grad if kept is None else kept, offset, weight, ctx.num_segments, True, sums, sums, ctx.group_size, whole
    )
    if ctx.stride > 1 and passed is not None:
        x_grad[:, :, :: ctx.stride, :: ctx.stride] += passed
    return x_grad, offset_grad, weight_grad


def _kept_and_pooled(x: Tensor, fold: int) -> tuple[Tensor, Tensor]:
    """A copy of x's first channels and their means, in one pass where that can be."""
    if x.numel() > 0 and on_cpu_in_rows(x):
        both: tuple[Tensor, Tensor] = torch.ops.tin.take_fold(x, fold)
        return both
    kept = x[:, :fold].clone(memory_format=ops.memory_format(x))  # never a view: x may be overwritten
    return kept, pooled(kept)


def _spread(x_grad: Tensor, means_grad: Tensor, signs: Tensor | None) -> None:
    """The backward pass of `pooled`, added to the gradient of x; with `signs`, where they are set."""
    if on_cpu_in_rows(x_grad):
        torch.ops.tin.spread_means_(x_grad, means_grad, signs)
        return
    fold, count = means_grad.shape[1], x_grad.shape[2] * x_grad.shape[3]
    x_grad[:, :fold] += (means_grad / count).to(x_grad.dtype)[:, :, None, None]


def _may_overwrite(x: Tensor, fold: int) -> bool:
    """Whether the moved channels may and should be overwritten in x's memory."""
    if torch.is_grad_enabled() and x.requires_grad and not is_join(x.grad_fn):
        return False  # what made x may need it for its own gradient; a join does not
    return fold % 8 == 0 and x.shape[1] % 8 == 0 and on_cpu_in_rows(x)
