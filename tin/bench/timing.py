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


def median_interval(samples: Sequence[float]) -> list[float]:
    """95 % interval [low, high] of the median of what the samples are drawn from, whatever its distribution.

    The k-th smallest and k-th largest sample, k the largest number for which the true median is beyond either with at most 2.5 %
    (binomially many of n samples are below it; Conover, Practical Nonparametric Statistics, 3.2). Fewer than six samples
    have no such k: of them it is the least and the most.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    count, rank, ways, below = (
        len(ordered),
        0,
        1,
        1,
    )  # of 2^n patterns of below and above, those with at most `rank` below
    while below / 2**count <= 0.025:
        rank += 1
        ways = ways * (count - rank + 1) // rank
        below += ways
    rank = max(rank, 1)
    return [float(ordered[rank - 1]), float(ordered[count - rank])]


def ratios(these: Sequence[float], those: Sequence[float]) -> list[float]:
    """This / that of every round, each pair timed one right after the other."""
    divided: list[float] = (np.asarray(these) / np.asarray(those)).tolist()
    return divided


def median_ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """The median of `ratios`."""
    return float(np.median(ratios(these, those)))


def row(
    name: str,
    unit: str,
    samples: Sequence[float],
    against: Sequence[float],
    ratio_to: str,
    *,
    scale: float = 1.0,
    **more: Any,
) -> dict[str, Any]:
    """One line of a result: a figure with its spread, and the ratio without which it says little.

    `values` and `ratios` are those of every round, to six digits, so that runs can be joined (`tin.bench.stability`).

    Args:
        name: what was measured.
        unit: of median, p10 and p90: "ms", "clips/s".
        samples: one a round, in seconds or in the unit.
        against: figure / yardstick of each round, in the figure's own sense (a time: less is better; a rate: more).
        ratio_to: what the yardstick is.
        scale: from the samples to the unit.
        more: further fields of the line.
    """
    values = [float(f"{scale * sample:.6g}") for sample in samples]
    return {
        "name": name,
        "unit": unit,
        **quantiles(samples, scale),
        "interval": median_interval(values),
        "ratio": float(np.median(against)),
        "ratio_interval": median_interval(against),
        "ratio_to": ratio_to,
        **more,
        "values": values,
        "ratios": [float(f"{value:.6g}") for value in against],
    }


def _sample(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / repeats
