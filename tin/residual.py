"""Where a residual block splits and where it joins: each one pass over memory, forwards and backwards.

PyTorch's own way reads and writes the block's input and output several times more: an addition, then a ReLU; in the backward
pass a ReLU, then a sum of the two branches' gradients. What is saved there pays for the shift.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tin import ops

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
    x: Tensor, offset: Tensor, weight: Tensor, num_segments: int, fold: int, owned: bool, stride: int = 1
) -> Branches:
    """`temporal_interlace` for the residual branch, and x for the identity; the gradients of the two come back in one pass.

    Args:
        x: (N·T, C, H, W).
        offset, weight, num_segments: as `tin.ops.temporal_interlace`.
        fold: channels that move, G·g.
        owned: nobody but the two branches will read x: then, where that pays, the moved channels are overwritten in x's
            memory, and the three quarters that do not move stay where they are.
        stride: every how many pixels, down and across, the identity is read. What is overwritten is not copied for the others.
    """
    group_size = fold // offset.shape[1]
    if not _is_eager(x) or (torch.is_grad_enabled() and (offset.requires_grad or weight.requires_grad)):
        return _moved(x, None, offset, weight, num_segments, group_size, stride)
    owned = owned and _may_overwrite(x, fold)
    if torch.is_grad_enabled() and x.requires_grad:
        return Branches(*_Split.apply(x, offset, weight, num_segments, fold, owned, stride))
    return _moved(x, _kept(x, fold) if owned else None, offset, weight, num_segments, group_size, stride)


def split_by_nets(
    x: Tensor, fold: int, weights: Sequence[Tensor], num_segments: int, owned: bool, stride: int = 1
) -> Branches | None:
    """TIN's whole module: pools the first `fold` channels, asks its networks for offsets and gains, and splits.

    What PyTorch needs some twenty-five small operators for, and as many in the backward pass, is three here. Of x the moved
    channels alone are kept for the backward pass.

    Args:
        x, num_segments, owned, stride: as `split`.
        fold: channels to move, in four groups.
        weights: the networks': offset kernel (1, fold, 3) and bias, gain kernel (2, fold, 3) and bias, fc1 (T, T) and bias,
            fc2 (2, T) and bias; float32, or float64 like x.

    Returns:
        None where the kernels do not take this; compose it of PyTorch's operators then.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    if not _is_eager(x) or num_segments > MAX_SEGMENTS or any(w.dtype != wide for w in weights):
        return None
    owned = owned and _may_overwrite(x, fold)
    if torch.is_grad_enabled() and (x.requires_grad or any(w.requires_grad for w in weights)):
        return Branches(*_SplitByNets.apply(x, fold, num_segments, owned, stride, *weights))
    kept, means = _kept_and_pooled(x, fold) if owned else (None, pooled(x[:, :fold]))
    offset, weight, _ = torch.ops.tin.interlace_nets(means, list(weights), num_segments)
    return _moved(x, kept, offset, weight, num_segments, fold // 4, stride)


def pooled(channels: Tensor) -> Tensor:
    """(N·T, F, H, W) -> means over H and W, (N·T, F), in float32 at least: rounded to half precision, a mean loses the small
    differences between frames that the offsets are read from."""
    return channels.mean(dim=(2, 3), dtype=torch.promote_types(channels.dtype, torch.float32))


def pixels(x: Tensor, stride: int) -> Tensor:
    """Every `stride`-th pixel, down and across, dense."""
    return x if stride == 1 else x[:, :, ::stride, ::stride].contiguous(memory_format=ops.memory_format(x))


def join(branch: Tensor, norm: nn.Module, identity: Tensor, fold: Tensor | None = None) -> Tensor:
    """relu(norm(branch) + identity), in the memory of `branch` where that can be; a batch norm in evaluation mode is part of the
    one pass.

    Args:
        branch: (N·T, C, H, W), fresh: what a convolution has just made.
        norm: its batch norm, or nothing's (nn.Identity).
        identity, fold: as `Branches` has them.
    """
    tracked = torch.is_grad_enabled() and (branch.requires_grad or identity.requires_grad)
    if not tracked and _is_plain(norm, branch) and _fits(branch, identity):
        torch.ops.tin.norm_add_relu_(
            branch, identity, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps, fold
        )
        return branch
    branch = norm(branch)
    if fold is None and not _fits(branch, identity):
        return torch.relu_(branch.add_(identity))
    if torch.is_grad_enabled() and (branch.requires_grad or identity.requires_grad):
        joined: Tensor = _Join.apply(branch, identity, fold)
        return joined
    torch.ops.tin.add_relu_(branch, identity, fold)
    return branch


def watched(module: nn.Module) -> bool:
    """Whether somebody waits for the module to be called, and may keep what it takes or makes. A forward pre-hook whose attribute
    `keeps_nothing` is true has read what it wants when the module begins: it does not count."""
    everyone = nn.modules.module
    pre_hooks = module._forward_pre_hooks
    return bool(
        module._forward_hooks
        or (pre_hooks and not all(getattr(hook, "keeps_nothing", False) for hook in pre_hooks.values()))
        or module._backward_hooks
        or module._backward_pre_hooks
        or everyone._global_forward_hooks
        or everyone._global_forward_pre_hooks
        or everyone._global_backward_hooks
        or everyone._global_backward_pre_hooks
    )


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, offset: Tensor, weight: Tensor, num_segments: int, fold: int, owned: bool, stride: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        ctx.num_segments, ctx.group_size, ctx.stride = num_segments, fold // offset.shape[1], stride
        ctx.join, signs = _join_before(x, owned)
        ctx.save_for_backward(offset, weight, signs)
        ctx.set_materialize_grads(False)
        return _interlaced(ctx, x, _kept(x, fold) if owned else None, offset, weight)

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
        ctx: Any, x: Tensor, fold: int, num_segments: int, owned: bool, stride: int, *weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        kept, means = _kept_and_pooled(x, fold)
        offset, weight, state = torch.ops.tin.interlace_nets(means, list(weights), num_segments)
        ctx.num_segments, ctx.group_size, ctx.stride = num_segments, fold // 4, stride
        ctx.join, signs = _join_before(x, owned)
        ctx.save_for_backward(kept, means, offset, weight, state, signs, *weights)
        ctx.set_materialize_grads(False)
        return _interlaced(ctx, x, kept if owned else None, offset, weight)

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
        return _masked(ctx, x_grad, signs), None, None, None, None, *grads


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, branch: Tensor, identity: Tensor, fold: Tensor | None) -> Tensor:
        ctx.layout = ops.memory_format(branch)
        ctx.signs = torch.ops.tin.add_relu_signs_(branch, identity, fold)  # until a split has taken them
        ctx.save_for_backward(ctx.signs)
        ctx.masked = None
        ctx.mark_dirty(branch)
        return branch

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        masked, ctx.masked, ctx.signs = ctx.masked, None, None
        if grad is not masked:  # or with somebody else's added: what is masked twice is masked
            (signs,) = ctx.saved_tensors
            grad = torch.ops.tin.add_relu_backward(grad.contiguous(memory_format=ctx.layout), signs)
        return grad, grad, None


