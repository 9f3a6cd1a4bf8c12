"""Metrics against scikit-learn, on random and on awkward input, and where the definitions differ from it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    recall_score,
    top_k_accuracy_score,
)

from tin.errors import TinError
from tin.evaluation import (
    METRICS,
    balanced_accuracy,
    calibration_error,
    compute,
    intervals,
    mean_average_precision,
    mean_class_accuracy,
    statistics,
    time_order_accuracy,
    top_k_accuracy,
)
from tin.evaluation.tables import confusion_matrix as own_confusion_matrix
from tin.evaluation.tables import per_class

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores in 0…1 and labels: one video or class and more, absent classes, and, in half of the cases, hardly a score without a tie."""
    videos, classes = draw(st.integers(1, 40)), draw(st.integers(1, 7))
    value = st.sampled_from([0.0, 0.2, 0.2000001, 0.5, 1.0]) if draw(st.booleans()) else st.floats(0, 1, width=32)
    scores = draw(hnp.arrays(np.float32, (videos, classes), elements=value.map(np.float32)))
    labels = draw(hnp.arrays(np.int64, videos, elements=st.integers(0, classes - 1)))
    return scores, labels


@quick
@given(scored(), st.integers(1, 8))
def test_top_k_accuracy_equals_scikit_learn(case: tuple[np.ndarray, np.ndarray], k: int) -> None:
    scores, labels = case
    classes = scores.shape[1]
    if k >= classes:
        expected = 1.0
    elif k == 1:
        expected = accuracy_score(labels, scores.argmax(1))
    else:  # of equal scores scikit-learn ranks the higher class first
        expected = top_k_accuracy_score(classes - 1 - labels, scores[:, ::-1], k=k, labels=np.arange(classes))
    assert top_k_accuracy(scores, labels, k) == pytest.approx(expected)


