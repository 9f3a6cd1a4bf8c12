"""The loader: an epoch's batches, in a fixed order, made ahead of the consumer."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines import order, position
from pipelines.annotations import VideoList
from pipelines.arguments import at_least, checked_device, checked_dtype, default_workers
from pipelines.batch import Batch, HandOver, LoaderStats
from pipelines.clips import EpochClips
from pipelines.errors import DataError, Failure, SettingsError
from pipelines.failures import Failures
from pipelines.graphs import ClipGraph
from pipelines.index import VideoIndex
from pipelines.maker import BatchMaker
from pipelines.nvdec import Router
from pipelines.plan import ClipSpec
from pipelines.runner import Resources

__all__ = ["Batch", "Loader", "LoaderStats"]


class Loader:
    """Iterate over it for the batches of one epoch. Close it, or use it in `with`.

    The order, and every clip in it, depends on (seed, epoch) alone: not on the number of workers, nor on world size and
    batch_size (with `repeats`: while batch_size · world_size stays the same). Training visits a permutation of the list and
    drops the last partial global batch (a list shorter than one is repeated). Testing visits each video once, in list order,
    shared out over the ranks; the last batch may be smaller, and a rank with nothing left, or a batch in which no video can
    be read, yields none, so the steps of ranks may differ by some in testing: do not call collectives in that loop.

    A video that cannot be read, by the index or at run time, is in training replaced by another that (seed, epoch, id)
    determine, and counted; in testing it is left out. `failures` names all.

    On the CPU, videos are decoded by PyAV in processes of their own, which import neither torch nor DALI and may die
    without harm; DALI resizes and normalises. On a GPU DALI decodes with NVDEC each video that it takes
    (`pipelines.nvdec`); PyAV decodes the others, and DALI's GPU operators do the rest. Frame folders are read and decoded
    by DALI. A list may hold all of these.

    `state_dict` is where the consumer stands; a loader of the same list and seed goes on from there, at any world size and
    batch_size (with `repeats`: of the same product).

    Args:
        video_list: the videos: files, frame folders, or both.
        index: built from that list.
        spec: sampling, crops and sizes.
        batch_size: videos a batch and rank.
        training: random clips and order, or all videos once in order.
        seed: of all random draws, not negative.
        device: "cpu", "cuda" or "cuda:N".
        dtype: "float32", "float16" or "bfloat16" (cast on the device; DALI has none).
        rank, world_size: this process's share.
        num_workers: decoding processes; None for the cores of this process divided by the ranks of this machine
            ($LOCAL_WORLD_SIZE), at most 16. 0 decodes in a thread of this process.
        prefetch: finished batches that may wait for the consumer.
        max_bad: largest allowed part of the list that cannot be read; None for any. In training on several ranks, each of
            which sees a part, see `check_failures`.
        repeats: in training, how often an epoch shows each video, every time drawn anew, and all in one global batch.
        class_balanced: in training, from 0 (every video once) to 1 (videos drawn so that classes are equally frequent);
            see `pipelines.order.class_weights`.

    Raises:
        SettingsError: an impossible argument.
        DataError: an empty list, nothing readable; BadVideosError where more than max_bad of it cannot be read.
    """

    def __init__(
        self,
        video_list: VideoList,
        index: VideoIndex,
        spec: ClipSpec,
        *,
        batch_size: int,
        training: bool,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "float32",
        rank: int = 0,
        world_size: int = 1,
        num_workers: int | None = None,
        prefetch: int = 2,
        max_bad: float | None = None,
        repeats: int = 1,
        class_balanced: float = 0.0,
    ) -> None:
        at_least("batch_size", batch_size, 1)
        at_least("repeats", repeats, 1)
        at_least("prefetch", prefetch, 1)
        at_least("world_size", world_size, 1)
        at_least("seed", seed, 0)
        if not 0 <= rank < world_size:
            raise SettingsError(f"rank {rank} must be from 0 to world_size − 1 ({world_size - 1})")
        if max_bad is not None and not 0 <= max_bad <= 1:
            raise SettingsError(f"max_bad {max_bad} is a part of the list: it must be between 0 and 1")
        if num_workers is None:
            num_workers = default_workers()
        at_least("num_workers", num_workers, 0)
        if not video_list.entries:
            raise DataError(f"{video_list.source or video_list.name}: no videos in the list")
        self.video_list, self.index, self.spec = video_list, index, spec
        self.batch_size, self.training, self.seed = batch_size, training, seed
        self.rank, self.world_size, self.prefetch = rank, world_size, prefetch
        self.repeats, self._weights = repeats, None
        if training and class_balanced:
            self._weights = order.class_weights([entry.label for entry in video_list.entries], class_balanced)
        self._shape: dict[str, Any] = {
            "num_videos": len(video_list), "batch_size": batch_size, "world_size": world_size,
            "training": training, "repeats": repeats,
        }  # fmt: skip
        self._num_steps = self._steps_from(0)
        self.device, self.dtype = checked_device(device), checked_dtype(dtype)
        self.epoch, self._sample = 0, 0  # where the consumer stands: samples of the epoch that all ranks have received
        self._fresh = False  # whether the next iteration starts there
        self._loaded = False  # and because a state was loaded
        self._order_id = {
            "list": position.list_digest(video_list), "seed": seed, "training": training,
            "global_batch": batch_size * world_size, "repeats": repeats, "class_balanced": float(class_balanced),
        }  # fmt: skip
        self._failures = Failures(len(video_list), max_bad, at_once=not training or world_size == 1)
        self._clips = self._substituted = self._frames = 0
        self._wait = 0.0
        self._failures.add_known(self._unreadable())
        self._resources = Resources(self._maker(num_workers))
        self._finalizer = weakref.finalize(self, self._resources.close)

    def __len__(self) -> int:
        """Steps an epoch, equal on every rank."""
        return self._num_steps

    @property
    def steps_left(self) -> int:
        """Steps of the epoch after where the consumer stands, equal on every rank: before an iteration, those that it will
        give; within it, without the batch in hand. From a sample that is no multiple of the global batch, the last samples, too
        few for a global batch, are left out, as ever in training: so it may be 0 before the epoch's last sample.
        """
        return self._steps_from(self._sample)

    def set_epoch(self, epoch: int, start_step: int | None = None, *, start_sample: int | None = None) -> None:
        """Choose the epoch of the next iteration, and where in it to start (to resume within an epoch): at a step, or at a
        sample of the order over all ranks, which need be no multiple of the global batch (but with `repeats` must).

        Without either it starts at 0, but in the epoch of a state just loaded where the state stands. From a start_sample at
        or past the end nothing is left, which is no error.

        Raises:
            SettingsError: an impossible epoch, start_step or start_sample, or both of the latter.
        """
        at_least("epoch", epoch, 0)
        if start_step is not None and start_sample is not None:
            raise SettingsError(
                f"start_step {start_step} and start_sample {start_sample} say the same: give one of them"
            )
        if start_step is not None and not 0 <= start_step <= len(self):
            raise SettingsError(f"start_step {start_step} must be from 0 to {len(self)}, the steps of an epoch")
        loaded = self._loaded and start_step is None and start_sample is None and epoch == self.epoch
        if start_sample is None:
            start_sample = self._sample if loaded else (start_step or 0) * self.batch_size * self.world_size
        at_least("start_sample", start_sample, 0)
        self._steps_from(start_sample)  # raises where none can start there
        self.epoch, self._sample, self._fresh, self._loaded = epoch, start_sample, True, loaded

    def state_dict(self) -> dict[str, Any]:
        """Where the consumer stands, as plain numbers and strings: which order, the epoch, and how many samples of it, over
        all ranks, have been received. What was made ahead does not count. In a loop over the batches, the one in hand does.
        """
        return position.pack(self._order_id, self.epoch, self._sample)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a loader was whose `state_dict` this is: at the very next sample of the order.

        The world size and batch_size may be others; with `repeats` above 1, within an epoch, their product must be the same.
        After it, `loader.epoch` is the state's, and the next iteration, or the one after `set_epoch(loader.epoch)`, has the
        rest of it (`steps_left`).

        Raises:
            DataError: it is no such state, or of another list, seed, mode or way of sampling, or global batch with `repeats`.
        """
        epoch, sample = position.unpack(state, self._order_id)
        self.set_epoch(epoch, start_sample=sample)
        self._loaded = True

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the epoch, from set_epoch's start, which holds for one iteration.

        Ends an iteration that is still under way. Raises DataError as the class does.
        """
        if not self._finalizer.alive:
            raise DataError("this loader is closed")
        if not self._fresh:
            self._sample = 0
        self._fresh = self._loaded = False
        start, size, steps = self._sample, self.batch_size * self.world_size, self._steps()
        runner = self._resources.start(self._epoch_clips(), steps, self.prefetch)
        hand_over = HandOver(self.device)
        try:
            while True:
                started = time.perf_counter()
                made = runner.next()
                self._wait += time.perf_counter() - started
                if made is None:
                    if runner.ended:
                        self._sample = start + len(steps) * size  # a rank may end on steps without a batch for it
                    return
                self._sample = start + (made.step + 1) * size
                self._clips += len(made.plans)
                self._frames += sum(plan.indices.size for plan in made.plans)
                self._substituted += made.substitutes
                try:
                    yield hand_over.batch(made)
                finally:
                    hand_over.given_back(made)
                    del made
        finally:
            runner.stop()
            hand_over.close()

    @property
    def failures(self) -> list[Failure]:
        """The videos that could not be used so far, each once, in list order."""
        return self._failures.all()

    def check_failures(self, others: Iterable[Failure] = ()) -> None:
        """Raise BadVideosError when the bad videos of this rank and of `others` are more than max_bad allows.

        In training on several ranks the loader itself does not: it goes on with substitutes, because one rank that stops alone
        leaves the others waiting in their next collective. Where all ranks meet, gather `failures` and call this on each, as
        `tin.train` does; then all stop. In testing, and with one rank, the loader stops at once as well.
        """
        self._failures.check(others)

    def stats(self) -> LoaderStats:
        """What the loader has done since it was made; costs nothing."""
        tally = self._resources.maker.tally
        return LoaderStats(
            clips=self._clips,
            frames_used=self._frames,
            frames_decoded=tally.frames,
            wait_seconds=self._wait,
            decode_seconds=tally.seconds,
            bad=self._substituted if self.training else len(self._failures.all()),
        )

    def close(self) -> None:
        """End the threads and processes. Safe to call again; batches already handed out stay valid."""
        self._finalizer()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _unreadable(self) -> list[Failure]:
        positions = {entry.id: position for position, entry in enumerate(self.video_list.entries)}
        bad = [
            Failure(positions[entry.id], entry.id, reason) for entry, reason in self.index.unreadable(self.video_list)
        ]
        if len(bad) == len(self.video_list):
            source, root = self.video_list.source, self.video_list.root
            raise DataError(
                f"{source or self.video_list.name}: none of its {len(bad)} videos can be read; "
                f"the first: {bad[0].name}: {bad[0].reason}" + (f". Is the root {root} right?" if source else "")
            )
        return bad

    def _maker(self, num_workers: int) -> BatchMaker:
        infos = [self.index[entry] for entry in self.video_list.entries]
        router = Router.of(self.device)
        if router.nvdec is not None:
            router.nvdec.tell([entry.id for entry in self.video_list.entries], infos)

        graph = partial(  # of no method of this object, which would then outlive its last reference
            ClipGraph,
            self.spec,
            num_crops=self.spec.num_crops(training=self.training),
            batch_size=self.batch_size,
            num_frames=self.spec.num_clips(training=self.training) * self.spec.num_segments,
            device=self.device,
            dtype=self.dtype,
            rotated=any(info.rotation and router.source(id, info) == "video" for id, info in enumerate(infos)),
            color=self.training and self.spec.color_jitter is not None,
            num_threads=max(1, num_workers),
        )
        sources = {router.source(id, info) for id, info in enumerate(infos) if info.error is None}
        return BatchMaker(
            router, graph, sources, num_workers=num_workers, batch_size=self.batch_size, device=self.device
        )

    def _epoch_clips(self) -> EpochClips:
        return EpochClips(self.video_list, self.index, self.spec, self.training, self.seed, self.epoch, self._failures)

    def _steps_from(self, sample: int) -> int:
        return order.num_steps(**self._shape, start=sample)

    def _steps(self) -> list[tuple[int, NDArray[np.int64]]]:
        """The steps that are left of the epoch, counted from 0, each with the order's numbers that this rank has in it."""
        left = order.epoch_order(
            **self._shape, seed=self.seed, epoch=self.epoch, weights=self._weights, start=self._sample
        )
        return [
            (step, order.rank_batch(left, step, self.batch_size, self.rank, self.world_size))
            for step in range(self.steps_left)
        ]
