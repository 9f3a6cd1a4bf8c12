"""An optimiser's state in memory as its parameters are, which fused kernels take for granted."""

from __future__ import annotations

import torch
from torch import Tensor


def place_state(optimizer: torch.optim.Optimizer) -> None:
    """Lay every tensor of the state out as its parameter: same device, same strides.

    Fused kernels walk parameter, gradient and state by address. A state that was saved in another memory format would be
    applied to the wrong elements, without a word.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if not isinstance(value, Tensor) or value.shape != parameter.shape:
                continue
            if value.device != parameter.device or value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