@quick
@given(scored())
def test_balanced_and_mean_class_accuracy_equal_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = case
    predictions = scores.argmax(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are only predicted, which is what is tested
        assert balanced_accuracy(scores, labels) == pytest.approx(balanced_accuracy_score(labels, predictions))
        macro = recall_score(labels, predictions, average="macro", zero_division=0)
    assert mean_class_accuracy(scores, labels) == pytest.approx(macro)


@quick
@given(scored())
def test_mean_average_precision_equals_scikit_learn(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = case
    each = {c: average_precision_score(labels == c, scores[:, c]) for c in np.unique(labels)}
    assert mean_average_precision(scores, labels) == pytest.approx(np.mean(list(each.values())))
    rows = per_class(scores, labels, average_precision=True)
    assert {row["index"]: row["average_precision"] for row in rows if row["videos"]} == pytest.approx(each)
    assert all(row["average_precision"] is None for row in rows if not row["videos"])


@quick
@given(scored())
def test_calibration_error_equals_what_scikit_learns_curve_gives(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = case
    confidences, hits = scores.max(1), scores.argmax(1) == labels
    accuracy, confidence = calibration_curve(hits, confidences, n_bins=15, pos_label=True)
    bins = np.searchsorted(np.linspace(0, 1, 16)[1:-1], confidences)
    videos = np.bincount(bins, minlength=15)
    expected = np.average(np.abs(accuracy - confidence), weights=videos[videos > 0])
    assert calibration_error(scores, labels) == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("ignore:A single label was found")
@quick
@given(scored())
def test_the_tables_equal_scikit_learns_confusion_matrix(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = case
    classes = scores.shape[1]
    matrix = confusion_matrix(labels, scores.argmax(1), labels=np.arange(classes))
    np.testing.assert_array_equal(own_confusion_matrix(scores, labels), matrix)
    for number, row in enumerate(per_class(scores, labels)):
        assert (row["videos"], row["predicted"], row["correct"]) == (
            matrix[number].sum(), matrix[:, number].sum(), matrix[number, number],
        )  # fmt: skip
        assert row["accuracy"] == (row["correct"] / row["videos"] if row["videos"] else None)
        assert row["average_precision"] is None


@quick
@given(scored(), st.data())
def test_a_resample_has_the_metrics_of_the_list_that_it_stands_for(
    case: tuple[np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    scores, labels = case
    drawn = data.draw(hnp.arrays(np.int64, len(labels), elements=st.integers(0, len(labels) - 1)))
    counts = np.bincount(drawn, minlength=len(labels)).astype(np.float64)
    made = statistics(METRICS, scores, labels, ks=(1, 2, 3), average="prob", reversals=None)
    values = {name: statistic(counts[None])[0] for name, statistic in made.items()}
    assert values == pytest.approx(compute(METRICS, scores[drawn], labels[drawn], ks=(1, 2, 3)))


def test_intervals_are_percentiles_of_metrics_of_lists_drawn_anew() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.random((60, 4)), rng.integers(0, 4, 60)
    names = ("top_k_accuracy", "mean_class_accuracy", "mean_average_precision")
    found = intervals(statistics(names, scores, labels, ks=(1, 2)), 60)
    rng = np.random.default_rng(0)  # the same draws, the long way
    each: dict[str, list[float]] = {}
    for rows in (row for _ in range(10) for row in rng.integers(0, 60, (100, 60))):
        for name, value in compute(names, scores[rows], labels[rows], ks=(1, 2)).items():
            each.setdefault(name, []).append(value)
    expected = {name: np.percentile(values, [2.5, 97.5]) for name, values in each.items()}
    assert set(found) == set(expected) == {"top1_acc", "top2_acc", "mean_class_accuracy", "mean_average_precision"}
    for name, span in found.items():
        assert span == pytest.approx(expected[name])


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """600 videos of a network that is right about 70 % of them, two hundred times over."""
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        hits = rng.random(600) < 0.7
        low, high = intervals(statistics(["top_k_accuracy"], np.eye(2)[hits.astype(int)], np.ones(600, int)), 600)[
            "top1_acc"
        ]
        covered += low <= 0.7 <= high
    assert 0.90 < covered / 200 < 0.99


def test_one_video_and_one_class_have_metrics_and_intervals_without_width() -> None:
    made = statistics(METRICS, np.ones((1, 1)), np.zeros(1, int))
    values = {name: statistic(np.ones((1, 1)))[0] for name, statistic in made.items()}
    assert values == {
        "top1_acc": 1.0, "mean_class_accuracy": 1.0, "balanced_accuracy": 1.0, "mean_average_precision": 1.0, "calibration_error": 0.0,
    }  # fmt: skip
    assert intervals(made, 1) == {name: (value, value) for name, value in values.items()}


def test_a_class_predicted_but_never_true_counts_zero_as_in_mmaction2() -> None:
    scores, labels = np.eye(4)[[0, 0, 1, 3]], np.array([0, 0, 1, 1])
    assert mean_class_accuracy(scores, labels) == 0.5
    assert balanced_accuracy(scores, labels) == 0.75


def test_equal_scores_rank_by_lower_class_index() -> None:
    scores = np.zeros((1, 4))
    assert [top_k_accuracy(scores, np.array([2]), k) for k in (1, 2, 3)] == [0.0, 0.0, 1.0]
    assert top_k_accuracy(scores, np.array([0]), 1) == 1.0


def test_calibration_error_of_mean_logits_is_that_of_their_softmax() -> None:
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(scale=5, size=(50, 3)), rng.integers(0, 3, 50)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert calibration_error(logits, labels, "score") == pytest.approx(calibration_error(softmax, labels))
    with pytest.raises(TinError, match=r"needs probabilities.*average=\"score\""):
        calibration_error(logits, labels)


def test_time_order_accuracy_is_half_for_what_does_not_see_order() -> None:
    labels = np.array([0, 1, 2, 3])
    reversals = {0: 1, 1: 0}
    blind = np.array([[5.0, 5.0, 0, 0]] * 4)
    assert time_order_accuracy(blind, labels, reversals) == 0.5
    assert time_order_accuracy(np.eye(4), labels, reversals) == 1.0
    assert time_order_accuracy(np.eye(4)[[1, 0, 2, 3]], labels, reversals) == 0.0
    with pytest.raises(TinError, match="no video has a class"):
        time_order_accuracy(np.eye(4), np.array([2, 3, 2, 3]), reversals)


def test_the_interval_of_time_order_leaves_out_lists_without_such_a_video() -> None:
    scores, labels = np.eye(3), np.arange(3)  # of three videos one: 30 % of the lists drawn anew have none
    made = statistics(["time_order_accuracy"], scores, labels, reversals={0: 1})
    assert np.isnan(made["time_order_accuracy"](np.array([[0.0, 1, 2]]))[0])
    assert intervals(made, 3) == {"time_order_accuracy": (1.0, 1.0)}


def test_compute_names_its_values_and_leaves_out_what_says_nothing() -> None:
    scores, labels = np.eye(3), np.arange(3)
    assert compute(["top_k_accuracy", "time_order_accuracy"], scores, labels) == {"top1_acc": 1.0}
    assert set(compute(["top_k_accuracy"], scores, labels, ks=(2, 3))) == {"top2_acc"}
    assert compute(["top_k_accuracy"], np.eye(1), np.zeros(1, int)) == {"top1_acc": 1.0}
    with pytest.raises(TinError, match="unknown metric 'accuracy'"):
        compute(["accuracy"], scores, labels)


@pytest.mark.parametrize(
    "metric",
    [lambda *case: top_k_accuracy(*case, 1), mean_class_accuracy, balanced_accuracy, mean_average_precision, calibration_error],
)  # fmt: skip
@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.full((2, 3), np.nan), np.zeros(2, int), "not finite"),
        (np.array([[0.0, 1.0], [0.5, np.inf]]), np.zeros(2, int), "scores of video 1 are not finite"),
        (np.zeros((2, 3)), np.array([0, 3]), "label 3 of video 1"),
        (np.zeros((2, 3)), np.array([-1, 0]), "label -1 of video 0"),
        (np.zeros((0, 3)), np.zeros(0, int), "no videos"),
        (np.zeros((2, 3)), np.zeros(3, int), "must be"),
        (np.zeros(3), np.zeros(3, int), "must be"),
    ],
)
def test_damaged_input_is_refused(metric: Any, scores: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(TinError, match=message):
        metric(scores, labels)
