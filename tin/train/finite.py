"""Steps whose numbers went wrong: noticed without waiting for the device, counted, and written down with their evidence."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tin.distributed import World, gather_objects
from tin.errors import PeerError, TinError

FILE = "nonfinite.json"
"""In the run's folder: the evidence."""

_MOST_STEPS = 1000  # kept between two drains; about 2 MB on the device for a ResNet-50
_MOST_EVENTS = 1000  # kept in the file, over all resumed runs
_MOST_NAMES = 20  # parameters named an event


@dataclass(frozen=True)
class Skipped:
    """A step that was left out."""

    epoch: int
    """From 1."""
    step: int
    """In its epoch, from 1."""
    global_step: int
    """Steps taken before it, from 0."""
    grad_norm: float
    losses: tuple[float, ...]
    """Mean loss of each rank's batch, by rank. Where one is not finite, that rank had the batch that broke."""
    scale: float | None
    """Of the fp16 loss; None without one."""
    ids: tuple[tuple[int, ...], ...]
    """Positions in the training list of each rank's clips, by rank."""
    parameters: tuple[str, ...]
    """Whose gradients were not finite."""

    @property
    def backing_off(self) -> bool:
        """Whether this is fp16's ordinary search for a scale: all losses finite, gradients too large for it, room to go lower."""
        return self.scale is not None and self.scale >= 1.0 and all(map(math.isfinite, self.losses))


