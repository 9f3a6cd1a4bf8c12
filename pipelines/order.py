"""Which videos make which batch on which rank: list operations on positions, the same for every world size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import SettingsError
from pipelines.plan import generator

# Streams of random numbers that must not meet those of the clips (pipelines.plan has 3 and 4).
_ORDER, _SUBSTITUTE, _BALANCED = 1, 2, 5


def num_steps(
    num_videos: int, batch_size: int, world_size: int, *, training: bool, repeats: int = 1, start: int = 0
) -> int:
    """Steps of an epoch from its sample `start` on, equal on every rank: whole global batches in training, all videos in testing.

    A whole epoch of training has one step at least: a list shorter than a global batch is repeated to fill it. What is left of
    one may be less than a global batch, and then there is none.

    Raises SettingsError when a global batch cannot be divided into `repeats` equal parts, or `start` does not lie between two
    of such batches.
    """
    size = batch_size * world_size
    if not training:
        return -(-max(num_videos - start, 0) // size)
    if size % repeats:
        raise SettingsError(
            f"a global batch of {size} clips (batch_size × processes) cannot hold each video {repeats} times: "
            f"make it a multiple of repeats"
        )
    if repeats > 1 and start % size:
        raise SettingsError(
            f"start_sample {start} is no multiple of the global batch ({size} clips: batch_size × processes), "
            f"and with repeats ({repeats}) a global batch belongs together"
        )
    return max(num_videos * repeats - start, 0) // size or (1 if start == 0 else 0)


def epoch_order(
    num_videos: int,
    batch_size: int,
    world_size: int,
    *,
    training: bool,
    seed: int,
    epoch: int,
    repeats: int = 1,
    weights: NDArray[np.float64] | None = None,
    start: int = 0,
) -> NDArray[np.int64]:
    """The places of an epoch, from its sample `start` on, in the order in which they are used, over all ranks. See `place`
    for what a number means.

    Testing: list order. Training: the permutation by (seed, epoch), cut to whole global batches; a list shorter than one
    global batch is repeated to fill it. No rank appears, and without repeats no batch size either but for the cut: a change
    of world size or global batch keeps the order.

    Args:
        repeats: r, each video r times in a global batch, as r copies that are drawn differently (repeated or batch
            augmentation, Hoffer et al. 2020). An epoch has r times as many steps. The copies of a video lie a global batch ÷ r
            apart, so that ranks see different videos.
        weights: (num_videos,) probabilities by which videos are drawn with replacement, instead of the permutation
            (`class_weights`); a video that comes again is a further copy.
        start: samples of the epoch, over all ranks, that are left out.

    Raises:
        SettingsError: as `num_steps`.
    """
    if not training:
        return np.arange(start, max(start, num_videos))
    left = num_steps(num_videos, batch_size, world_size, training=True, repeats=repeats, start=start)
    size = batch_size * world_size
    wanted = (start + left * size) // repeats
    if weights is None:
        order = np.resize(generator(seed, epoch, 0, _ORDER).permutation(num_videos), wanted)
    else:
        order = generator(seed, epoch, 0, _BALANCED).choice(num_videos, size=wanted, p=weights)
    if repeats == 1 and weights is None:
        return order[start:]  # a list shorter than a global batch repeats itself without copies, as it always did
    if repeats > 1:
        order = np.tile(order.reshape(-1, size // repeats), (1, repeats)).reshape(-1)
    return (order + num_videos * _occurrence(order))[start:]


def place(number: int, num_videos: int) -> tuple[int, int]:
    """(position in the list, copy) of an entry of `epoch_order`: the copy-th time that this epoch shows the video, from 0."""
    copy, position = divmod(number, num_videos)
    return position, copy


def class_weights(labels: Sequence[int | None], balance: float) -> NDArray[np.float64]:
    """Probability of each video when classes of n videos are drawn in proportion to n^(1 − balance), and then one of theirs.

    balance 0 is the list as it is, 1 gives all classes the same share, 0.5 is square-root sampling (Mahajan et al. 2018; Kang
    et al. 2020, with q = 1 − balance). A class without a video takes no part.

    Raises:
        SettingsError: balance is not in [0, 1], or a video has no label.
    """
    if isinstance(balance, bool) or not isinstance(balance, (int, float)) or not 0 <= balance <= 1:
        raise SettingsError(
            f"class_balanced {balance!r} must be a number from 0 (off) to 1 (all classes equally often)"
        )
    known = [label for label in labels if label is not None]
    if len(known) != len(labels):
        raise SettingsError("class_balanced needs a label for every video of the list")
    _, inverse, counts = np.unique(np.array(known), return_inverse=True, return_counts=True)
    weights = counts[inverse] ** -float(balance)
    return weights / weights.sum()


def rank_batch(order: NDArray, step: int, batch_size: int, rank: int, world_size: int) -> NDArray:
    """The positions that `rank` has in the `step`-th global batch of `order`: its slice of it.

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


def _occurrence(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each entry, how many equal ones stand before it."""
    by_value = np.argsort(order, kind="stable")
    ordered = order[by_value]
    first = np.searchsorted(ordered, ordered)
    result = np.empty_like(order)
    result[by_value] = np.arange(len(order)) - first
    return result
