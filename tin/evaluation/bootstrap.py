"""95 % intervals of metrics: how far they move when the list's videos are drawn anew."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tin.evaluation.counted import Counts, Statistic

LEVEL = 0.95
RESAMPLES = 1000
SEED = 0
_AT_ONCE = 100  # resamples: 16 MB of counts for 20,000 videos


def intervals(statistics: Mapping[str, Statistic], videos: int) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals (Efron 1979) of metrics over a list of videos.

    The list is drawn anew 1000 times, as many videos as it has, with replacement; every metric is computed of each of these lists, and
    the interval is what the middle 95 % of its values span. All metrics see the same lists, which depend on the number of videos alone,
    so that a result always has the same intervals. They speak of other videos of the same kind, not of another training run.

    Args:
        statistics: of `tin.evaluation.statistics`.
        videos: how many the statistics are of.

    Returns:
        Name → (low, high).
    """
    rng = np.random.default_rng(SEED)
    values: dict[str, list[NDArray[np.float64]]] = {name: [] for name in statistics}
    for _ in range(RESAMPLES // _AT_ONCE):
        counts = _draw(rng, videos)
        for name, statistic in statistics.items():
            values[name].append(statistic(counts))
    tails = 100 * np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {name: _span(np.concatenate(parts), tails) for name, parts in values.items()}


def _draw(rng: np.random.Generator, videos: int) -> Counts:
    drawn = rng.integers(0, videos, (_AT_ONCE, videos))
    return np.stack([np.bincount(row, minlength=videos) for row in drawn]).astype(np.float64)


def _span(values: NDArray[np.float64], tails: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.nanpercentile(values, tails)  # not a number: a resample without a video that the metric is about
    return float(low), float(high)
