"""The loader of this package, and its decoder alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.reading.job import CLIP_SHAPE, SEED, SPEC, Marks, Reader, check
from pipelines import Loader
from pipelines.decode import decode_frames
from pipelines.workers import WorkerPool


class OurLoader(Reader):
    """`pipelines.Loader`."""

    def frames(self, path: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        return decode_frames(path, indices)

    def clips(self, ids: Sequence[int]) -> list[torch.Tensor]:
        found = {}
        with self._loader() as loader:
            for batch in loader:
                for id, clip in zip(batch.ids.tolist(), batch.frames.view(-1, *CLIP_SHAPE), strict=True):
                    if id in ids:
                        found[id] = clip.clone()
        return [found[id] for id in ids]

    def read(self) -> Iterator[Marks]:
        loader, epoch = self._loader(), 0
        while True:
            loader.set_epoch(epoch)
            for batch in loader:
                check(batch.frames.view(-1, *CLIP_SHAPE))
                yield [(0, time.monotonic(), len(batch.ids))]
            epoch += 1

    def _loader(self) -> Loader:
        job = self.job
        settings = {"batch_size": job.batch_size, "training": True, "seed": SEED, "num_workers": job.workers}
        return Loader(job.videos, job.index, SPEC, **settings)  # type: ignore[arg-type]


class DecodeOnly(OurLoader):
    """The loader's decoding processes with nothing after them: its limit."""

    def read(self) -> Iterator[Marks]:
        pool, under_way = WorkerPool(self.job.workers), 0
        for key in self.job.order():
            entry = self.job.videos.entries[key[1]]
            indices = self.job.plan(key).indices.reshape(-1)
            pool.submit(key, "decode", str(entry.path), indices, self.job.index[entry].layout)
            under_way += 1
            while under_way >= 4 * self.job.workers:
                done = pool.collect()
                under_way -= len(done)
                for _, _, error in done:
                    if error is not None:
                        raise error
                if done:
                    yield [(0, time.monotonic(), len(done))]
