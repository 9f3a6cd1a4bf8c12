"""Metrics of a list in which each video occurs some number of times: once each for the value, as drawn in a resample for its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

CALIBRATION_BINS = 15
"""Guo et al., On Calibration of Modern Neural Networks (ICML 2017)."""

Counts = NDArray[np.float64]
"""(lists, videos): how often each video occurs in each list."""
Statistic = Callable[[Counts], NDArray[np.float64]]
"""(lists, videos) → (lists,) or (lists, classes): a metric of each list. What depends on the scores alone is
worked out once, when the statistic is made."""


def ranks(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """(videos,) classes that rank before the video's own. Of equal scores the lower class index ranks first."""
    own = scores[np.arange(len(labels)), labels][:, None]
    lower_index = np.arange(scores.shape[1])[None, :] < labels[:, None]
    before: NDArray[np.int64] = ((scores > own) | ((scores == own) & lower_index)).sum(axis=1)
    return before


def mean_of(values: NDArray[np.generic]) -> Statistic:
    """Mean over the videos of a number (videos,) that each has."""
    column = values.astype(np.float64)
    return lambda counts: counts @ column / counts.sum(axis=1)


def mean_class_recall(
    labels: NDArray[np.integer], predictions: NDArray[np.integer], num_classes: int, *, of_predicted: bool
) -> Statistic:
    """Mean of per-class recall over the classes that occur in the labels, or with `of_predicted` in labels or predictions, where one
    that is never true counts 0."""
    hits = labels == predictions

    def statistic(counts: Counts) -> NDArray[np.float64]:
        true = _sum_groups(counts, labels, num_classes)
        recall = _sum_groups(counts * hits, labels, num_classes) / np.maximum(true, 1)
        seen = true > 0
        if of_predicted:
            seen |= _sum_groups(counts, predictions, num_classes) > 0
        return np.asarray(recall.sum(axis=1) / seen.sum(axis=1), np.float64)

    return statistic


def mean_average_precision(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> Statistic:
    """Mean of `average_precisions` over the classes that have videos."""
    per_class = average_precisions(scores, labels)

    def statistic(counts: Counts) -> NDArray[np.float64]:
        values, videos = per_class(counts), _sum_groups(counts, labels, scores.shape[1])[:, np.unique(labels)]
        return np.asarray(np.where(videos > 0, values, 0).sum(axis=1) / (videos > 0).sum(axis=1), np.float64)

    return statistic


def average_precisions(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> Statistic:
    """Average precision of each class against the rest, as scikit-learn's: Σ (Rᵢ − Rᵢ₋₁)·Pᵢ over the distinct scores.

    Returns:
        Counts (lists, videos) → (lists, classes that occur in `labels`, ascending); 0 where a list has no video of the class.
    """
    # Recall rises only at scores that a video of the class has. Between two of those the order of the others says nothing, so that
    # a class needs one sum for each such score: all of them together are one bag of videos a score, added up in one pass.
    bags: list[NDArray[np.int32]] = []
    starts, positives, positive_starts, owners = [], [], [], []
    begin = positive_begin = 0
    classes = np.unique(labels)
    for place, number in enumerate(classes):
        column = scores[:, number]
        order = np.argsort(-column, kind="stable").astype(np.int32)
        own = labels[order] == number
        thresholds = -np.unique(-column[order][own])  # descending
        ends = np.searchsorted(-column[order], -thresholds, side="right")
        own_ends = np.searchsorted(-column[order][own], -thresholds, side="right")
        bags.append(order[: ends[-1]])
        positives.append(order[own])
        starts.append(begin + np.concatenate([[0], ends[:-1]]))
        positive_starts.append(positive_begin + np.concatenate([[0], own_ends[:-1]]))
        owners.append(np.full(len(thresholds), place))
        begin, positive_begin = begin + int(ends[-1]), positive_begin + int(own_ends[-1])
    owner = np.concatenate(owners)
    firsts = np.searchsorted(owner, np.arange(len(classes)))
    all_bags = (np.concatenate(bags), np.concatenate(starts))
    positive_bags = (np.concatenate(positives), np.concatenate(positive_starts))

    def statistic(counts: Counts) -> NDArray[np.float64]:
        table = torch.from_numpy(np.ascontiguousarray(counts.T, dtype=np.float32))  # whole numbers, exact below 2²⁴
        seen, true = _sum_bags(table, *all_bags), _sum_bags(table, *positive_bags)
        seen, found = _cumulate(seen, firsts, owner), _cumulate(true, firsts, owner)
        gained = np.add.reduceat(true * found / np.maximum(seen, 1), firsts, axis=0)
        return np.asarray((gained / np.maximum(np.add.reduceat(true, firsts, axis=0), 1)).T, np.float64)

    return statistic


def calibration_error(confidences: NDArray[np.floating], hits: NDArray[np.bool_]) -> Statistic:
    """Expected calibration error: the mean, over 15 bins of equal width and weighted by their videos, of |accuracy − confidence|. A
    confidence on the border of two bins belongs to the lower."""
    inner = np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]
    bins = np.searchsorted(inner, confidences)
    surplus: NDArray[np.float64] = hits - confidences.astype(np.float64)

    def statistic(counts: Counts) -> NDArray[np.float64]:
        gaps = np.abs(_sum_groups(counts * surplus, bins, CALIBRATION_BINS))
        return np.asarray(gaps.sum(axis=1) / counts.sum(axis=1), np.float64)

    return statistic


def time_order_accuracy(
    scores: NDArray[np.floating], labels: NDArray[np.integer], reversals: Mapping[int, int]
) -> Statistic:
    """Part of the videos that prefer their class to its reversal; not a number for a list without a video of such a class."""
    rows = np.flatnonzero(np.isin(labels, list(reversals)))
    own = scores[rows, labels[rows]]
    reverse = scores[rows, [reversals[int(label)] for label in labels[rows]]]
    wins = np.where(own == reverse, 0.5, own > reverse)

    def statistic(counts: Counts) -> NDArray[np.float64]:
        total = counts[:, rows].sum(axis=1)
        return np.divide(counts[:, rows] @ wins, total, out=np.full(len(counts), np.nan), where=total > 0)

    return statistic


def _sum_groups(values: Counts, groups: NDArray[np.integer], size: int) -> NDArray[np.float64]:
    """(lists, videos) → (lists, size): sums over the videos of each group."""
    rows = np.arange(len(values))[:, None] * size
    sums = np.bincount((rows + groups).ravel(), values.ravel(), len(values) * size)
    return np.asarray(sums.reshape(len(values), size), np.float64)


def _sum_bags(table: torch.Tensor, videos: NDArray[np.int32], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(videos, lists) → (bags, lists): sums over the videos of each bag."""
    offsets = torch.from_numpy(starts.astype(np.int32))
    sums = torch.nn.functional.embedding_bag(torch.from_numpy(videos), table, offsets, mode="sum")
    return sums.numpy().astype(np.float64)


def _cumulate(bags: NDArray[np.float64], firsts: NDArray[np.int64], owner: NDArray[np.int64]) -> NDArray[np.float64]:
    """Running sums down the bags (bags, lists), which begin anew at each class."""
    sums = bags.cumsum(axis=0)
    return np.asarray(sums - (sums[firsts] - bags[firsts])[owner], np.float64)
