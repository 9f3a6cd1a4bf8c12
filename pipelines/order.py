"""Which videos make which batch on which rank: list operations on positions, the same for every world size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.plan import generator

# Streams of random numbers that must not meet those of the clips, which are keyed (seed, epoch, id).
_ORDER, _SUBSTITUTE = 1, 2


def num_steps(num_videos: int, batch_size: int, world_size: int, *, training: bool) -> int:
    """Steps an epoch, equal on every rank: whole global batches in training (at least one), all videos in testing."""
    whole, rest = divmod(num_videos, batch_size * world_size)
    if training:
        return max(whole, 1)
    return whole + (rest > 0)


def epoch_order(num_videos: int, batch_size: int, world_size: int, *, training: bool, seed: int, epoch: int) -> NDArray:
    """The positions of an epoch in the order in which they are used, over all ranks (int64).

    Training: the permutation by (seed, epoch), cut to whole global batches; a list shorter than one global batch is
    repeated to fill it. Testing: list order. No rank appears: a change of world size keeps the order.
    """
    if not training:
        return np.arange(num_videos)
    order = generator(seed, epoch, 0, _ORDER).permutation(num_videos)
    wanted = num_steps(num_videos, batch_size, world_size, training=True) * batch_size * world_size
    return np.resize(order, wanted)


def rank_batch(order: NDArray, step: int, batch_size: int, rank: int, world_size: int) -> NDArray:
    """The positions that `rank` has in `step`: its slice of the global batch.

    A last, partial global batch (testing) is shared out evenly, so with fewer videos than ranks some get none.
    """
    size = batch_size * world_size
    block = order[step * size : (step + 1) * size]
    if len(block) == size:
        return block[rank * batch_size : (rank + 1) * batch_size]
    return np.array_split(block, world_size)[rank]


def substitute(num_videos: int, *, seed: int, epoch: int, id: int, attempt: int) -> int:
    """Another position for a video that cannot be read: the `attempt`-th draw of (seed, epoch, id), never `id` itself
    unless it is alone."""
    if num_videos == 1:
        return id
    drawn = int(generator(seed, epoch, id, _SUBSTITUTE, attempt).integers(num_videos - 1))
    return drawn + (drawn >= id)