class FiniteGuard:
    """Lets a run survive a few steps that are not finite, and ends it with the evidence when there are more.

    The verdict on a step is made and obeyed on the device (`tin.train.optim.clip_gradients`, `guarded_step`). The host learns of
    it where it reads the averages anyway:

    * `record`, each step: four numbers are packed into one small tensor on the device, which is kept with the norms
      of the gradients (1.2 kB for a ResNet-50), and the ids on the host. Nothing is read, nothing is exchanged.
    * `drain`, at a log step: one copy brings the numbers of all steps since the last one to the host. Only when one of
      them was left out do ranks exchange losses and ids, and are gradients' norms read.

    Memory is bounded if `drain` is called when `full` says so, too.

    What counts: steps left out in the whole of this process's run, more than `limit` of which end it. They need not be in a row:
    a batch that breaks once an epoch is a defect that training would otherwise hide. fp16's search for a scale
    (`Skipped.backing_off`) does not count; once the scale has fallen below 1, it does, so a run that can find none ends.

    Args:
        limit: steps that may be left out.
        names: of the parameters, in the order of `per_parameter_norms`.
        work_dir: receives `nonfinite.json`, on rank 0.
        name_of: the name of a training video by its id, for the evidence; None gives ids alone.
    """

    def __init__(
        self, limit: int, names: Sequence[str], work_dir: Path, name_of: Callable[[int], str] | None = None
    ) -> None:
        self.counted = 0
        """Steps left out so far, those of fp16's search for a scale not among them."""
        self._limit, self._names, self._file, self._name_of = limit, list(names), work_dir / FILE, name_of
        self._records: list[_Record] = []
        self._trouble = ""

    @property
    def full(self) -> bool:
        """Whether it is time to drain, whatever the log does; the same on all ranks."""
        return len(self._records) >= _MOST_STEPS

    def record(
        self,
        *,
        epoch: int,
        step: int,
        global_step: int,
        ids: Sequence[int] | NDArray[np.int64],
        loss: Tensor,
        grad_norm: Tensor,
        skip: Tensor,
        scale: Tensor | None = None,
        per_parameter_norms: Tensor | None = None,
    ) -> None:
        """Note a step.

        Args:
            epoch, step: from 1.
            global_step: steps taken before this one.
            ids: of this rank's clips.
            loss: 0-dim, of this rank's batch, not scaled.
            grad_norm: 0-dim, of the exchanged gradients: the same on all ranks.
            skip: 0-dim, 1 where the step was left out, else 0; the same on all ranks.
            scale: 0-dim, of the loss in this step, copied before `scaler.update()` changed it; None without a scaler.
            per_parameter_norms: (parameters,) of the gradients; the tensor is kept.
        """
        four = (loss, grad_norm, skip, skip if scale is None else scale)
        numbers = torch.stack([value.detach().to(torch.float32) for value in four])
        place = _Place(epoch, step, global_step)
        self._records.append(_Record(place, np.array(ids), numbers, scale is not None, per_parameter_norms))

    def drain(self, world: World) -> list[Skipped]:
        """Read what was recorded since the last call: the steps that were left out, the same list on all ranks.

        Call it on all ranks after the same step. Steps that count are added to `nonfinite.json` by rank 0.

        Raises:
            TinError: more than `limit` steps were left out in this run; on ranks other than 0 a PeerError.
        """
        records, self._records = self._records, []
        if not records:
            return []
        rows = torch.stack([record.numbers for record in records]).tolist()
        left_out = [(record, row) for record, row in zip(records, rows, strict=True) if row[2]]
        if not left_out:
            return []
        own = [(row[0], record.ids.tolist()) for record, row in left_out]
        of_ranks = gather_objects(own, world)
        skipped = [
            Skipped(
                **record.place._asdict(),
                grad_norm=row[1],
                losses=tuple(of_rank[number][0] for of_rank in of_ranks),
                scale=row[3] if record.scaled else None,
                ids=tuple(tuple(of_rank[number][1]) for of_rank in of_ranks),
                parameters=self._not_finite(record),
            )
            for number, (record, row) in enumerate(left_out)
        ]
        counted = [event for event in skipped if not event.backing_off]
        self.counted += len(counted)
        if counted and world.is_main:
            self._write(counted)
        if self.counted > self._limit:
            message = self._message(counted[-1])
            raise TinError(message) if world.is_main else PeerError(message)
        return skipped

    def _not_finite(self, record: _Record) -> tuple[str, ...]:
        if record.norms is None:
            return ()
        finite = record.norms.isfinite().tolist()
        return tuple(name for name, good in zip(self._names, finite, strict=True) if not good)

    def _write(self, events: list[Skipped]) -> None:
        """Add to the file; what stands in it may come from the run that this one resumes."""
        try:
            earlier = json.loads(self._file.read_text(encoding="utf-8"))["steps"]
        except (OSError, ValueError, LookupError, TypeError):
            earlier = []
        steps = [*earlier, *(self._evidence(event) for event in events)][-_MOST_EVENTS:]
        lines = ",\n".join(
            json.dumps(step, allow_nan=False) for step in steps
        )  # a step a line: it may have thousands of ids
        text = f'{{"limit": {self._limit}, "left_out": {self.counted}, "steps": [\n{lines}\n]}}\n'
        whole = self._file.with_suffix(".json.part")
        try:
            whole.write_text(text, encoding="utf-8")
            os.replace(whole, self._file)
            self._trouble = ""
        except OSError as error:  # no reason to end the run, or to leave the other ranks waiting
            self._trouble = f" (which could not be written: {error})"

    def _evidence(self, event: Skipped) -> dict[str, Any]:
        ranks = [
            {"rank": rank, "loss": _json(loss), "ids": list(ids), **self._videos(ids)}
            for rank, (loss, ids) in enumerate(zip(event.losses, event.ids, strict=True))
        ]
        values = asdict(event)
        return {
            **{name: values[name] for name in ("epoch", "step", "global_step")},
            "grad_norm": _json(event.grad_norm),
            "scale": event.scale,
            "parameters_not_finite": len(event.parameters),
            "parameters": list(event.parameters[:_MOST_NAMES]),
            "ranks": ranks,
        }

    def _videos(self, ids: Sequence[int]) -> dict[str, list[str]]:
        return {} if self._name_of is None else {"videos": [self._name_of(number) for number in ids]}

    def _message(self, last: Skipped) -> str:
        broken = [rank for rank, loss in enumerate(last.losses) if not math.isfinite(loss)]
        what = f"the loss was not finite on rank {broken[0]}" if broken else "every loss was finite, a gradient was not"
        return (
            f"{self.counted} step{'s' * (self.counted != 1)} had a loss or gradients that are not finite and were left out, more than "
            f"train.max_skipped = {self._limit}; the last at epoch {last.epoch}, step {last.step}, where {what}. Look at "
            f"{self._file}{self._trouble}: if the steps name the same videos, leave those out; else lower optim.lr, add warm-up "
            "(schedule.warmup_epochs) or use --amp bf16, and --resume"
        )


class _Place(NamedTuple):
    epoch: int
    step: int
    global_step: int


class _Record(NamedTuple):
    place: _Place
    ids: NDArray[np.int64]
    numbers: Tensor
    """(4,) float32 on the device: loss, gradient norm, verdict, scale."""
    scaled: bool
    norms: Tensor | None


def _json(value: float) -> float | str:
    """JSON has neither NaN nor infinity: their names."""
    return value if math.isfinite(value) else str(value)
