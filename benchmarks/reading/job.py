"""What every reader is given, and what it must deliver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines import ClipSpec, VideoIndex, VideoList, make_plan, order
from pipelines.plan import ClipPlan

SEED, SPEC = 0, ClipSpec()
CLIP_SHAPE = (SPEC.num_segments, 3, SPEC.input_size, SPEC.input_size)

Marks = list[tuple[int, float, int]]
"""(stream, when, clips) of what has come; a stream is a process that finishes clip after clip, or a loader that gives batches."""
Key = tuple[int, int]
"""(epoch, id)"""


class Job:
    """What is read, in which order: the loader's own, so that every reader has the same clips."""

    def __init__(self, list: str, root: str | None, workers: int, batch_size: int) -> None:
        self.workers, self.batch_size = workers, batch_size
        self.videos = VideoList.read(list, root=root)
        self.index = VideoIndex.build(self.videos, workers=0)
        self.folders = any(self.index[entry].template for entry in self.videos.entries)

    def order(self) -> Iterator[Key]:
        epoch = 0
        while True:
            ids = order.epoch_order(len(self.videos), self.batch_size, 1, training=True, seed=SEED, epoch=epoch)
            yield from ((epoch, id) for id in ids.tolist())
            epoch += 1

    def plan(self, key: Key) -> ClipPlan:
        entry = self.videos.entries[key[1]]
        return make_plan(entry, self.index[entry], SPEC, training=True, seed=SEED, epoch=key[0], id=key[1])


class Reader:
    """One way to read the clips of a job."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def frames(self, path: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        """(T, H, W, 3) RGB of a video, as the library decodes it."""
        raise NotImplementedError

    def clips(self, ids: Sequence[int]) -> list[torch.Tensor]:
        """CLIP_SHAPE of each id, normalised float32, by the plan of epoch 0."""
        raise NotImplementedError

    def read(self) -> Iterator[Marks]:
        """Clips without end, in batches that are thrown away."""
        raise NotImplementedError


def check(frames: torch.Tensor) -> None:
    """Raise unless a batch (N, *CLIP_SHAPE) is what is compared."""
    if frames.dtype != torch.float32 or frames.shape[1:] != CLIP_SHAPE:
        raise AssertionError(f"a batch of {frames.dtype} {tuple(frames.shape)} is not what is compared")
