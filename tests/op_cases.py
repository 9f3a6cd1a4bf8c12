"""Inputs of the temporal-interlace op that the CPU and the GPU tests share: odd sizes, odd offsets, both memory formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

HALF_TYPES = (torch.float16, torch.bfloat16)
ALL_TYPES = (torch.float32, torch.float64, *HALF_TYPES)
FORMATS = (torch.contiguous_format, torch.channels_last)


@dataclass(frozen=True)
class Case:
    """One shape of input; `offsets` are frames, one a group, repeated over the clips."""

    segments: int
    channels: int
    group_size: int
    height: int
    width: int
    offsets: tuple[float, ...]
    clips: int = 2

    def __str__(self) -> str:
        return f"T{self.segments}-C{self.channels}-g{self.group_size}-{self.height}x{self.width}-{self.offsets}"

    def tensors(
        self,
        dtype: torch.dtype = torch.float64,
        memory_format: torch.memory_format = torch.contiguous_format,
        device: str = "cpu",
        parameters: torch.dtype | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x, offset and weight; the same numbers for every dtype, format and device (exact in float16)."""
        random = torch.Generator().manual_seed(20200107)
        shape = (self.clips * self.segments, self.channels, self.height, self.width)
        x = torch.randn(shape, generator=random).half().to(device, dtype).contiguous(memory_format=memory_format)
        parameters = parameters or torch.promote_types(dtype, torch.float32)
        offset = torch.tensor(self.offsets).repeat(self.clips, 1).to(device, parameters)
        weight = torch.rand((self.clips, self.segments, len(self.offsets)), generator=random) + 0.25
        return x, offset, weight.half().to(device, parameters)


CASES = (
    Case(1, 8, 2, 3, 3, (0.0, 0.25)),  # a clip of one frame
    Case(2, 16, 1, 1, 1, (0.5, -0.5, 1.25, -1.25)),  # one pixel
    Case(3, 33, 5, 5, 7, (0.3, -1.7)),  # nothing divides anything
    Case(8, 64, 4, 5, 5, (0.4, -1.3, -0.4, 1.3)),  # TIN's groups in layer1
    Case(8, 64, 8, 7, 7, (-1.0, 1.0)),  # TSM's
    Case(8, 256, 16, 3, 3, (1.9, 0.1, -1.9, -0.1)),
    Case(16, 32, 8, 2, 3, (2.0, -15.5, 0.0, 15.999)),  # all channels in groups
    Case(8, 24, 3, 3, 5, (8.0, -8.0, 7.5, -8.5, 1e9, -3e38)),  # beyond the clip
    Case(5, 20, 4, 4, 4, (float("inf"), float("-inf"), 0.75)),
    Case(4, 16, 1, 3, 3, (0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9, -0.1, -0.2, -0.3, -0.4)),  # many groups
    Case(2, 512, 32, 9, 11, (0.5, -0.5, 1.5, -1.5)),  # more than one part a frame
    Case(8, 64, 4, 5, 5, (0.4, -1.3, -0.4, 1.3), clips=0),  # an empty batch
)


# more than 8 MB in float32: the CPU kernels write past the caches. With groups of a cache line; several in one that they
# fill, and that they do not; and one that ends just past its line
LARGE = (
    Case(8, 256, 16, 32, 33, (0.4, -1.3, -9.0, 1.3)),
    Case(8, 64, 4, 92, 93, (0.4, -9.0, 1.0, 1.3), clips=1),
    Case(8, 48, 4, 92, 93, (0.4, -1.3), clips=1),
    Case(8, 64, 17, 92, 93, (0.4, -1.3), clips=1),
)


def tolerance(dtype: torch.dtype) -> dict[str, Any]:
    """Agreement of two orders of the same few operations."""
    return {
        torch.float64: {"rtol": 1e-12, "atol": 1e-12},
        torch.float32: {"rtol": 1e-5, "atol": 1e-5},
        torch.float16: {"rtol": 2e-3, "atol": 2e-3},
        torch.bfloat16: {"rtol": 1.6e-2, "atol": 1.6e-2},
    }[dtype]


def gradients(function: Callable[..., Tensor], inputs: tuple[Tensor, ...], grad: Tensor, *args: int) -> list[Tensor]:
    """Gradients of x, offset and weight through `function(x, offset, weight, *args)`."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    function(*leaves, *args).backward(grad)
    return [leaf.grad for leaf in leaves if leaf.grad is not None]
