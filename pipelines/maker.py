"""From an epoch's order to finished batches: each clip decoded by the source that suits it, joined in the batch's order."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from numpy.typing import NDArray

from pipelines.clips import EpochClips, Slot
from pipelines.decode import Tally
from pipelines.errors import DataError
from pipelines.graphs import Ready, reason
from pipelines.join import join
from pipelines.nvdec import Router
from pipelines.plan import ClipPlan
from pipelines.probe import VideoInfo
from pipelines.workers import WorkerPool

_IN_FLIGHT = 2  # batches that DALI works on: while one is resized, the next is decoded

Steps = Iterable[tuple[int, NDArray[Any]]]


@dataclass(frozen=True)
class Made:
    """A finished batch; on a GPU its last work may still be under way until `ready.done`."""

    step: int
    """Of the steps that were asked for."""
    ready: Ready
    plans: list[ClipPlan]
    substitutes: int
    """Places that a substitute took."""


class Graph(Protocol):
    """What a `pipelines.graphs.ClipGraph` does."""

    def submit(self, plans: Sequence[ClipPlan], infos: Sequence[VideoInfo], inputs: Sequence[Any]) -> None: ...

    def result(self) -> Ready: ...

    def rebuild(self) -> None: ...

    def drain(self) -> None: ...


class BatchMaker:
    """Makes the batches of an epoch in order; a batch in which nothing could be read (testing) is left out.

    The router says how each clip is decoded: by our processes, which a pool has a few batches ahead; or by DALI, from a file or
    from images. Every source has a graph; where a batch has clips of several, their outputs are joined by one copy. DALI does
    not say which sample it failed on, and its pipeline is lost: each clip of the batch is then tried alone in a new one. What
    fails alone is tried on the CPU if NVDEC was to decode it, and fails otherwise.

    Args:
        router: how each video is decoded.
        graph: makes the graph of a source, when the first clip needs it.
        sources: what the list needs, to be made now.
        num_workers: decoding processes; 0 decodes in the calling thread.
        batch_size: clips of a batch.
        device: where the graphs' results lie.
    """

    def __init__(
        self,
        router: Router,
        graph: Callable[[str], Graph],
        sources: Iterable[str],
        *,
        num_workers: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self._router, self._make_graph, self._num_workers = router, graph, num_workers
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._graphs: dict[str, Graph] = {}
        self._pool: WorkerPool | None = None
        # Enough for each process's two tasks and a spare one.
        self._ahead = _IN_FLIGHT + math.ceil(3 * num_workers / batch_size)
        self._run = self._images = 0
        for source in sorted(sources):
            self._graph(source)
            if source == "decoded":
                self._workers()

    @property
    def pids(self) -> list[int]:
        """Process ids of the decoding processes."""
        return self._pool.pids if self._pool is not None else []

    @property
    def tally(self) -> Tally:
        """What decoding has cost so far, ahead of the consumer: the processes' share, and DALI's frames from images."""
        own = self._pool.tally if self._pool is not None else Tally()
        return Tally(own.frames + self._images, own.seconds)

    def make(self, clips: EpochClips, steps: Steps, stop: threading.Event) -> Generator[Made, None, None]:
        """The batches of `steps`: (step, the order's numbers for this rank). Ends when `stop` is set."""
        if self._pool is not None:
            self._pool.cancel()
        self._run += 1  # results of an abandoned epoch carry an older number
        epoch = _Epoch(clips, iter(steps))
        try:
            while not stop.is_set():
                self._look_ahead(epoch)
                while epoch.window and len(epoch.flight) < _IN_FLIGHT and self._decoded(epoch.window[0]):
                    self._submit(epoch)
                if epoch.flight:
                    if (made := self._take(epoch)) is not None:
                        yield made
                elif epoch.window:
                    self._collect(epoch, 0.1)
                else:
                    return
        finally:
            for graph in self._graphs.values():
                graph.drain()

    def close(self) -> None:
        """End the decoding processes."""
        if self._pool is not None:
            self._pool.close()

    # ---- decoding ahead ------------------------------------------------------------------------------------------------------

    def _look_ahead(self, epoch: _Epoch) -> None:
        while len(epoch.window) < self._ahead and (next_step := next(epoch.steps, None)) is not None:
            step, numbers = next_step
            batch = _Pending(step, [epoch.clips.slot(int(number)) for number in numbers])
            epoch.window.append(batch)
            for slot in batch.slots:
                self._ask(epoch, slot)
        if epoch.flight and self.pids:
            self._collect(epoch, 0.0)

    def _ask(self, epoch: _Epoch, slot: Slot, source: str | None = None) -> None:
        """Choose the slot's source, and give it to a process if that is to decode it."""
        if slot.plan is None:
            return
        slot.source = source or self._router.source(slot.plan.id, slot.info)
        if slot.source == "decoded":
            key = (self._run, next(epoch.tickets))
            epoch.decoding[key] = slot
            self._workers().submit(key, "decode", str(slot.entry.path), slot.plan.indices.reshape(-1), slot.info.layout)

    def _collect(self, epoch: _Epoch, timeout: float) -> None:
        for key, frames, error in self._workers().collect(timeout):
            slot = epoch.decoding.pop(key, None)
            if slot is None:
                continue
            if error is not None:
                slot.fail(str(error))
                self._ask(epoch, slot)
                continue
            slot.frames = frames
            if slot.doubt is not None and slot.plan is not None and self._router.nvdec is not None:
                self._router.nvdec.refused(slot.plan.id, slot.entry.id, slot.info, slot.doubt)
                self._reroute(epoch)

    def _reroute(self, epoch: _Epoch) -> None:
        """Decode on the CPU what NVDEC was to do, where it has lost this kind of video since."""
        for batch in epoch.window:
            for slot in batch.slots:
                if slot.plan is not None and slot.source == "video":
                    self._ask(epoch, slot)

    def _decoded(self, batch: _Pending) -> bool:
        return all(slot.plan is None or slot.source != "decoded" or slot.frames is not None for slot in batch.slots)

    # ---- DALI ----------------------------------------------------------------------------------------------------------------

    def _submit(self, epoch: _Epoch) -> None:
        batch = epoch.window.popleft()
        good = [slot for slot in batch.slots if slot.plan is not None]
        batch.parts = {}
        for position, slot in enumerate(good):
            batch.parts.setdefault(slot.source, []).append((position, slot))
        for source, part in batch.parts.items():
            _submit(self._graph(source), [slot for _, slot in part])
        epoch.flight.append(batch)

    def _take(self, epoch: _Epoch) -> Made | None:
        """The oldest batch that DALI has; None where nothing of it can be read, or a clip of it must be done otherwise."""
        batch = epoch.flight[0]
        done: list[tuple[list[int], Ready]] = []
        for source, part in batch.parts.items():
            try:
                ready = self._graph(source).result()
            except RuntimeError as error:
                self._find_culprits(epoch, source, error)
                return None
            self._note_taken(source, [slot for _, slot in part])
            done.append(([position for position, _ in part], ready))
        epoch.flight.popleft()
        if not done:
            return None
        plans = [slot.plan for slot in batch.slots if slot.plan is not None]
        return Made(
            batch.step, join(done, len(plans), self._stream), plans, sum(slot.substituted for slot in batch.slots)
        )

    def _find_culprits(self, epoch: _Epoch, source: str, error: RuntimeError) -> None:
        """Try each clip of the failed part alone, and put what was under way back into the window.

        Raises DataError when each of them alone is fine.
        """
        slots = [slot for _, slot in epoch.flight[0].parts[source]]
        for used in {source for batch in epoch.flight for source in batch.parts}:
            self._graph(used).rebuild()
        epoch.window.extendleft(reversed(epoch.flight))
        epoch.flight.clear()
        graph = self._graph(source)
        found = False
        for slot in slots:
            try:
                _submit(graph, [slot])
                graph.result()
            except RuntimeError as alone:
                graph.rebuild()
                found = True
                self._without_dali(epoch, slot, reason(alone))
            else:
                self._note_taken(source, [slot])
        if not found:
            names = ", ".join(slot.entry.id for slot in slots)
            raise DataError(
                f"DALI fails on a batch whose videos it does one by one ({names}): {reason(error)}. If memory ran out, "
                "use a smaller batch"
            )

    def _without_dali(self, epoch: _Epoch, slot: Slot, why: str) -> None:
        if slot.source == "video" and self._router.nvdec is not None:
            slot.doubt = why
            self._ask(epoch, slot, "decoded")
        else:
            slot.fail(f"DALI cannot decode it ({why})")
            self._ask(epoch, slot)

    def _note_taken(self, source: str, slots: Sequence[Slot]) -> None:
        if source == "images":
            self._images += sum(slot.plan.indices.size for slot in slots if slot.plan is not None)
        if source == "video" and self._router.nvdec is not None:
            for slot in slots:
                self._router.nvdec.took(slot.info)

    def _graph(self, source: str) -> Graph:
        if source not in self._graphs:
            self._graphs[source] = self._make_graph(source)
        return self._graphs[source]

    def _workers(self) -> WorkerPool:
        if self._pool is None:
            self._pool = WorkerPool(self._num_workers)
        return self._pool


@dataclass
class _Pending:
    """A batch on its way."""

    step: int
    slots: list[Slot]
    parts: dict[str, list[tuple[int, Slot]]] = field(default_factory=dict)
    """Source → (position in the batch, clip), once submitted."""


@dataclass
class _Epoch:
    """What one iteration has under way."""

    clips: EpochClips
    steps: Iterator[tuple[int, NDArray[Any]]]
    window: deque[_Pending] = field(default_factory=deque)
    """Not yet with DALI, in order."""
    flight: deque[_Pending] = field(default_factory=deque)
    """With DALI, in order."""
    decoding: dict[tuple[int, int], Slot] = field(default_factory=dict)
    tickets: Iterator[int] = field(default_factory=lambda: iter(range(1 << 62)))


def _submit(graph: Graph, slots: Sequence[Slot]) -> None:
    inputs = [slot.frames if slot.source == "decoded" else slot.paths for slot in slots]
    graph.submit([slot.plan for slot in slots if slot.plan is not None], [slot.info for slot in slots], inputs)
