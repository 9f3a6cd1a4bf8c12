"""What the loop counts between two reports, without waiting for the device."""

from __future__ import annotations

import resource
import sys
import time

import torch


class Meter:
    """Sums since the last report; they stay on the device until then."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, device=device, dtype=torch.float64)
        self.norm: torch.Tensor | None = None
        self.clips = 0
        self.steps = 0
        self.wait = 0.0
        self.started = time.perf_counter()

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor, norm: torch.Tensor | None) -> None:
        hits = (logits.argmax(-1) == labels).sum()
        self.sums += torch.stack([loss.double() * len(labels), hits.double()])
        self.norm = norm
        self.clips += len(labels)
        self.steps += 1


def memory_mb(device: torch.device) -> float:
    """Peak memory of this process: allocated on a GPU, resident on a CPU; MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
