"""Where a residual block's branches join: addition, ReLU and what else reads the sum, in one pass over memory.

PyTorch's own way reads and writes the block's output several times more: the batch norm, an addition, then a ReLU; and the next
block's temporal module reads it again for the means that its networks take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tin import norms, ops
from tin.eager import is_dense, is_eager, on_cpu_in_rows, watched


@dataclass(slots=True)
class Relay:
    """What passes from a join to the split after it beside x, where nobody else reads x: its memory may be used."""

    fold: int = 0
    """The split wants the means over H and W of so many first channels."""
    means: Tensor | None = None
    """(N·T, fold), in float32 at least, where the join found them."""


def join(
    convolution: nn.Module,
    norm: nn.Module,
    x: Tensor,
    identity: Tensor,
    fold: Tensor | None = None,
    relay: Relay | None = None,
) -> Tensor:
    """relu(norm(convolution(x)) + identity), the last steps in one pass where that can be: in evaluation mode in the memory of what
    the convolution made, in training in memory of its own, since the norm keeps what it took.

    Args:
        convolution: the branch's last; it makes (N·T, C, H, W).
        norm: its batch norm, or nothing's (nn.Identity).
        x: what the convolution takes.
        identity, fold: as `tin.residual.Branches` has them.
        relay: to the split that takes the result, and its alone; gets the means that it asks for, where the pass can find them.
    """
    branch = convolution(x)
    relay = relay if relay is not None and relay.fold and _pools(branch) else None
    tracked = _is_tracked(branch, identity)
    if tracked and norms.takes_batches(norm, branch) and _fits(branch, identity):
        return _tracked(norm, branch, identity, fold, relay)
    if not tracked and norms.is_fixed(norm, branch) and _fits(branch, identity) and not watched(convolution):
        values = (norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps, fold)
        if relay is None:
            torch.ops.tin.norm_add_relu_(branch, identity, *values)
        else:
            relay.means = torch.ops.tin.norm_add_relu_pool_(branch, identity, *values, relay.fold)
        return branch
    branch = norm(branch)
    if fold is None and not _fits(branch, identity):
        return torch.relu_(branch.add_(identity))
    if _is_tracked(branch, identity):  # where nothing before the norm is, the norm's own weights may be
        return _tracked(None, branch, identity, fold, relay)
    if relay is None:
        torch.ops.tin.add_relu_(branch, identity, fold)
    else:
        _, relay.means = torch.ops.tin.add_relu_pool_(branch, identity, fold, False, relay.fold)
    return branch


def _tracked(
    norm: nn.Module | None, branch: Tensor, identity: Tensor, fold: Tensor | None, relay: Relay | None
) -> Tensor:
    """The join's last steps, for a backward pass; with a norm, the norm is the first of them."""
    weights = (norm.weight, norm.bias) if norm is not None else (None, None)
    joined: Tensor
    joined, means = _Join.apply(branch, identity, fold, relay.fold if relay is not None else 0, norm, *weights)
    if relay is not None:
        relay.means = means
    return joined


class _Join(torch.autograd.Function):
    """With a norm in training mode, of what the convolution has made, which stays; else in the branch's memory."""

    @staticmethod
    def forward(
        ctx: Any,
        branch: Tensor,
        identity: Tensor,
        fold: Tensor | None,
        pooled: int,
        norm: nn.BatchNorm2d | None,
        weight: Tensor | None,
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.layout = ops.memory_format(branch)
        joined = branch
        means: Tensor | None = None
        made: tuple[Tensor | None, ...] = ()
        if norm is not None:
            joined, signs, mean, invstd, means = norms.batch_norm_relu(norm, branch, identity, fold, pooled)
            made = (branch, weight, mean, invstd)
        elif pooled:
            signs, means = torch.ops.tin.add_relu_pool_(branch, identity, fold, True, pooled)
        else:
            signs = torch.ops.tin.add_relu_signs_(branch, identity, fold)
        if joined is branch:
            ctx.mark_dirty(branch)
        if means is not None:
            ctx.mark_non_differentiable(means)  # the split that takes them knows what they are the means of
        ctx.signs = signs  # until a split has taken them
        ctx.save_for_backward(signs, *made)
        ctx.masked = None
        ctx.set_materialize_grads(False)
        return joined, means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 7
        masked, ctx.masked, ctx.signs = ctx.masked, None, None
        signs, *made = ctx.saved_tensors
        if grad is not masked:  # or with somebody else's added: what is masked twice is masked
            grad = torch.ops.tin.add_relu_backward(grad.contiguous(memory_format=ctx.layout), signs)
        if not made:
            return grad, grad, None, None, None, None, None
        branch_grad, *norm_grads = torch.ops.tin.batch_norm_backward(grad, None, *made)
        return branch_grad, grad, None, None, None, *norm_grads


def is_join(node: Any) -> bool:
    return type(node).__name__ == "_JoinBackward"


def _is_tracked(branch: Tensor, identity: Tensor) -> bool:
    return torch.is_grad_enabled() and (branch.requires_grad or identity.requires_grad)


def _fits(branch: Tensor, identity: Tensor) -> bool:
    """Whether our kernels take the join: tensors of one kind and layout."""
    return (
        is_eager(branch)
        and branch.dtype == identity.dtype
        and branch.shape == identity.shape
        and branch.stride() == identity.stride()
        and is_dense(branch)
    )


def _pools(branch: Tensor) -> bool:
    """Whether the kernels that join can also pool."""
    return is_eager(branch) and on_cpu_in_rows(branch) and branch.shape[1] % 8 == 0 and branch.numel() > 0
