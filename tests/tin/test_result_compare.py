"""Comparing results: matching by id, McNemar against scipy, ensembles, disagreements, and lists that do not belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from tin.errors import TinError
from tin.evaluation import Failed, Result, Scores, build_result, load_result, write_result
from tin.evaluation.compare import align, compare_pairs, disagreements, ensemble, holm, mcnemar

IDS = ["a", "b", "c", "d", "e", "f"]
LABELS = [0, 1, 2, 0, 1, 2]


def made(
    folder: Path, name: str, predictions: list[int | None], order: list[str] | None = None, **changes: Any
) -> Result:
    """A result of six videos in which the predicted class has 0.8; None failed."""
    order = order or IDS
    rows = {video: (LABELS[k], predictions[k]) for k, video in enumerate(IDS)}
    ids = np.array([k for k, video in enumerate(order) if rows[video][1] is not None])
    scores = np.full((len(ids), 3), 0.1, np.float32)
    for row, number in enumerate(ids):
        prediction = rows[order[number]][1]
        assert prediction is not None
        scores[row, prediction] = 0.8
    labels = np.array([rows[order[number]][0] for number in ids])
    failures = tuple(Failed(k, order[k], "broken") for k in range(len(order)) if k not in ids)
    path = folder / f"{name}.json"
    options = {"list_name": "val.txt", "label_names": ["x", "y", "z"], **changes}
    write_result(path, build_result(Scores(ids, scores, labels, failures, len(order)), order, **options))
    return load_result(path)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_scipys_binomial_test(first: int, second: int) -> None:
    exact, mid = mcnemar(first, second)
    total = first + second
    if total == 0:
        assert (exact, mid) == (1.0, 1.0)
        return
    assert exact == pytest.approx(binomtest(first, total).pvalue)
    likely = binom.pmf(np.arange(total + 1), total, 0.5)
    distance = np.abs(np.arange(total + 1) - total / 2)
    own = abs(first - total / 2)  # of splits as uneven as this one half counts
    assert mid == pytest.approx(likely[distance > own].sum() + likely[distance == own].sum() / 2)


def test_mcnemar_of_very_many_videos_neither_overflows_nor_lasts() -> None:
    exact, mid = mcnemar(9_800, 10_200)
    assert exact == pytest.approx(binomtest(9_800, 20_000).pvalue, rel=1e-6)
    assert 0 < mid < exact
    assert mcnemar(0, 20_000) == (0.0, 0.0)


def test_holm_corrects_as_the_textbook_says() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


def test_results_are_matched_by_id_over_the_videos_that_all_scored(tmp_path: Path) -> None:
    first = made(tmp_path, "first", [0, 1, 2, 0, None, 1])
    second = made(tmp_path, "second", [0, 2, None, 1, 1, 1], order=IDS[::-1])
    aligned = align([first, second])
    assert [IDS[k] for k in aligned.common] == ["a", "b", "d", "f"]
    assert aligned.labels.tolist() == [0, 1, 0, 2]
    assert aligned.predictions.tolist() == [[0, 1, 0, 1], [0, 2, 1, 1]]
    assert [(f.name, f.reason) for f in aligned.failures] == [
        ("c", f"not scored in {second.path}: broken"), ("e", f"not scored in {first.path}: broken"),
    ]  # fmt: skip
    (pair,) = compare_pairs(aligned)
    assert (pair.only_first, pair.only_second) == (2, 0)
    assert pair.difference == 0.5
    assert pair.interval[0] <= 0.5 <= pair.interval[1]
    assert (pair.exact, pair.holm) == (0.5, 0.5)
    assert disagreements(aligned) == [1, 2]


def test_an_ensemble_is_the_weighted_mean_and_a_result_of_its_own(tmp_path: Path) -> None:
    first = made(tmp_path, "first", [0, 1, 2, 0, 0, None])
    second = made(tmp_path, "second", [1, 1, 1, 1, 1, 1])
    aligned = align([first, second])
    mean = ensemble(aligned, [3, 1])
    np.testing.assert_allclose(mean.scores, 0.75 * first.scores[:5] + 0.25 * second.scores[:5], rtol=1e-6)
    member = {"path": str(first.path), "sha256": "0" * 64, "weight": 0.75, "checkpoint": None}
    write_result(tmp_path / "mean.json", build_result(mean, IDS, list_name="val.txt", ensemble=[member]))
    again = load_result(tmp_path / "mean.json")
    assert again.predictions.tolist() == [0, 1, 2, 0, 0, -1]
    assert again.videos[5].failed == f"not scored in {first.path}: broken"
    for weights in ([1], [1, 0], [1, float("nan")]):
        with pytest.raises(TinError, match=r"there must be 2, one a result, each above 0"):
            ensemble(aligned, weights)
    logits = made(tmp_path, "logits", [0, 1, 2, 0, 0, 0], average="score")
    with pytest.raises(TinError, match=r"first.json holds means of probabilities, .*logits.json of logits"):
        ensemble(align([first, logits]), [1, 1])


def test_disagreements_that_decide_come_first(tmp_path: Path) -> None:
    first = made(tmp_path, "first", [0, 0, 2, 1, 1, 2])
    second = made(tmp_path, "second", [0, 2, 2, 0, 1, 1])
    assert disagreements(align([first, second])) == [3, 5, 1], "at b both are wrong"


def test_results_that_do_not_belong_together_are_refused_with_the_first_difference(tmp_path: Path) -> None:
    first = made(tmp_path, "first", [0, 1, 2, 0, 1, 2])
    scores = Scores(np.arange(2), np.eye(3, dtype=np.float32)[:2], np.array([0, 1]), (), 2)
    write_result(tmp_path / "other.json", build_result(scores, ["a", "q"], list_name="l"))
    with pytest.raises(
        TinError, match=r"different lists: 5 only in .*first.json \(first: 'b'\), 1 only in .*other.json \(first: 'q'\)"
    ):
        align([first, load_result(tmp_path / "other.json")])
    with pytest.raises(TinError, match=r"class 1 is 'y' in .*first.json and 'Y' in"):
        align([first, made(tmp_path, "names", [0] * 6, label_names=["x", "Y", "z"])])
    four = Scores(np.arange(6), np.eye(6, 4, dtype=np.float32), np.array(LABELS), (), 6)
    write_result(tmp_path / "four.json", build_result(four, IDS, list_name="l"))
    with pytest.raises(TinError, match=r"first.json has 3 classes, .*four.json has 4"):
        align([first, load_result(tmp_path / "four.json")])
    relabelled = Scores(np.arange(6), np.eye(6, 3, dtype=np.float32), np.array([0, 1, 2, 0, 2, 2]), (), 6)
    write_result(tmp_path / "relabelled.json", build_result(relabelled, IDS, list_name="l"))
    with pytest.raises(TinError, match=r"'e' has label 1 in .*first.json and 2 in"):
        align([first, load_result(tmp_path / "relabelled.json")])
    with pytest.raises(TinError, match="no video was scored by all of"):
        align([made(tmp_path, "one", [0, None, None, None, None, None]), made(tmp_path, "two", [None, 0, 0, 0, 0, 0])])
