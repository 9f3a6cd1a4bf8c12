"""From positions to finished frames: plans, substitutes for what cannot be read, and the two ways to decode a batch."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines import order
from pipelines.annotations import VideoEntry, VideoList
from pipelines.errors import DataError
from pipelines.graphs import ClipGraph
from pipelines.index import VideoIndex
from pipelines.plan import ClipPlan, ClipSpec, make_plan
from pipelines.probe import VideoInfo
from pipelines.workers import WorkerPool

logger = logging.getLogger("pipelines")

_LISTED = 10  # bad videos that an error message names
_MAX_SUBSTITUTES = 100


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that could not be used."""

    id: int
    """Position in the list."""
    name: str
    """The path as written in the list."""
    reason: str


class Failures:
    """The bad videos of a loader, each once, and the limit on them. Shared by its threads."""

    def __init__(self, total: int, max_bad: float | None) -> None:
        self._total, self._max_bad = total, max_bad
        self._lock = threading.Lock()
        self._by_id: dict[int, Failure] = {}

    def add(self, failure: Failure) -> None:
        """Record a bad video; warn of a new one. Raises DataError, listing them, when they pass the limit."""
        with self._lock:
            if failure.id in self._by_id:
                return
            self._by_id[failure.id] = failure
        logger.warning("cannot use %s: %s", failure.name, failure.reason)
        self.check()

    def add_known(self, failures: Iterable[Failure]) -> None:
        """Record what the index says is bad, with one warning for all. Raises DataError as `add` does."""
        with self._lock:
            self._by_id.update((failure.id, failure) for failure in failures)
        if self._by_id:
            logger.warning("%s", self._summary())
        self.check()

    def check(self) -> None:
        if self._max_bad is not None and len(self._by_id) > self._max_bad * self._total:
            raise DataError(f"{self._summary()}; at most {self._max_bad:.2%} are allowed (max_bad)")

    def all(self) -> list[Failure]:
        with self._lock:
            return [self._by_id[id] for id in sorted(self._by_id)]

    def _summary(self) -> str:
        bad = self.all()
        named = "; ".join(f"{failure.name}: {failure.reason}" for failure in bad[:_LISTED])
        more = f"; and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        return f"{len(bad)} of {self._total} videos unreadable ({named}{more})"


@dataclass(frozen=True)
class EpochClips:
    """Everything that decides the clips of one epoch."""

    video_list: VideoList
    index: VideoIndex
    spec: ClipSpec
    training: bool
    seed: int
    epoch: int
    failures: Failures

    def slot(self, number: int) -> Slot:
        """A place of a batch, holding the video of the order's `number` or, in training, the first substitute that the index
        can read."""
        id, copy = order.place(number, len(self.video_list))
        slot = Slot(self, id, copy)
        slot.take(id)
        return slot


class Slot:
    """One place of a batch: a plan, or nothing where the video failed in testing."""

    entry: VideoEntry
    info: VideoInfo
    plan: ClipPlan | None = None
    frames: NDArray[np.uint8] | None = None

    def __init__(self, clips: EpochClips, id: int, copy: int) -> None:
        self._clips, self._origin, self._copy, self._attempts = clips, id, copy, 0

    @property
    def substitutes(self) -> int:
        return self._attempts

    def take(self, id: int) -> None:
        clips = self._clips
        self.entry = clips.video_list.entries[id]
        self.info = clips.index[self.entry]
        self.plan = None
        if self.info.error is not None:
            self.fail(self.info.error, id)
            return
        self.plan = make_plan(
            self.entry, self.info, clips.spec,
            training=clips.training, seed=clips.seed, epoch=clips.epoch, id=id, copy=self._copy,
        )  # fmt: skip

    def fail(self, reason: str, id: int | None = None) -> None:
        """Record the failure; in training go on with the next substitute.

        Raises DataError where the limit on bad videos is passed, or no substitute can be read.
        """
        clips = self._clips
        if id is None:
            assert self.plan is not None
            id = self.plan.id
        clips.failures.add(Failure(id, self.entry.id, reason.removeprefix(f"{self.entry.path}: ")))
        self.plan = self.frames = None
        if not clips.training:
            return
        if self._attempts >= _MAX_SUBSTITUTES:
            raise DataError(
                f"{self._attempts} substitutes for {self.entry.id} cannot be read either; the last: {reason}"
            )
        self._attempts += 1
        self.take(
            order.substitute(
                len(clips.video_list), seed=clips.seed, epoch=clips.epoch, id=self._origin, attempt=self._attempts
            )
        )


@dataclass(frozen=True)
class Made:
    """A finished batch."""

    frames: torch.Tensor
    plans: list[ClipPlan]
    substitutes: int


