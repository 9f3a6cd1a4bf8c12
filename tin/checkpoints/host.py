"""A copy of a training state in host memory, taken in the middle of training without waiting for the GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tin.checkpoints.tree import map_leaves


class HostCopies:
    """Makes copies of states. On a GPU one stream of its own moves them, so that training goes on meanwhile."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def copy(self, state: Mapping[str, Any]) -> HostCopy:
        """The state as it is now, or, for tensors on a GPU, when the work given to it so far is done.

        Args:
            state: what `save_checkpoint` takes.
        """
        gpu: dict[torch.device, list[tuple[Tensor, Tensor]]] = {}

        def one(tensor: Tensor) -> Tensor:
            tensor = tensor.detach()
            if not tensor.is_cuda:
                return tensor.clone()
            host = torch.empty_like(tensor, device="cpu", pin_memory=True)
            gpu.setdefault(tensor.device, []).append((tensor, host))
            return host

        copied = map_leaves(dict(state), Tensor, one)
        return HostCopy(copied, [self._move(device, pairs) for device, pairs in gpu.items()])

    def _move(self, device: torch.device, pairs: list[tuple[Tensor, Tensor]]) -> torch.cuda.Event:
        """Copy on the side stream; the event says when it is done."""
        training = torch.cuda.current_stream(device)
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        side = self._streams[device]
        try:
            # The next step changes weights in place. A copy within the GPU takes a thousandth of the way to the host.
            sources = [tensor.clone() for tensor, _ in pairs]
        except torch.OutOfMemoryError:
            sources = []
        side.wait_stream(training)
        with torch.cuda.stream(side):
            for source, (_, host) in zip(sources or [tensor for tensor, _ in pairs], pairs, strict=True):
                host.copy_(source, non_blocking=True)
                source.record_stream(side)
            done = torch.cuda.Event(blocking=True)
            done.record(side)
        if not sources:
            training.wait_event(done)  # no memory left for copies: the GPU, not this process, waits some milliseconds
        return done


class HostCopy:
    """A state whose tensors are on their way to host memory."""

    def __init__(self, state: dict[str, Any], events: list[torch.cuda.Event]) -> None:
        self._state, self._events = state, events

    def wait(self) -> dict[str, Any]:
        """The state, when all of it has arrived."""
        for event in self._events:
            event.synchronize()
        return self._state

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        sizes: list[int] = []
        map_leaves(self._state, Tensor, lambda tensor: sizes.append(tensor.nbytes))
        return sum(sizes)
