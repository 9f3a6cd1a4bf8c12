"""Result files: what is written is read back exactly, fits the published schema, and damage is named by its key."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tin.errors import TinError
from tin.evaluation import Failed, Scores, build_result, compute, load_result, write_result
from tin.evaluation.schema import json_schema

SHA = "0f" * 32
NAMES = ["a b.mp4", 'c,"d".mp4', "é/e.mp4", "f.mp4", "g.mp4"]
CLASSES = ["fight", "no fight", "other"]


def five(**changes: Any) -> dict[str, Any]:
    """Three scored videos of five."""
    scores = np.array([[0.1, 0.7, 0.2], [1 / 3, 1 / 3, 1 / 3], [1e-9, 0.25, 0.75]], np.float32)
    failures = (Failed(1, NAMES[1], "truncated"), Failed(4, NAMES[4], "no such file"))
    given = Scores(np.array([0, 2, 3]), scores, np.array([1, 1, 2]), failures, 5)
    options = {
        "list_name": "val.txt", "root": "/videos", "label_names": CLASSES, "reversals": {0: 1, 1: 0},
        "checkpoint": {"path": "best.pt", "sha256": SHA, "weights": "ema"}, "recipe": {"name": "tin"},
        "views": {"crop": "three", "sampling": "test", "clips": 2, "views": 6}, "versions": {"tin": "1"},
        "commit": {"commit": "1" * 40, "dirty": False}, "command": ["tin-cli", "test"],
    }  # fmt: skip
    return build_result(given, NAMES, **{**options, **changes})


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_result(tmp_path / "sub" / "result.json", five())
    return tmp_path / "sub" / "result.json"


def test_a_result_is_read_back_as_it_was_written(written: Path) -> None:
    result = load_result(written)
    assert result.metrics == {
        "top1_acc": pytest.approx(2 / 3), "mean_class_accuracy": pytest.approx(0.5), "balanced_accuracy": 0.75,
        "mean_average_precision": 1.0, "calibration_error": pytest.approx((0.3 + 1 / 3 + 0.25) / 3),
        "time_order_accuracy": 0.75,
    }  # fmt: skip
    assert set(result.intervals) == set(result.metrics)
    assert all(low <= result.metrics[name] <= high for name, (low, high) in result.intervals.items())
    assert (result.coverage.expected, result.coverage.scored, result.coverage.failed) == (5, 3, 2)
    assert [(failure.id, failure.reason) for failure in result.coverage.failures] == [
        (NAMES[1], "truncated"), (NAMES[4], "no such file"),
    ]  # fmt: skip
    assert [video.id for video in result.videos] == NAMES
    assert [video.failed for video in result.videos] == [None, "truncated", None, None, "no such file"]
    assert result.labels.tolist() == [1, -1, 1, 2, -1]
    assert result.predictions.tolist() == [1, -1, 0, 2, -1]
    assert result.scored.tolist() == [True, False, True, True, False]
    assert np.isnan(result.scores[[1, 4]]).all()
    assert result.labelled
    assert result.confusion is not None
    assert result.confusion.tolist() == [[0, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert [(row.name, row.videos, row.predicted, row.correct) for row in result.per_class] == [
        ("fight", 0, 1, 0), ("no fight", 2, 1, 1), ("other", 1, 1, 1),
    ]  # fmt: skip
    assert (result.list_name, result.root, result.average) == ("val.txt", "/videos", "prob")
    assert result.label_names == CLASSES
    assert result.created is not None
    made = datetime.fromisoformat(result.created)
    assert timedelta(0) <= datetime.now(UTC) - made < timedelta(minutes=5)
    assert result.checkpoint is not None
    assert (result.checkpoint.sha256, result.checkpoint.weights) == (SHA, "ema")
    assert result.reversals == {0: 1, 1: 0}
    again = result.as_scores()
    assert (again.ids.tolist(), again.expected) == ([0, 2, 3], 5)
    assert [failure.id for failure in again.failures] == [1, 4]


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_every_score_comes_back_exactly(tmp_path_factory: pytest.TempPathFactory, scores: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("bits") / "r.json"
    given = Scores(np.arange(3), scores, np.full(3, -1), (), 3)
    write_result(path, build_result(given, ["a", "b", "c"], list_name="l", average="score"))
    np.testing.assert_array_equal(load_result(path).scores, scores)


def test_metrics_computed_of_the_file_are_those_in_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(7), 200).astype(np.float32)
    names = [str(number) for number in range(200)]
    made = build_result(
        Scores(np.arange(200), scores, rng.integers(0, 7, 200), (), 200), names, list_name="l", ks=(1, 3)
    )
    write_result(tmp_path / "r.json", made)
    result = load_result(tmp_path / "r.json")
    assert "top3_acc" in result.metrics
    again = compute(
        ["top_k_accuracy", "mean_class_accuracy", "balanced_accuracy", "mean_average_precision", "calibration_error"],
        result.scores, result.labels, ks=(1, 3),
    )  # fmt: skip
    assert again == result.metrics


def test_the_file_fits_the_published_schema(written: Path, tmp_path: Path) -> None:
    schema = json.loads(resources.files("tin.evaluation").joinpath("result.schema.json").read_text(encoding="utf-8"))
    assert schema == json_schema(), (
        "result.schema.json is not what tin.evaluation.schema says: write json_schema() to it"
    )
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    content = json.loads(written.read_text())
    validator.validate(content)
    unlabelled = Scores(np.arange(1), np.ones((1, 2), np.float32), np.array([-1]), (), 1)
    nothing = Scores(np.empty(0, int), np.empty((0, 0), np.float32), np.empty(0, int), (Failed(0, "a", "bad"),), 1)
    for number, scores in enumerate((unlabelled, nothing)):
        path = tmp_path / f"{number}.json"
        write_result(path, build_result(scores, ["a"], list_name="l"))
        validator.validate(json.loads(path.read_text()))
        result = load_result(path)
        assert (result.metrics, result.intervals, result.per_class, result.confusion) == ({}, {}, [], None)
        assert not result.labelled
    for change in ({"version": 3}, {"scores": "none"}, {"metrics": {"top1_acc": None}}, {"average": "mean"}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({**content, **change})
    del content["coverage"]
    with pytest.raises(jsonschema.ValidationError, match="'coverage' is a required property"):
        validator.validate(content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("coverage"), "'coverage' is missing"),
        (lambda c: c["videos"][3].update(label="two"), r"'videos.3.label' should be a valid integer \(got two\)"),
        (lambda c: c["scores"][3].pop(), "scores has rows of 2 and of 3 numbers"),
        (lambda c: c["scores"].pop(), r"videos \(5\), scores \(4\) and coverage.expected \(5\) differ"),
        (lambda c: c["scores"].__setitem__(3, None), "coverage says 3 scored and 2 failed, scores has 2 of 5"),
        (lambda c: c["videos"][3].update(failed="no"), "videos.3 has either scores and a prediction, or failed"),
        (lambda c: c["videos"][3].update(label=3), r"videos.3 \('f.mp4'\) names a class that scores has no column for"),
        (lambda c: c["videos"][3].update(id="g.mp4"), "videos has the same id twice"),
        (lambda c: c["label_names"].pop(), "label_names has 2 names, scores 3 classes"),
        (lambda c: c["confusion"].pop(), "confusion has 2 rows, scores 3 classes"),
        (lambda c: c["confusion"][0].pop(), "confusion must have as many columns as rows"),
        (lambda c: c["intervals"]["values"].update(top1_acc=[1.0, 0.0]), "'top1_acc' must be"),
        (lambda c: c["reversals"].append([1]), "reversals must be pairs"),
        (lambda c: c.update(created="yesterday"), "'created' String should match"),
        (lambda c: c.update(root=7), "'root' should be a valid string"),
        (lambda c: c["checkpoint"].update(sha256="abc"), "'checkpoint.sha256' String should match"),
        (lambda c: c.update(version=3), "'version' is 3, and this program reads 1 and 2"),
        (lambda c: c.pop("version"), "'version' is None"),
        (lambda c: c.update(schema="other"), 'is no result file: it lacks "schema": "tin-result"'),
    ],
)  # fmt: skip
def test_damage_is_named_by_file_and_key(written: Path, change: Callable[[Any], Any], message: str) -> None:
    content = json.loads(written.read_text())
    change(content)
    written.write_text(json.dumps(content))
    with pytest.raises(TinError, match=message) as caught:
        load_result(written)
    assert str(written) in str(caught.value)


def test_files_of_this_version_from_before_a_key_was_added_are_read(written: Path) -> None:
    content = json.loads(written.read_text())
    del content["created"], content["root"]
    written.write_text(json.dumps(content))
    jsonschema.validate(content, json_schema())
    result = load_result(written)
    assert (result.created, result.root) == (None, None)


def test_files_that_are_no_results_are_refused(written: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.json"
    half.write_bytes(written.read_bytes()[:700])
    with pytest.raises(TinError, match=r"half.json is no result file: EOF while parsing.* at line"):
        load_result(half)
    with pytest.raises(TinError, match=r"cannot read .*gone.json: No such file"):
        load_result(tmp_path / "gone.json")
    write_result(tmp_path / "r.pkl", five())
    with pytest.raises(TinError, match=r"r.pkl is no result file.*give the .json of tin-cli test --out"):
        load_result(tmp_path / "r.pkl")


def test_version_1_is_read_and_its_tables_are_made_up_for(tmp_path: Path) -> None:
    """A file as the first release wrote it."""
    old = {
        "schema": "tin-result", "version": 1, "metrics": {"top1_acc": 0.5},
        "coverage": {"expected": 3, "scored": 2, "failed": 1, "failures": [{"id": "c", "reason": "bad"}]},
        "list": "val.txt", "checkpoint": {"path": "best.pt", "sha256": SHA}, "recipe": {"name": "tin"}, "average": "prob",
        "versions": {"tin": "0.1"}, "command": ["tin-cli", "test"], "label_names": None,
        "videos": [{"id": "a", "label": 0, "prediction": 1}, {"id": "b", "label": 1, "prediction": 1}, {"id": "c", "failed": "bad"}],
        "scores": [[0.25, 0.75], [0.5, 0.5000001], None],
    }  # fmt: skip
    (tmp_path / "old.json").write_text(json.dumps(old, indent=1))
    result = load_result(tmp_path / "old.json")
    assert (result.metrics, result.intervals, result.views) == ({"top1_acc": 0.5}, {}, None)
    assert result.confusion is not None
    assert result.confusion.tolist() == [[0, 1], [0, 1]]
    assert [row.accuracy for row in result.per_class] == [0.0, 1.0]
    assert result.checkpoint is not None
    assert result.checkpoint.weights is None
    for video in old["videos"][:2]:
        del video["label"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert load_result(tmp_path / "old.json").per_class == []


def test_tables_and_dumps_hold_the_same(tmp_path: Path) -> None:
    content = five()
    for suffix in ("csv", "pkl"):
        write_result(tmp_path / f"r.{suffix}", content)
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == NAMES
    assert [row["failed"] for row in rows] == ["", "truncated", "", "", "no such file"]
    first, second = rows[0], rows[2]
    assert (first["label"], first["label_name"], first["prediction"], first["prediction_name"]) == (
        "1",
        "no fight",
        "1",
        "no fight",
    )
    assert np.float32(first["label_score"]) == np.float32(0.7)
    assert first["top5"] == "1 2 0"
    assert second["top5"] == "0 1 2", "equal scores rank by class"
    assert [np.float32(part) for part in first["top5_scores"].split()] == [np.float32(p) for p in (0.7, 0.2, 0.1)]
    dumped = pickle.loads((tmp_path / "r.pkl").read_bytes())
    assert [row is None for row in dumped] == [False, True, False, False, True]
    assert dumped[3].dtype == np.float32
    np.testing.assert_array_equal(dumped[3], content["scores"][3])


def test_a_result_that_cannot_be_written_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TinError, match=r"cannot write .*file/result.json"):
        write_result(tmp_path / "file" / "result.json", five())
    with pytest.raises(TinError, match=r"r.txt: a result is written as .json, .csv or .pkl"):
        write_result(tmp_path / "r.txt", five())
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(TinError, match=r"folder.json: it is a folder"):
        write_result(tmp_path / "folder.json", five())
    with pytest.raises(ValueError, match="not JSON compliant"):  # of a caller's own keys
        write_result(tmp_path / "nan.json", five(recipe={"lr": float("nan")}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.json"]


def test_scores_that_are_not_finite_make_no_result() -> None:
    damaged = Scores(np.array([0, 1]), np.array([[1, 0], [np.nan, 0]], np.float32), np.array([-1, -1]), (), 2)
    with pytest.raises(TinError, match=r"the scores of 'b.mp4' are not finite"):
        build_result(damaged, ["a.mp4", "b.mp4"], list_name="l")
