"""The loader: an epoch's batches, in a fixed order, made ahead of the consumer."""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines import order
from pipelines.annotations import VideoList
from pipelines.clips import EpochClips, Failure, Failures, FileMaker, Made, Maker, WorkerMaker, logger
from pipelines.errors import DataError, SettingsError
from pipelines.graphs import ClipGraph
from pipelines.index import VideoIndex, VideoInfo
from pipelines.plan import ClipSpec
from pipelines.runner import Resources

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# Codecs that NVDEC decodes on every data centre GPU since Ampere, with the smallest side it takes, pixels (NVIDIA's Video
# Codec SDK documentation). AV1 is not among them: the A100 has none.
_NVDEC_MIN_SIDE = {"h264": 48, "hevc": 144, "vp8": 48, "vp9": 128}
_NVDEC_FORMATS = frozenset(("yuv420p", "yuvj420p"))


@dataclass(frozen=True, slots=True)
class Batch:
    """N videos of V views of T frames."""

    frames: torch.Tensor
    """(N·V·T, 3, input_size, input_size), normalised, channels_last, of the loader's dtype and device. It is the caller's:
    nothing overwrites it."""
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
    wait_seconds: float
    """Time that the consumer waited for batches."""
    bad: int
    """Places of batches that held a substitute (training); videos that failed (testing)."""


class Loader:
    """Iterate over it for the batches of one epoch. Close it, or use it in `with`.

    The order, and every clip in it, depends on (seed, epoch) alone: not on the number of workers, nor on the world size
    when batch_size · world_size stays the same. Training visits a permutation of the list and drops the last partial
    global batch (a list shorter than one is repeated). Testing visits each video once, in list order, shared out over
    the ranks; the last batch may be smaller, and a rank with nothing left, or a batch in which no video can be read,
    yields none, so the steps of ranks may differ by some in testing: do not call collectives in that loop.

    A video that cannot be read, by the index or at run time, is in training replaced by another that (seed, epoch, id)
    determine, and counted; in testing it is left out. `failures` names all.

    On the CPU, videos are decoded by PyAV in processes of their own, which import neither torch nor DALI and may die
    without harm; DALI resizes and normalises. On a GPU DALI decodes with NVDEC, unless the list holds videos that NVDEC
    does not take: then PyAV decodes and DALI's GPU operators do the rest. Frame folders are read and decoded by DALI.

    Args:
        video_list: the videos. All files or all frame folders.
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
        max_bad: largest allowed part of the list that cannot be read; None for any.
        repeats: in training, how often an epoch shows each video, every time drawn anew, and all in one global batch.
        class_balanced: in training, from 0 (every video once) to 1 (videos drawn so that classes are equally frequent);
            see `pipelines.order.class_weights`.

    Raises:
        SettingsError: an impossible argument.
        DataError: an empty list, nothing readable, more than max_bad unreadable, or files mixed with frame folders.
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
        _at_least("batch_size", batch_size, 1)
        _at_least("repeats", repeats, 1)
        _at_least("prefetch", prefetch, 1)
        _at_least("world_size", world_size, 1)
        _at_least("seed", seed, 0)
        if not 0 <= rank < world_size:
            raise SettingsError(f"rank {rank} must be from 0 to world_size − 1 ({world_size - 1})")
        if max_bad is not None and not 0 <= max_bad <= 1:
            raise SettingsError(f"max_bad {max_bad} is a part of the list: it must be between 0 and 1")
        if num_workers is None:
            num_workers = _default_workers()
        _at_least("num_workers", num_workers, 0)
        if not video_list.entries:
            raise DataError(f"{video_list.source}: no videos in the list")
        self.video_list, self.index, self.spec = video_list, index, spec
        self.batch_size, self.training, self.seed = batch_size, training, seed
        self.rank, self.world_size, self.prefetch = rank, world_size, prefetch
        self.repeats, self._weights = repeats, None
        if training and class_balanced:
            self._weights = order.class_weights([entry.label for entry in video_list.entries], class_balanced)
        self._num_steps = order.num_steps(len(video_list), batch_size, world_size, training=training, repeats=repeats)
        self.device, self.dtype = _device(device), _dtype(dtype)
        self.epoch, self._start_step = 0, 0
        self._failures = Failures(len(video_list), max_bad)
        self._clips = self._substituted = 0
        self._wait = 0.0
        self._failures.add_known(self._unreadable())
        self._resources = Resources(self._maker(num_workers))
        self._finalizer = weakref.finalize(self, self._resources.close)

    def __len__(self) -> int:
        """Steps an epoch, equal on every rank."""
        return self._num_steps

    def set_epoch(self, epoch: int, start_step: int = 0) -> None:
        """Choose the epoch of the next iteration and the step it starts at (to resume within an epoch)."""
        _at_least("epoch", epoch, 0)
        if not 0 <= start_step <= len(self):
            raise SettingsError(f"start_step {start_step} must be from 0 to {len(self)}, the steps of an epoch")
        self.epoch, self._start_step = epoch, start_step

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the epoch, from set_epoch's start_step, which holds for one iteration.

        Ends an iteration that is still under way. Raises DataError as the class does.
        """
        if not self._finalizer.alive:
            raise DataError("this loader is closed")
        first, self._start_step = self._start_step, 0
        clips = EpochClips(self.video_list, self.index, self.spec, self.training, self.seed, self.epoch, self._failures)
        everything = order.epoch_order(
            len(self.video_list),
            self.batch_size,
            self.world_size,
            training=self.training,
            seed=self.seed,
            epoch=self.epoch,
            repeats=self.repeats,
            weights=self._weights,
        )
        steps = [
            order.rank_batch(everything, step, self.batch_size, self.rank, self.world_size)
            for step in range(first, len(self))
        ]
        runner = self._resources.start(clips, steps, self.prefetch)
        held: deque[tuple[Any, torch.Tensor]] = deque()
        try:
            while True:
                started = time.perf_counter()
                made = runner.next()
                self._wait += time.perf_counter() - started
                if made is None:
                    return
                self._clips += len(made.plans)
                self._substituted += made.substitutes
                if self.device.type == "cpu":
                    yield self._batch(made)
                    continue
                try:
                    yield self._batch(made)
                finally:
                    _hold_until_used(held, made.frames)
        finally:
            runner.stop()
            if held:
                torch.cuda.current_stream(self.device).synchronize()  # before the held memory goes

    @property
    def failures(self) -> list[Failure]:
        """The videos that could not be used so far, each once, in list order."""
        return self._failures.all()

    def stats(self) -> LoaderStats:
        """Clips, waiting and bad places since the loader was made."""
        bad = self._substituted if self.training else len(self._failures.all())
        return LoaderStats(self._clips, self._wait, bad)

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
            raise DataError(
                f"{self.video_list.source}: none of its {len(bad)} videos can be read; "
                f"the first: {bad[0].name}: {bad[0].reason}. Is the root {self.video_list.root} right?"
            )
        return bad

    def _maker(self, num_workers: int) -> Maker:
        infos = [info for entry in self.video_list.entries if (info := self.index[entry]).error is None]
        folders = sum(info.template is not None for info in infos)
        if 0 < folders < len(infos):
            raise DataError(
                f"{self.video_list.source} mixes {folders} frame folders with {len(infos) - folders} video files; "
                "put them in lists of their own"
            )
        gpu = self.device.type == "cuda"
        source = "images" if folders else "decoded"
        if gpu and not folders:
            foreign = [info for info in infos if not _nvdec_takes(info)]
            if foreign:
                logger.warning(
                    "%d of %d videos are not for NVDEC (the first is %s, %s, %d×%d): all are decoded on the CPU",
                    len(foreign), len(infos), foreign[0].codec, foreign[0].pixel_format, foreign[0].width, foreign[0].height,
                )  # fmt: skip
            else:
                source = "video"
        graph = ClipGraph(
            self.spec,
            source,
            num_crops=self.spec.num_crops(training=self.training),
            batch_size=self.batch_size,
            num_frames=self.spec.num_clips(training=self.training) * self.spec.num_segments,
            device=self.device,
            dtype=self.dtype,
            rotated=source == "video" and any(info.rotation for info in infos),
            color=self.training and self.spec.color_jitter is not None,
            num_threads=max(1, num_workers),
        )
        return WorkerMaker(graph, num_workers, self.batch_size) if source == "decoded" else FileMaker(graph)

    def _batch(self, made: Made) -> Batch:
        labels = torch.tensor([-1 if plan.label is None else plan.label for plan in made.plans], dtype=torch.int64)
        return Batch(
            frames=made.frames,
            labels=labels.to(self.device, non_blocking=True),
            ids=np.array([plan.id for plan in made.plans], dtype=np.int64),
            num_views=made.plans[0].num_views,
        )


