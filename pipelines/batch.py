"""What a loader hands out: batches, and figures about itself."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.graphs import Ready
from pipelines.maker import Made


@dataclass(frozen=True, slots=True)
class Batch:
    """N videos of V views of T frames."""

    frames: torch.Tensor
    """(N·V·T, 3, input_size, input_size), normalised, channels_last, of the loader's dtype and device. It is the caller's:
    nothing overwrites it. On a GPU the stream that was current when the batch was asked for has been made to wait for it."""
    labels: torch.Tensor
    """(N,) int64 on the same device; −1 where the list has none."""
    ids: NDArray[np.int64]
    """(N,) positions in the list; in training a substitute's own."""
    num_views: int
    """V; 1 but for test crops and clips."""


@dataclass(frozen=True, slots=True)
class LoaderStats:
    """What a loader has done since it was made."""

    clips: int
    """Videos handed out."""
    frames_used: int
    """Frames handed out, each counted once however many crops show it."""
    frames_decoded: int
    """Frames that were decoded to get them, where that is known: by our processes, and by DALI from images. NVDEC does not
    tell. Includes what was decoded ahead."""
    wait_seconds: float
    """Time that the consumer waited for batches."""
    decode_seconds: float
    """Processor time that our processes spent on decoding, summed over them. DALI's own decoding is not in it."""
    bad: int
    """Places of batches that held a substitute (training); videos that failed (testing)."""


class HandOver:
    """Gives the consumer's stream a batch that a graph's stream has made, and keeps its memory until both are done with it.

    torch's allocator does not know DALI's memory, which would be free for other work as soon as Python drops it, while
    kernels that were queued on it may still have to run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: deque[tuple[torch.cuda.Event, Ready]] = deque()

    def batch(self, made: Made) -> Batch:
        """The batch, ready for work that is queued on the current stream from now on."""
        labels = [-1 if plan.label is None else plan.label for plan in made.plans]
        gpu = self._device.type == "cuda"
        if gpu and made.ready.done is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(made.ready.done)
            if all(part.data_ptr() != made.ready.frames.data_ptr() for part in made.ready.parts):
                made.ready.frames.record_stream(stream)  # torch's own, from a copy or a cast on the graph's stream
        return Batch(
            frames=made.ready.frames,
            labels=torch.tensor(labels, dtype=torch.int64, pin_memory=gpu).to(self._device, non_blocking=True),
            ids=np.array([plan.id for plan in made.plans], dtype=np.int64),
            num_views=made.plans[0].num_views,
        )

    def given_back(self, made: Made) -> None:
        """The consumer asks for the next batch: what it has queued so far may still read this one."""
        if self._device.type != "cuda":
            return
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        self._held.append((event, made.ready))
        while self._held and self._held[0][0].query():
            self._held.popleft()

    def close(self) -> None:
        """Wait for the work on what is still held."""
        if self._held:
            torch.cuda.current_stream(self._device).synchronize()
            self._held.clear()
