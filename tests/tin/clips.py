"""Batches in memory, shaped as a loader gives them: what the training and evaluation tests feed the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

NUM_CLASSES, NUM_SEGMENTS, SIZE = 3, 4, 32


@dataclass(frozen=True)
class Clips:
    frames: torch.Tensor
    labels: torch.Tensor
    ids: NDArray[np.int64]
    num_views: int = 1


@dataclass
class MemoryLoader:
    """Videos of noise with a bright band whose place is the class; training order is a function of the epoch."""

    videos: int = 24
    batch_size: int = 4
    training: bool = True
    num_views: int = 1
    failures: list[object] = field(default_factory=list)
    before_batch: Callable[[int, int], None] = lambda epoch, step: None
    _epoch: int = 0
    _start: int = 0

    @property
    def steps_left(self) -> int:
        return len(self) - self._start

    def __len__(self) -> int:
        return self.videos // self.batch_size if self.training else -(-self.videos // self.batch_size)

    def set_epoch(self, epoch: int, *, start_sample: int = 0) -> None:
        self._epoch, self._start = epoch, start_sample // self.batch_size

    def __iter__(self) -> Iterator[Clips]:
        order = np.random.default_rng(self._epoch).permutation(self.videos) if self.training else np.arange(self.videos)
        for step in range(self._start if self.training else 0, len(self)):
            self.before_batch(self._epoch, step)
            ids = order[step * self.batch_size : (step + 1) * self.batch_size]
            frames = torch.cat([video(int(i), self.num_views) for i in ids])
            labels = torch.from_numpy(ids % NUM_CLASSES)
            yield Clips(frames.contiguous(memory_format=torch.channels_last), labels, ids, self.num_views)


def video(number: int, num_views: int = 1) -> torch.Tensor:
    """(V·T, 3, H, W) of a video, the same every time."""
    random = torch.Generator().manual_seed(number)
    frames = 0.3 * torch.randn(num_views * NUM_SEGMENTS, 3, SIZE, SIZE, generator=random)
    band = SIZE // NUM_CLASSES
    start = band * (number % NUM_CLASSES)
    frames[..., start : start + band] += 2.0  # a place, not a brightness: BatchNorm would take that away
    return frames
