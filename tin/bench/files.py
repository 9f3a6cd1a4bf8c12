"""Clips a second from the files: the loader alone against decoding alone, and training against both of its limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import torch

from tin.bench.networks import TrainingStep
from tin.bench.timing import Rounds, median_ratio, row, synchronize
from tin.bench.workload import Workload
from tin.errors import TinError

Decode = Callable[[int, Sequence[int]], None]
"""decode(epoch, ids) decodes the clips that the loader makes for these ids in this epoch, and throws them away."""


LEAD = 2
"""Batches of an epoch before the clock starts: the loader is then as far ahead as it will stay."""


class EpochLoader(Protocol):
    """What is asked of a loader (`pipelines.Loader` is one): batches with `frames`, `labels` and `ids`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...

    def set_epoch(self, epoch: int) -> None: ...


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
        `settings` and `rows`, in clips a second.

    Raises:
        TinError: the loader gives no batch.
    """
    rates: list[float] = []
    decoding: list[float] = []
    for epoch in range(rounds.warmup + rounds.runs):
        seconds, ids = _read(loader, epoch, batches, device)
        rates.append(len(ids) / seconds)
        if decode is not None:
            start = time.perf_counter()
            decode(epoch, ids)
            decoding.append(len(ids) / (time.perf_counter() - start))
    rates, decoding = rates[rounds.warmup :], decoding[rounds.warmup :]
    if decoding:
        rows = [
            row("loader alone", "clips/s", rates, median_ratio(rates, decoding), "decoding alone"),
            row("decoding alone", "clips/s", decoding, 1.0, "decoding alone"),
        ]
    else:
        rows = [row("loader alone", "clips/s", rates, 1.0, "itself: its decoder does not run alone")]
    return {"settings": {**vars(rounds), "batches": batches, "device": str(device)}, "rows": rows}


def train(loader: EpochLoader, work: Workload, rounds: Rounds, batches: int) -> dict[str, Any]:
    """Clips a second of training from files, and the ratio to its limit.

    A round, on the same clips: the loader alone, the training step alone on one batch that stays on the device, then both
    together. The limit: on a GPU the slower of the two, for decoding and network have processors of their own; on a CPU
    they share one, so the times add up: 1 / (1/loader + 1/model).

    Args:
        loader: training batches for `work`.
        work: the network and what the loader was made for.
        rounds: rounds before the first timed one, and timed ones.
        batches: of a round, if the epoch has as many.

    Returns:
        `settings` and `rows`, in clips a second.

    Raises:
        TinError: the loader gives no batch.
    """
    step = TrainingStep(work, work.build(work.arch))
    samples: dict[str, list[float]] = {"together": [], "loader": [], "model": [], "limit": []}
    for epoch in range(rounds.warmup + rounds.runs):
        seconds, ids = _read(loader, epoch, batches, work.device)
        read = len(ids) / seconds

        last: Any = None

        def take(batch: Any) -> None:
            nonlocal last
            last = batch
            step(batch.frames, batch.labels)

        seconds, ids = _read(loader, epoch, batches, work.device, take)
        together = len(ids) / seconds

        start = time.perf_counter()
        for _ in range(batches):
            step(last.frames, last.labels)
        synchronize(work.device)
        model = batches * len(last.ids) / (time.perf_counter() - start)

        limit = min(read, model) if work.device.type == "cuda" else 1 / (1 / read + 1 / model)
        for name, value in (("together", together), ("loader", read), ("model", model), ("limit", limit)):
            samples[name].append(value)
    timed = {name: values[rounds.warmup :] for name, values in samples.items()}
    what = "the slower of loader and model" if work.device.type == "cuda" else "loader and model in turns"
    rows = [
        row(name, "clips/s", timed[key], median_ratio(timed[key], timed["limit"]), what)
        for key, name in (
            ("together", f"{work.arch}, training from files"),
            ("loader", "loader alone"),
            ("model", "training step alone"),
        )
    ]
    return {"settings": {**work.settings(rounds), "batches": batches}, "rows": rows}


def _read(
    loader: EpochLoader, epoch: int, batches: int, device: torch.device, use: Callable[[Any], None] | None = None
) -> tuple[float, list[int]]:
    """Seconds for `batches` batches of an epoch after the first LEAD ones (fewer in a short epoch), and their ids."""
    lead = min(LEAD, len(loader) - 1)
    loader.set_epoch(epoch)
    stream = iter(loader)
    ids: list[int] = []
    start = time.perf_counter()
    for position, batch in enumerate(islice(stream, lead + batches)):
        if use is not None:
            use(batch)
        if position >= lead:
            ids.extend(batch.ids.tolist())
        elif position == lead - 1:
            synchronize(device)
            start = time.perf_counter()
    synchronize(device)
    seconds = time.perf_counter() - start
    close = getattr(stream, "close", None)
    if close:
        close()  # or the loader would work ahead while the next thing is timed
    if not ids:
        raise TinError("the loader gave no batch: the list holds no readable video")
    return seconds, ids