def _join_before(x: Tensor, owned: bool) -> tuple[Any, Tensor | None]:
    """The join that made x and its signs, where a split may mask the gradient for it, in its own pass."""
    join: Any = x.grad_fn if owned else None
    if not _is_join(join) or x.shape[2] * x.shape[3] == 1:
        return None, None
    signs, join.signs = join.signs, None
    return join, signs


def _masked(ctx: Any, x_grad: Tensor, signs: Tensor | None) -> Tensor:
    """Tells the join that its part is done."""
    if signs is not None:
        ctx.join.masked = x_grad
    return x_grad


def _interlaced(
    ctx: Any, x: Tensor, kept: Tensor | None, offset: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The outputs of a split's forward; with `kept`, in x's own memory."""
    ctx.shape = x.shape
    branch, identity, fold = _moved(x, kept, offset, weight, ctx.num_segments, ctx.group_size, ctx.stride)
    if branch is x:
        ctx.mark_dirty(x)
    if fold is not None:
        ctx.mark_non_differentiable(fold)
        # the same memory, but to autograd a tensor of its own: it stands for what x was
        identity = x.new_empty(0).set_(x.untyped_storage(), x.storage_offset(), x.shape, x.stride())
    elif identity is x:
        identity = x.view_as(x)
    return branch, identity, fold


def _moved(
    x: Tensor, kept: Tensor | None, offset: Tensor, weight: Tensor, num_segments: int, group_size: int, stride: int
) -> Branches:
    """x shifted; with `kept`, a copy of the channels that move, in x's own memory."""
    identity = pixels(x, stride)
    if kept is None:
        return Branches(ops.temporal_interlace(x, offset, weight, num_segments, group_size), identity)
    torch.ops.tin.temporal_interlace_into(x, kept, offset, weight, num_segments, group_size)
    return Branches(x, identity, kept if identity is x else None)


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


def _kept(x: Tensor, fold: int) -> Tensor:
    return x[:, :fold].clone(memory_format=ops.memory_format(x))  # never a view: x may be overwritten


def _kept_and_pooled(x: Tensor, fold: int) -> tuple[Tensor, Tensor]:
    """`_kept` and its `pooled`, where that can be in one pass."""
    if x.numel() > 0 and _on_cpu_in_rows(x):
        both: tuple[Tensor, Tensor] = torch.ops.tin.take_fold(x, fold)
        return both
    kept = _kept(x, fold)
    return kept, pooled(kept)


def _spread(x_grad: Tensor, means_grad: Tensor, signs: Tensor | None) -> None:
    """The backward pass of `pooled`, added to the gradient of x; with `signs`, where they are set."""
    if _on_cpu_in_rows(x_grad):
        torch.ops.tin.spread_means_(x_grad, means_grad, signs)
        return
    fold, count = means_grad.shape[1], x_grad.shape[2] * x_grad.shape[3]
    x_grad[:, :fold] += (means_grad / count).to(x_grad.dtype)[:, :, None, None]


def _may_overwrite(x: Tensor, fold: int) -> bool:
    """Whether the moved channels may and should be overwritten in x's memory."""
    if torch.is_grad_enabled() and x.requires_grad and not _is_join(x.grad_fn):
        return False  # what made x may need it for its own gradient; a join does not
    return fold % 8 == 0 and x.shape[1] % 8 == 0 and _on_cpu_in_rows(x)


def _is_join(node: Any) -> bool:
    return type(node).__name__ == "_JoinBackward"


def _on_cpu_in_rows(x: Tensor) -> bool:
    """Whether the CPU kernels for channels_last memory, a row of channels a pixel, run on x."""
    return x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)


def _is_eager(x: Tensor) -> bool:
    """Whether csrc/'s kernels run on x. A compiler fuses the plain operators itself, and better where it sees them."""
    return not torch.compiler.is_compiling() and ops.has_native(x.device.type)


def _is_plain(norm: nn.Module, branch: Tensor) -> bool:
    """Whether the norm is a fixed scale and shift for each channel that the kernels can apply."""
    return (
        type(norm) is nn.BatchNorm2d
        and not norm.training
        and norm.running_mean is not None
        and norm.affine
        and norm.weight.dtype == torch.promote_types(branch.dtype, torch.float32)
        and not (torch.is_grad_enabled() and norm.weight.requires_grad)
        and not watched(norm)
    )


def _fits(branch: Tensor, identity: Tensor) -> bool:
    """Whether our kernels take the join: tensors of one kind and layout."""
    return (
        _is_eager(branch)
        and branch.dtype == identity.dtype
        and branch.shape == identity.shape
        and branch.stride() == identity.stride()
        and (branch.is_contiguous() or branch.is_contiguous(memory_format=torch.channels_last))
    )
