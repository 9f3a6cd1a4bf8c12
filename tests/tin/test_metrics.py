"""Metrics against scikit-learn, and where the definitions differ from it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from tin.errors import TinError
from tin.evaluation import compute, mean_class_accuracy, time_order_accuracy, top_k_accuracy


@pytest.mark.parametrize("seed", range(5))
def test_top_k_and_mean_class_accuracy_equal_scikit_learn_on_random_scores(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(200, 7))
    labels = np.concatenate([np.arange(7), rng.integers(0, 7, 193)])
    for k in (1, 2, 5):
        assert top_k_accuracy(scores, labels, k) == pytest.approx(top_k_accuracy_score(labels, scores, k=k))
    assert mean_class_accuracy(scores, labels) == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))


def test_a_class_predicted_but_never_true_counts_zero_as_in_mmaction2() -> None:
    assert mean_class_accuracy(np.eye(4)[[0, 0, 1, 3]], np.array([0, 0, 1, 1])) == 0.5


def test_equal_scores_rank_by_lower_class_index() -> None:
    scores = np.zeros((1, 4))
    assert [top_k_accuracy(scores, np.array([2]), k) for k in (1, 2, 3)] == [0.0, 0.0, 1.0]
    assert top_k_accuracy(scores, np.array([0]), 1) == 1.0


def test_time_order_accuracy_is_half_for_what_does_not_see_order() -> None:
    labels = np.array([0, 1, 2, 3])
    reversals = {0: 1, 1: 0}
    blind = np.array([[5.0, 5.0, 0, 0]] * 4)
    assert time_order_accuracy(blind, labels, reversals) == 0.5
    assert time_order_accuracy(np.eye(4), labels, reversals) == 1.0
    assert time_order_accuracy(np.eye(4)[[1, 0, 2, 3]], labels, reversals) == 0.0
    with pytest.raises(TinError, match="no video has a class"):
        time_order_accuracy(np.eye(4), np.array([2, 3, 2, 3]), reversals)


def test_compute_names_its_values_and_leaves_out_what_says_nothing() -> None:
    scores, labels = np.eye(3), np.arange(3)
    assert compute(["top_k_accuracy", "time_order_accuracy"], scores, labels) == {"top1_acc": 1.0}
    assert compute(["top_k_accuracy"], np.eye(1), np.zeros(1, int)) == {"top1_acc": 1.0}
    with pytest.raises(TinError, match="unknown metric 'accuracy'"):
        compute(["accuracy"], scores, labels)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.full((2, 3), np.nan), np.zeros(2, int), "not finite"),
        (np.zeros((2, 3)), np.array([0, 3]), "label 3 of video 1"),
        (np.zeros((2, 3)), np.array([-1, 0]), "label -1 of video 0"),
        (np.zeros((0, 3)), np.zeros(0, int), "no videos"),
        (np.zeros((2, 3)), np.zeros(3, int), "must be"),
    ],
)
def test_damaged_input_is_refused(scores: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(TinError, match=message):
        top_k_accuracy(scores, labels, 1)
