"""From positions to plans: the clip that each place of a batch shows, and substitutes for what cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines import order
from pipelines.annotations import VideoEntry, VideoList
from pipelines.errors import DataError, Failure
from pipelines.failures import Failures
from pipelines.index import VideoIndex
from pipelines.plan import ClipPlan, ClipSpec, make_plan
from pipelines.probe import VideoInfo

_MAX_SUBSTITUTES = 100


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
    source: str = ""
    """The key of `pipelines.graphs.SOURCES` that its frames come by; set by who decodes."""
    frames: NDArray[np.uint8] | None = None
    """With the source `decoded`, (clips·T, H, W, 3) once they are there."""
    doubt: str | None = None
    """Why NVDEC refused it, while the CPU tries."""

    def __init__(self, clips: EpochClips, id: int, copy: int) -> None:
        self._clips, self._origin, self._copy, self._attempts = clips, id, copy, 0

    @property
    def substituted(self) -> bool:
        """Whether another video stands in for the one that the order has here."""
        return self._attempts > 0

    @property
    def paths(self) -> Any:
        """What DALI reads: the path of the file, or those of the wanted images of a frame folder."""
        assert self.plan is not None
        template = self.info.template
        if template is None:
            return self.entry.path
        return [self.entry.path / template.format(index + 1) for index in self.plan.indices.reshape(-1).tolist()]

    def take(self, id: int) -> None:
        clips = self._clips
        self.entry = clips.video_list.entries[id]
        self.info = clips.index[self.entry]
        self.plan = self.frames = self.doubt = None
        self.source = ""
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
        self.plan = self.frames = self.doubt = None
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
