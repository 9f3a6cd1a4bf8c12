"""The state that one rank has read, on every rank: a resumed run needs no file system that its machines share."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tin.checkpoints.tree import map_leaves
from tin.distributed import World


def broadcast_state(state: Any, world: World, source: int) -> Any:
    """The `state` of rank `source` on every rank; tensors travel one by one through the CPU, so that no rank holds it twice.

    Args:
        state: on rank `source` what `load_state` gave, its tensors on the CPU; not read on the others.
        world: this process among those of the run; the process group must have a backend for CPU tensors.
        source: who has it.

    Returns:
        On rank `source` `state` itself, on the others an equal one, in the same memory layout where that has no gaps.
    """
    if world.size == 1:
        return state
    tensors: list[Tensor] = []
    frame = [map_leaves(state, Tensor, lambda tensor: _hole(tensor, tensors)) if world.rank == source else None]
    dist.broadcast_object_list(frame, source, device=torch.device("cpu"))
    if world.rank != source:
        return map_leaves(frame[0], _Hole, lambda hole: _received(hole, source))
    for tensor in tensors:
        _broadcast(tensor, source)
    return state


class _Hole:
    """What a tensor is, without its numbers."""

    def __init__(self, tensor: Tensor) -> None:
        self.dtype, self.size, self.stride = tensor.dtype, tuple(tensor.size()), tensor.stride()


def _hole(tensor: Tensor, tensors: list[Tensor]) -> _Hole:
    # A tensor with gaps, or with one number at several places, comes out in another layout when it is made like itself.
    dense = torch.empty_like(tensor, device="meta").stride() == tensor.stride()
    tensors.append(tensor if dense else tensor.contiguous())
    return _Hole(tensors[-1])


def _received(hole: _Hole, source: int) -> Tensor:
    tensor = torch.empty_strided(hole.size, hole.stride, dtype=hole.dtype)
    _broadcast(tensor, source)
    return tensor


def _broadcast(tensor: Tensor, source: int) -> None:
    """In place, as bytes: gloo does not know every dtype."""
    if tensor.numel():
        dist.broadcast(tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8), source)