def _hold_until_used(held: deque[tuple[Any, torch.Tensor]], frames: torch.Tensor) -> None:
    """Keep DALI's memory until the work queued on it so far is done: torch's allocator does not know that memory."""
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(frames.device))
    held.append((event, frames))
    while held and held[0][0].query():
        held.popleft()


def _nvdec_takes(info: VideoInfo) -> bool:
    smallest = _NVDEC_MIN_SIDE.get(info.codec)
    return (
        smallest is not None
        and min(info.width, info.height) >= smallest
        and info.pixel_format in _NVDEC_FORMATS
        and info.exact
    )


def _default_workers() -> int:
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(16, len(os.sched_getaffinity(0)) // max(1, ranks)))


def _device(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise SettingsError(f"unknown device {device!r}: use cpu, cuda or cuda:N") from None
    if chosen.type not in ("cpu", "cuda"):
        raise SettingsError(f"device {device!r} is not supported: use cpu, cuda or cuda:N")
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise SettingsError(f"device {device!r}: torch finds no CUDA GPU here; use cpu")
        chosen = torch.device("cuda", torch.cuda.current_device() if chosen.index is None else chosen.index)
    return chosen


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    chosen = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen not in DTYPES.values():
        raise SettingsError(f"unknown dtype {dtype!r}: use {', '.join(DTYPES)}")
    assert chosen is not None
    return chosen


def _at_least(name: str, value: object, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise SettingsError(f"{name} {value!r} must be a whole number of at least {low}")
