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

from tin import ops


@dataclass(slots=True)
class Relay:
    """What passes from a join to the split after it beside x, where nobody else reads x: its memory may be used."""

    fold: int = 0
    """The split wants the means over H and W of so many first channels."""
    means: Tensor | None = None
    """(N·T, fold), in float32 at least, where the join found them."""


def rectified(convolution: nn.Module, norm: nn.Module, relu: nn.Module, x: Tensor) -> Tensor:
    """relu(norm(convolution(x))). On a CPU, a batch norm in evaluation mode and the ReLU are one pass over what the convolution has
    made, in its memory; PyTorch's own are two, the first of them into new memory."""
    made = convolution(x)
    if (
        made.device.type == "cpu"
        and type(relu) is nn.ReLU
        and not (torch.is_grad_enabled() and made.requires_grad)
        and _is_plain(norm, made)
        and _fits(made, made)
        and not watched(relu, convolution)
    ):
        torch.ops.tin.norm_relu_(made, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
        return made
    result: Tensor = relu(norm(made))
    return result


def join(
    convolution: nn.Module,
    norm: nn.Module,
    x: Tensor,
    identity: Tensor,
    fold: Tensor | None = None,
    relay: Relay | None = None,
) -> Tensor:
    """relu(norm(convolution(x)) + identity), the last steps in the memory of what the convolution made where that can be; a batch
    norm in evaluation mode is part of the one pass.

    Args:
        convolution: the branch's last; it makes (N·T, C, H, W).
        norm: its batch norm, or nothing's (nn.Identity).
        x: what the convolution takes.
        identity, fold: as `tin.residual.Branches` has them.
        relay: to the split that takes the result, and its alone; gets the means that it asks for, where the pass can find them.
    """
    branch = convolution(x)
    tracked = torch.is_grad_enabled() and (branch.requires_grad or identity.requires_grad)
    relay = relay if relay is not None and relay.fold and _pools(branch) else None
    if not tracked and _is_plain(norm, branch) and _fits(branch, identity) and not watched(convolution):
        norms = [norm.running_mean, norm.running_var, norm.weight, norm.bias]
        if relay is None:
            torch.ops.tin.norm_add_relu_(branch, identity, *norms, norm.eps, fold)
        else:
            _, relay.means = torch.ops.tin.add_relu_pool_(branch, identity, fold, norms, norm.eps, False, relay.fold)
        return branch
    branch = norm(branch)
    if fold is None and not _fits(branch, identity):
        return torch.relu_(branch.add_(identity))
    if torch.is_grad_enabled() and (branch.requires_grad or identity.requires_grad):
        joined: Tensor
        joined, means = _Join.apply(branch, identity, fold, relay.fold if relay is not None else 0)
        if relay is not None:
            relay.means = means
        return joined
    if relay is None:
        torch.ops.tin.add_relu_(branch, identity, fold)
    else:
        _, relay.means = torch.ops.tin.add_relu_pool_(branch, identity, fold, [], 0.0, False, relay.fold)
    return branch


def watched(*modules: nn.Module) -> bool:
    """Whether somebody waits for one of the modules to be called, and may keep what it takes or makes. A forward pre-hook whose
    attribute `keeps_nothing` is true has read what it wants when the module begins: it does not count."""
    everyone = nn.modules.module
    if (
        everyone._global_forward_hooks
        or everyone._global_forward_pre_hooks
        or everyone._global_backward_hooks
        or everyone._global_backward_pre_hooks
    ):
        return True
    for module in modules:
        if module._forward_hooks or module._backward_hooks or module._backward_pre_hooks:
            return True
        pre_hooks = module._forward_pre_hooks
        if pre_hooks and not all(getattr(hook, "keeps_nothing", False) for hook in pre_hooks.values()):
            return True
    return False


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, branch: Tensor, identity: Tensor, fold: Tensor | None, pooled: int
    ) -> tuple[Tensor, Tensor | None]:
        ctx.layout = ops.memory_format(branch)
        means = None
        if pooled:
            signs, means = torch.ops.tin.add_relu_pool_(branch, identity, fold, [], 0.0, True, pooled)
            ctx.mark_non_differentiable(means)  # the split that takes them knows what they are the means of
        else:
            signs = torch.ops.tin.add_relu_signs_(branch, identity, fold)
        ctx.signs = signs  # until a split has taken them
        ctx.save_for_backward(signs)
        ctx.masked = None
        ctx.mark_dirty(branch)
        ctx.set_materialize_grads(False)
        return branch, means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 4
        masked, ctx.masked, ctx.signs = ctx.masked, None, None
        if grad is not masked:  # or with somebody else's added: what is masked twice is masked
            (signs,) = ctx.saved_tensors
            grad = torch.ops.tin.add_relu_backward(grad.contiguous(memory_format=ctx.layout), signs)
        return grad, grad, None, None


def is_join(node: Any) -> bool:
    return type(node).__name__ == "_JoinBackward"


def on_cpu_in_rows(x: Tensor) -> bool:
    """Whether the CPU kernels for channels_last memory, a row of channels a pixel, run on x."""
    return x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)


def is_eager(x: Tensor) -> bool:
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
        is_eager(branch)
        and branch.dtype == identity.dtype
        and branch.shape == identity.shape
        and branch.stride() == identity.stride()
        and (branch.is_contiguous() or branch.is_contiguous(memory_format=torch.channels_last))
    )


def _pools(branch: Tensor) -> bool:
    """Whether the kernels that join can also pool."""
    return is_eager(branch) and on_cpu_in_rows(branch) and branch.shape[1] % 8 == 0 and branch.numel() > 0
