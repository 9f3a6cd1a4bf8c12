"""Stands in for NVIDIA apex's compiled kernels, with their arguments, in plain PyTorch on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

Lists = list[list[Tensor]]


def multi_tensor_l2norm(
    chunk: int, noop: Tensor, lists: Lists, per_tensor: bool | None = None
) -> tuple[Tensor, Tensor]:
    """(1,) of all, and (n,) of each when asked for; a norm that is not finite raises the no-op flag."""
    (tensors,) = lists
    assert noop.dtype == torch.int32
    norms = torch.stack([tensor.float().norm() for tensor in tensors])
    total = norms.norm().reshape(1)
    noop.logical_or_(~total.isfinite())
    return total, norms if per_tensor else norms.new_empty(0)


@torch.no_grad()
def multi_tensor_sgd(
    chunk: int, noop: Tensor, lists: Lists, decay: float, momentum: float, dampening: float, lr: float,
    nesterov: bool, first_run: bool, decay_after: bool, scale: float,
) -> None:  # fmt: skip
    """Nothing where the flag is up, else one step of each of (gradients, weights, momenta)."""
    assert (noop.dtype, noop.shape) == (torch.int32, (1,))
    assert type(lr) is float  # pybind11 would take a tensor, and wait for the device
    assert not decay_after
    if noop.item():
        return
    for gradient, weight, buffer in zip(*lists, strict=True):
        step = gradient * scale + decay * weight
        buffer.copy_(step if first_run else momentum * buffer + (1 - dampening) * step)
        weight -= lr * (step + momentum * buffer if nesterov else buffer)


def multi_tensor_lamb_mp(
    chunk: int, noop: Tensor, lists: Lists, lr: Tensor, beta1: float, beta2: float, eps: float, step: Tensor,
    bias_correction: int, decay: float, averaging: int, mode: int, norm: Tensor, max_norm: Tensor,
    use_nvlamb: bool, found_inf: Tensor, inv_scale: Tensor,
) -> None:  # fmt: skip
    """Nothing where the flag is up, else one step of LAMB of each of (gradients, weights, means, squares)."""
    for value, dtype in (
        (lr, torch.float32),
        (step, torch.int32),
        (max_norm, torch.float32),
        (found_inf, torch.float32),
    ):
        assert value.dtype == dtype  # the kernel reads them at their addresses, on the device
    if noop.item():
        return
    clip = norm / max_norm if norm > max_norm else torch.ones(1)
    for gradient, weight, mean, square in zip(*lists, strict=True):
        scaled = gradient * inv_scale / clip
        mean.mul_(beta1).add_(scaled * (1 - beta1))
        square.mul_(beta2).add_(scaled.square() * (1 - beta2))
        count = int(step)
        update = mean / (1 - beta1**count) / ((square / (1 - beta2**count)).sqrt() + eps) + decay * weight
        trusted = use_nvlamb or decay != 0
        ratio = weight.norm() / update.norm() if trusted and weight.norm() > 0 and update.norm() > 0 else 1.0
        weight -= lr * ratio * update
