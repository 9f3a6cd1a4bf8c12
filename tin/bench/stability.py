"""When a measured number is a result: runs of a benchmark joined, and whether they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tin.bench.timing import median_interval, quantiles
from tin.bench.train import verdict

MIN_RUNS = 2
"""Runs, each a process of its own: memory is laid out anew in each, and the machine is in another mood."""


@dataclass(frozen=True)
class Criterion:
    """What a number must satisfy to be called a result.

    Attributes:
        tolerance: part of the median by which its 95 % interval, and the medians of the runs, may be away from it. Of four runs or more
            one in four may be further away.
    """

    tolerance: float = 0.05

    @property
    def words(self) -> str:
        """The criterion in a sentence."""
        near = f"±{100 * self.tolerance:g} %"
        return (
            f"A number is stable when at least {MIN_RUNS} runs, each a process of its own, were made, the 95 % interval of its median over "
            f"all their samples is within {near} of it, and so is the median of each run (of four and more, of three in four). "
            f"Else it is marked unstable, and is no result."
        )

    def fault(self, median: float, interval: Sequence[float], of_runs: Sequence[float]) -> str | None:
        """Why a number is not stable; None when it is."""
        if len(of_runs) < MIN_RUNS:
            return "one run only"
        low, high = (end / median - 1 for end in interval)
        if max(-low, high) > self.tolerance:
            return f"its 95 % interval is {100 * low:+.1f} … {100 * high:+.1f} %"
        away = [value / median - 1 for value in of_runs]
        beyond = sorted((part for part in away if abs(part) > self.tolerance), key=abs, reverse=True)
        if len(beyond) > len(of_runs) // 4:
            return f"its runs differ: one is {100 * beyond[0]:+.1f} % from the median of all"
        return None


def join_runs(results: Sequence[Mapping[str, Any]], criterion: Criterion) -> dict[str, Any]:
    """Results of runs of one benchmark as one: medians and intervals over the samples of all runs.

    Args:
        results: in the order of the runs; rows have `values` and `ratios`.

    Returns:
        The last result, but for its rows. `median`, `p10`, `p90`, `interval`, `ratio`, `ratio_interval` and `samples` are over all
        samples; other numbers are medians over the runs. New: `run_medians` and `run_ratios`, one a run; and `unstable`: null, or
        {"figure": why, "ratio": why}, each of which may be null.
    """
    rows = []
    for last in results[-1]["rows"]:
        lines = [line for result in results for line in result["rows"] if _same(line, last)]
        rows.append(_joined(lines, criterion))
    joined = {**results[-1], "rows": rows}
    if "verdict" in joined:  # of training, whose words have the figures in them
        settings = joined["settings"]
        joined["verdict"] = verdict(
            rows, on_cpu=settings["device"] == "cpu", decoded=settings["frames_decoded_per_used"], workers=settings["workers"]
        )  # fmt: skip
    return joined


def unstable_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, why) of the rows of a joined result of which a number is not stable."""
    found = []
    for line in result["rows"]:
        faults = line["unstable"] or {}
        for what in ("ratio", "figure"):
            if faults.get(what):
                found.append((line["name"], faults[what] if what == "figure" else f"ratio: {faults[what]}"))
                break
    return found


def _same(line: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(line["name"] == other["name"] and line["unit"] == other["unit"])


def _joined(lines: Sequence[Mapping[str, Any]], criterion: Criterion) -> dict[str, Any]:
    last = lines[-1]
    numbers = {
        key: float(np.median([line[key] for line in lines]))
        for key, value in last.items()
        if isinstance(value, float) and all(isinstance(line.get(key), float) for line in lines)
    }
    values = [value for line in lines for value in line["values"]]
    against = [value for line in lines for value in line["ratios"]]
    line = {
        **last,
        **numbers,
        **quantiles(values),
        "interval": median_interval(values),
        "ratio": float(np.median(against)),
        "ratio_interval": median_interval(against),
        "run_medians": [float(f"{line['median']:.6g}") for line in lines],
        "run_ratios": [float(f"{line['ratio']:.6g}") for line in lines],
        "values": values,
        "ratios": against,
    }
    figure = criterion.fault(line["median"], line["interval"], line["run_medians"])
    ratio = criterion.fault(line["ratio"], line["ratio_interval"], line["run_ratios"])
    return {**line, "unstable": {"figure": figure, "ratio": ratio} if figure or ratio else None}
