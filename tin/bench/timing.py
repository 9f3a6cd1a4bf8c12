"""Timing in turns: what is compared runs alternately, so that a machine's mood falls on all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Rounds:
    """How much is measured.

    Attributes:
        warmup: calls before the first timed one.
        runs: timed samples of each thing.
    """

    warmup: int
    runs: int

    @classmethod
    def default(cls, device: torch.device, quick: bool) -> Rounds:
        """On a GPU 20 and 200, as REFERENCE section 5 asks; a CPU, whose calls take a second, gets 3 and 20. Quick: fewer."""
        if device.type == "cpu":
            return cls(1, 5) if quick else cls(3, 20)
        return cls(20, 50) if quick else cls(20, 200)


def time_in_turns(
    calls: Mapping[str, Callable[[], object]], device: torch.device, rounds: Rounds, min_seconds: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each call, `rounds.runs` samples, every call once a round, in turning order.

    The device is synchronised before and after each sample.

    Args:
        calls: what to time, by name.
        device: where they run.
        rounds: warm-up calls of each, then samples of each.
        min_seconds: a sample repeats its call until it lasts about this long, and is the mean of one call. 0: one call.
    """
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        for _ in range(rounds.warmup):
            call()
        repeats[name] = 1
        if min_seconds:
            repeats[name] = max(1, math.ceil(min_seconds / max(_sample(call, 1, device), 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds.runs):
        for name in list(calls) if turn % 2 == 0 else reversed(list(calls)):
            samples[name].append(_sample(calls[name], repeats[name], device))
    return samples


def synchronize(device: torch.device) -> None:
    """Wait until everything queued on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def quantiles(samples: Sequence[float], scale: float = 1.0) -> dict[str, float]:
    """`median`, `p10` and `p90` of the samples times `scale`, and how many there are (`samples`)."""
    low, middle, high = np.quantile(np.asarray(samples, dtype=np.float64) * scale, (0.1, 0.5, 0.9)).tolist()
    return {"median": middle, "p10": low, "p90": high, "samples": len(samples)}


def median_ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """The median over rounds of this / that, each pair timed one right after the other."""
    return float(np.median(np.asarray(these) / np.asarray(those)))


def row(
    name: str, unit: str, samples: Sequence[float], ratio: float, ratio_to: str, *, scale: float = 1.0, **more: Any
) -> dict[str, Any]:
    """One line of a result: a figure with its spread, and the ratio without which it says little.

    Args:
        name: what was measured.
        unit: of median, p10 and p90: "ms", "clips/s".
        samples: one a round, in seconds or in the unit.
        ratio: figure / yardstick, in the figure's own sense (a time: less is better; a rate: more).
        ratio_to: what the yardstick is.
        scale: from the samples to the unit.
        more: further fields of the line.
    """
    return {"name": name, "unit": unit, **quantiles(samples, scale), "ratio": ratio, "ratio_to": ratio_to, **more}


def _sample(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / repeats
