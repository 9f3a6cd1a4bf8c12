"""Where the time of a few training steps goes: PyTorch's profiler, started and closed by itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import profiler

WAIT, WARM_UP = 2, 2
"""Steps before the recorded ones: the first are unlike the others (kernels are chosen, memory is allocated), and the profiler's own
start takes its time in the next."""


class Profiler:
    """Records `steps` training steps, from the fifth of this run on, into a trace that TensorBoard and Perfetto show.

    A context manager around the loop; `step()` after every training step. Once the trace is written, or with 0 steps from
    the beginning, it does nothing at all.

    Args:
        steps: to record.
        work_dir: the trace goes to `profile/` in it, as Chrome's JSON, gzipped.
        rank: of this process; part of the file's name.
        say: told where the trace is.
    """

    def __init__(self, steps: int, work_dir: Path, *, rank: int = 0, say: Callable[[str], None] = print) -> None:
        self._folder, self._rank, self._say = work_dir / "profile", rank, say
        self._steps = steps
        self._profile: profiler.profile | None = None

    def __enter__(self) -> Self:
        if self._steps:
            self._folder.mkdir(parents=True, exist_ok=True)
            # Its C++ part talks on the terminal even when all is well, right through whatever is shown there.
            os.environ.setdefault("KINETO_LOG_LEVEL", "6")
            activities = [profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(profiler.ProfilerActivity.CUDA)
            self._profile = profiler.profile(
                activities=activities,
                schedule=profiler.schedule(wait=WAIT, warmup=WARM_UP, active=self._steps, repeat=1),
                on_trace_ready=self._write,
                record_shapes=True,
            )
            self._profile.start()
        return self

    def step(self) -> None:
        """A training step has ended."""
        if self._profile is not None:
            self._profile.step()
            if self._profile.step_num >= WAIT + WARM_UP + self._steps:
                self._stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._profile is not None:
            steps = self._profile.step_num
            self._stop()  # writes what there is
            if steps <= WAIT + WARM_UP:
                self._say(
                    f"nothing was profiled: the run ended after {steps} steps, recording begins after {WAIT + WARM_UP}"
                )

    def _stop(self) -> None:
        assert self._profile is not None
        profile, self._profile = self._profile, None
        profile.stop()

    def _write(self, profile: profiler.profile) -> None:
        path = (
            self._folder / f"rank{self._rank}.{time.time_ns()}.pt.trace.json.gz"
        )  # as TensorBoard's plugin expects it
        try:
            profile.export_chrome_trace(str(path))
        except OSError as error:
            self._say(f"the profile could not be written to {path}: {error.strerror}")
            return
        self._say(
            f"profile written to {path}: open it in https://ui.perfetto.dev, or with TensorBoard's profile plugin"
        )