class Maker(Protocol):
    """Makes the batches of an epoch in order; a batch in which nothing could be read (testing) is left out."""

    def make(self, clips: EpochClips, steps: Iterable[NDArray], stop: threading.Event) -> Iterator[Made]: ...

    def close(self) -> None: ...


class WorkerMaker:
    """PyAV decodes in the processes of a pool, a few batches ahead; DALI does the rest."""

    def __init__(self, graph: ClipGraph, num_workers: int, batch_size: int) -> None:
        self._graph = graph
        self._pool = WorkerPool(num_workers)
        self._ahead = 1 + math.ceil(3 * num_workers / batch_size)  # keeps each process's two tasks and a spare waiting
        self._run = 0

    @property
    def pids(self) -> list[int]:
        return self._pool.pids

    def make(self, clips: EpochClips, steps: Iterable[NDArray], stop: threading.Event) -> Iterator[Made]:
        self._pool.cancel()
        self._run += 1  # results of an abandoned epoch carry an older number
        window: deque[list[Slot]] = deque()
        decoding: dict[tuple[int, int], Slot] = {}
        tickets = iter(range(1 << 62))

        def ask(slot: Slot) -> None:
            if slot.plan is not None:
                key = (self._run, next(tickets))
                decoding[key] = slot
                self._pool.submit(key, "decode", str(slot.entry.path), slot.plan.indices.reshape(-1))

        left = iter(steps)
        while True:
            while len(window) < self._ahead and (ids := next(left, None)) is not None:
                slots = [clips.slot(int(id)) for id in ids]
                window.append(slots)
                for slot in slots:
                    ask(slot)
            if not window:
                return
            while any(slot.plan is not None and slot.frames is None for slot in window[0]):
                if stop.is_set():
                    return
                for key, frames, error in self._pool.collect():
                    done = decoding.pop(key, None)
                    if done is None:
                        continue
                    if error is None:
                        done.frames = frames
                    else:
                        done.fail(str(error))
                        ask(done)
            slots = window.popleft()
            good = [slot for slot in slots if slot.plan is not None]
            if good:
                yield _finish(self._graph, good, [slot.frames for slot in good], _count(slots))

    def close(self) -> None:
        self._pool.close()


class FileMaker:
    """DALI reads and decodes the files itself. When it fails, the culprit is found by trying each alone."""

    def __init__(self, graph: ClipGraph) -> None:
        self._graph = graph

    def make(self, clips: EpochClips, steps: Iterable[NDArray], stop: threading.Event) -> Iterator[Made]:
        for ids in steps:
            slots = [clips.slot(int(id)) for id in ids]
            made = None
            while made is None and not stop.is_set() and (good := [slot for slot in slots if slot.plan is not None]):
                try:
                    made = _finish(self._graph, good, [_paths(slot) for slot in good], _count(slots))
                except RuntimeError as error:
                    self._blame(good, error)
            if stop.is_set():
                return
            if made is not None:
                yield made

    def close(self) -> None:
        pass

    def _blame(self, slots: list[Slot], error: RuntimeError) -> None:
        """Fail the slots that DALI cannot decode even alone; raise DataError when each of them alone is fine."""
        self._graph.rebuild()
        found = False
        for slot in slots:
            try:
                _finish(self._graph, [slot], [_paths(slot)], 0)
            except RuntimeError as alone:
                self._graph.rebuild()
                slot.fail(f"DALI cannot decode it ({_core(alone)})")
                found = True
        if not found:
            names = ", ".join(slot.entry.id for slot in slots)
            raise DataError(f"DALI fails on a batch whose videos it decodes one by one ({names}): {_core(error)}")


def _finish(graph: ClipGraph, slots: list[Slot], inputs: list[Any], substitutes: int) -> Made:
    plans = [slot.plan for slot in slots if slot.plan is not None]
    return Made(graph(plans, [slot.info for slot in slots], inputs), plans, substitutes)


def _count(slots: list[Slot]) -> int:
    return sum(slot.substitutes > 0 for slot in slots)


def _paths(slot: Slot) -> Any:
    assert slot.plan is not None
    template = slot.info.template
    if template is None:
        return slot.entry.path
    return [slot.entry.path / template.format(index + 1) for index in slot.plan.indices.reshape(-1).tolist()]


def _core(error: RuntimeError) -> str:
    """The line of DALI's message that says what happened, without its C++ places."""
    text = str(error)
    text = text.split("encountered:", 1)[-1]
    lines = [re.sub(r"^\[/\S+\]\s*", "", line.strip()) for line in text.splitlines()]
    return next((line for line in lines if line and not line.startswith("C++ context")), text.strip())
