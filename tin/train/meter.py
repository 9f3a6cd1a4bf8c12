"""What the loop counts between two reports, without waiting for the device."""

from __future__ import annotations

import importlib.util
import resource
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import torch

from tin.distributed import World, sum_over_ranks

if TYPE_CHECKING:
    from tin.train.step import Outcome


class Averages(NamedTuple):
    """Of the steps since the last report, over all processes."""

    loss: float
    """Mean over clips, the batches whose loss is not finite left out; NaN where there is no other."""
    top1: float
    """Part of the clips whose label had the best score, 0…1."""
    top5: float
    clips: int
    """All that were trained on, those left out of the averages too."""
    skipped: int
    """Steps that left the weights alone."""
    seconds: float
    data_wait: float
    """Part of the time that this process waited for its loader, 0…1."""
    grad_norm: float | None
    """Of the last step."""
    scale: float | None
    """Of the fp16 loss in the last step; None without one."""


class StepMeter:
    """Sums over steps that stay on the device until `read`.

    Attributes:
        wait: seconds spent waiting for the loader; the loop adds to it.
        steps: added since the meter was made.
    """

    def __init__(self, device: torch.device) -> None:
        self.wait = 0.0
        self.steps = 0
        self._sums = torch.zeros(
            5, device=device, dtype=torch.float64
        )  # loss, hits, hits of 5, clips of these; skipped
        self._clips = 0
        self._last: Outcome | None = None
        self._started = time.perf_counter()

    def add(self, outcome: Outcome) -> None:
        """Count a step; a batch whose loss is not finite does not spoil the averages of the others."""
        one = torch.ones_like(outcome.loss)
        sums = torch.stack([outcome.loss * outcome.clips, outcome.hits1, outcome.hits5, one * outcome.clips])
        self._sums[:4] += sums.where(outcome.loss.isfinite(), 0)
        self._sums[4] += outcome.skipped
        self._clips += outcome.clips
        self.steps += 1
        self._last = outcome

    def read(self, world: World, *extra: float) -> tuple[Averages, list[float]]:
        """Wait for the device and bring the sums of all processes together, in one exchange: every process calls this.

        Args:
            world: whose processes take part.
            extra: further numbers of this process.

        Returns:
            The averages, and the sums over the processes of `extra`.
        """
        own = torch.tensor([self._clips, *extra], device=self._sums.device, dtype=torch.float64)
        sums = sum_over_ranks(torch.cat([self._sums, own]), world).tolist()
        loss, hits1, hits5, good, skipped, clips, *rest = sums
        seconds = time.perf_counter() - self._started
        norm, scale = (self._last.grad_norm, self._last.scale) if self._last else (None, None)
        averages = Averages(
            loss=loss / good if good else float("nan"),
            top1=hits1 / good if good else 0.0,
            top5=hits5 / good if good else 0.0,
            clips=int(clips),
            skipped=round(skipped / world.size),  # all processes leave out the same steps
            seconds=seconds,
            data_wait=min(1.0, self.wait / seconds),
            grad_norm=None if norm is None else float(norm),
            scale=None if scale is None else float(scale),
        )
        return averages, rest


def memory_mb(device: torch.device) -> float:
    """Peak memory of this process: allocated on a GPU, resident on a CPU; MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def gpu_utilisation(device: torch.device) -> float | None:
    """Part of NVML's last sample period (1/6 to 1 s) in which the GPU ran a kernel, 0…1; takes about a millisecond.

    None on a CPU, without the package nvidia-ml-py, or where NVML does not tell (a MIG slice).
    """
    if device.type != "cuda" or importlib.util.find_spec("pynvml") is None:
        return None
    import pynvml

    try:
        return torch.cuda.utilization(device) / 100
    except (pynvml.NVMLError, RuntimeError):
        return None
