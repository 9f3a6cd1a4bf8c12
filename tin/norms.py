"""A batch norm and the ReLU after it in one pass over memory on a CPU, in evaluation mode and in training.

PyTorch's own take two passes forward, of which the norm's writes into new memory, one more to find the batch's variance, and as
many more backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tin.eager import is_dense, is_eager, on_cpu_in_rows, watched


def rectified(convolution: nn.Module, norm: nn.Module, relu: nn.Module, x: Tensor) -> Tensor:
    """relu(norm(convolution(x))). In evaluation mode in the memory of what the convolution has made, where nobody else reads it."""
    made = convolution(x)
    result: Tensor
    if made.device.type == "cpu" and type(relu) is nn.ReLU and not watched(relu):
        if torch.is_grad_enabled() and made.requires_grad:
            if takes_batches(norm, made):
                result = _Rectified.apply(made, norm, norm.weight, norm.bias)
                return result
        elif is_fixed(norm, made) and is_dense(made) and not watched(convolution):
            torch.ops.tin.norm_relu_(made, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
            return made
    result = relu(norm(made))
    return result


def is_fixed(norm: nn.Module, x: Tensor) -> bool:
    """Whether the norm is a fixed scale and shift for each channel of x that the kernels can apply."""
    return (
        is_eager(x)
        and _is_plain(norm, x)
        and not norm.training
        and not (torch.is_grad_enabled() and norm.weight.requires_grad)
    )


def takes_batches(norm: nn.Module, x: Tensor) -> bool:
    """Whether the norm is by the batch's own mean and variance, and the kernels can find them."""
    return (
        is_eager(x)
        and _is_plain(norm, x)
        and norm.training
        and norm.momentum is not None
        and on_cpu_in_rows(x)
        and x.shape[1] % 8 == 0
        and x.numel() > x.shape[1]
    )


def batch_norm_relu(
    norm: nn.BatchNorm2d, x: Tensor, identity: Tensor | None = None, fold: Tensor | None = None, pooled: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """relu(norm(x) + identity) where the norm `takes_batches`; its running estimates move on.

    Args:
        norm, x, identity, fold: as `tin.joins.join` has them.
        pooled: first channels of which the means are wanted.

    Returns:
        The result; its signs, a bit an element; mean and 1 / sqrt(var + eps) of the batch, (C,); and means, (N·T, pooled) or None.
    """
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    result, signs, mean, invstd, means = torch.ops.tin.batch_norm_relu(
        x, identity, fold, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps, pooled
    )
    return result, signs, mean, invstd, means if pooled else None


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: nn.BatchNorm2d, weight: Tensor, bias: Tensor) -> Tensor:
        result, signs, mean, invstd, _ = batch_norm_relu(norm, x)
        ctx.save_for_backward(signs, x, weight, mean, invstd)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.contiguous(memory_format=torch.channels_last)
        x_grad, weight_grad, bias_grad = torch.ops.tin.batch_norm_backward(grad, *ctx.saved_tensors)
        return x_grad, None, weight_grad, bias_grad


def _is_plain(norm: nn.Module, x: Tensor) -> bool:
    """Whether the norm is PyTorch's own for x, with running estimates, and nobody waits for its call."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.running_mean is not None
        and norm.affine
        and norm.weight.dtype == torch.promote_types(x.dtype, torch.float32)
        and norm.running_mean.dtype == norm.weight.dtype
        and not watched(norm)
    )
