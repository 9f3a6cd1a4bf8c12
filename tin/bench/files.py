"""Clips a second from the files: the loader alone against decoding alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch

from tin.bench.timing import Rounds, ratios, row, synchronize
from tin.bench.usage import processor_seconds
from tin.errors import TinError

Decode = Callable[[int, Sequence[int]], float]
"""decode(epoch, ids) decodes the clips that the loader makes for these ids in this epoch, throws them away, and returns how many frames
came out of the decoder for each frame of the clips."""

LEAD = 2
"""Batches of an epoch before the clock starts: the loader is then as far ahead as it will stay."""


class EpochLoader(Protocol):
    """What is asked of a loader (`pipelines.Loader` is one): batches with `frames`, `labels` and `ids`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...

    def set_epoch(self, epoch: int) -> None: ...

    def stats(self) -> Any:
        """With `frames_used`, and `frames_decoded` for them (0 where the decoder does not tell), since the loader was made."""


@dataclass(frozen=True)
class Reading:
    """What a round read.

    Attributes:
        ids: of the clips.
        seconds: that they took.
        cpu_seconds: processor time meanwhile, of this process and all that it started.
    """

    ids: list[int]
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Clips a second."""
        return len(self.ids) / self.seconds


def data(
    loader: EpochLoader, device: torch.device, rounds: Rounds, batches: int, decode: Decode | None
) -> dict[str, Any]:
    """Clips a second that a loader makes while nobody computes, and the ratio to decoding the same clips alone.

    A round takes batches from the start of an epoch, then decodes just these clips; the next round is another epoch. The
    first batches are not timed: after them as much is being made ahead when the clock stops as when it started.

    Args:
        loader: whose clips are counted.
        device: where its frames are.
        rounds: rounds before the first timed one, and timed ones.
        batches: of a round, if the epoch has as many.
        decode: the yardstick; None where the loader's decoder does not run by itself.

    Returns:
        `settings` and `rows`, in clips a second. Rows have `cpu_seconds_per_clip`, processor time of this process and all that it
        started, and `frames_decoded_per_used`: of these clips; without `decode`, of all that the loader ever made; None
        where the decoder does not tell.

    Raises:
        TinError: the loader gives no batch.
    """
    loading: list[Reading] = []
    decoding: list[Reading] = []
    decoded: list[float] = []
    for epoch in range(rounds.warmup + rounds.runs):
        reading = read_clips(loader, epoch, batches, device)
        loading.append(reading)
        if decode is not None:
            start, used = time.perf_counter(), processor_seconds()
            decoded.append(decode(epoch, reading.ids))
            decoding.append(Reading(reading.ids, time.perf_counter() - start, processor_seconds() - used))
    loading, decoding = loading[rounds.warmup :], decoding[rounds.warmup :]
    rates = [reading.rate for reading in loading]
    cpu = {"cpu_seconds_per_clip": _median_cpu(loading)}
    if decoding:
        frames = {"frames_decoded_per_used": float(np.median(decoded[rounds.warmup :]))}
        limits = [reading.rate for reading in decoding]
        yardstick = "decoding alone"
        cpu_alone = {"cpu_seconds_per_clip": _median_cpu(decoding)}
        rows = [
            row("loader alone", "clips/s", rates, ratios(rates, limits), yardstick, **cpu, **frames),
            row("decoding alone", "clips/s", limits, ratios(limits, limits), yardstick, **cpu_alone, **frames),
        ]
    else:
        stats = loader.stats()
        known = stats.frames_decoded / stats.frames_used if stats.frames_decoded else None
        yardstick = "itself: its decoder does not run alone"
        itself = ratios(rates, rates)
        rows = [row("loader alone", "clips/s", rates, itself, yardstick, **cpu, frames_decoded_per_used=known)]
    return {"settings": {**vars(rounds), "batches": batches, "device": str(device)}, "rows": rows}


def read_clips(loader: EpochLoader, epoch: int, batches: int, device: torch.device) -> Reading:
    """`batches` batches of an epoch after the first LEAD ones (fewer in a short epoch).

    Raises:
        TinError: the loader gives no batch.
    """
    lead = min(LEAD, len(loader) - 1)
    loader.set_epoch(epoch)
    stream = iter(loader)
    ids: list[int] = []
    start, used = time.perf_counter(), processor_seconds()
    for position, batch in enumerate(islice(stream, lead + batches)):
        if position >= lead:
            ids.extend(batch.ids.tolist())
        elif position == lead - 1:
            synchronize(device)
            start, used = time.perf_counter(), processor_seconds()
    synchronize(device)
    reading = Reading(ids, time.perf_counter() - start, processor_seconds() - used)
    close = getattr(stream, "close", None)
    if close:
        close()  # or the loader would work ahead while the next thing is timed
    if not ids:
        raise TinError("the loader gave no batch: the list holds no readable video")
    return reading


def _median_cpu(readings: Sequence[Reading]) -> float:
    return float(np.median([reading.cpu_seconds / len(reading.ids) for reading in readings]))
