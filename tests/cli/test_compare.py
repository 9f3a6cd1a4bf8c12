"""`tin-cli compare` as a user types it: tables, ensembles that are results, disagreements, and mistakes."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from tin.evaluation import Failed, Scores, build_result, load_result, write_result
from tin.evaluation.schema import json_schema

Cli = Callable[..., Any]
VIDEOS, CLASSES = 80, 4


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three results of one list, good, fair and blind; the fair one lacks a video."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, VIDEOS)
    for name, strength, failed in (("good", 3.0, []), ("fair", 1.5, [7]), ("blind", 0.0, [])):
        logits = rng.normal(size=(VIDEOS, CLASSES))
        logits[np.arange(VIDEOS), labels] += strength
        probabilities = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
        ids = np.array([number for number in range(VIDEOS) if number not in failed])
        failures = tuple(Failed(number, f"v{number}.mp4", "truncated") for number in failed)
        scores = Scores(ids, probabilities[ids], labels[ids], failures, VIDEOS)
        names = [f"v{number}.mp4" for number in range(VIDEOS)]
        write_result(tmp_path / f"{name}.json", build_result(scores, names, list_name="val.txt", ks=(1, 2)))
    return tmp_path


def test_metrics_significance_and_the_ensemble_are_shown(cli: Cli, results: Path) -> None:
    result = cli("compare", "good.json", "fair.json", "blind.json")
    assert result.status == 0, result.err
    assert "79 of 80 videos scored in all results, 1 left out" in result.out
    lines = result.out.splitlines()
    assert re.match(
        r" +good  +95 % interval  +fair  +95 % interval  +blind  +95 % interval  +ensemble \(equal\)", lines[1]
    )
    good = load_result("good.json")
    rows = np.delete(np.arange(VIDEOS), 7)
    top1 = (good.predictions == good.labels)[rows].mean()
    assert re.match(rf"top-1 +{100 * top1:.2f} % ", lines[2])
    assert any(line.startswith("top-2 ") for line in lines)
    (pair,) = [line for line in lines if line.startswith("good − blind")]
    assert float(pair.split()[-1]) < 1e-6, "a network that sees and a blind one differ by more than chance"
    assert "p (Holm)" in result.out
    assert "p (Holm)" not in cli("compare", "good.json", "fair.json").out


def test_the_ensemble_is_written_as_a_valid_result(cli: Cli, results: Path) -> None:
    outs = ["--out", "mean.json", "--out", "mean.csv", "--out", "mean.pkl"]
    result = cli("compare", "good.json", "fair.json", "--weights", "1,3", *outs)
    assert result.status == 0, result.err
    assert "ensemble (1:3)" in result.out
    content = json.loads(Path("mean.json").read_text())
    jsonschema.validate(content, json_schema())
    mean, good, fair = (load_result(f"{name}.json") for name in ("mean", "good", "fair"))
    np.testing.assert_allclose(mean.scores, 0.25 * good.scores + 0.75 * fair.scores, rtol=1e-6)
    assert mean.videos[7].failed == "not scored in fair.json: truncated"
    assert [(member["path"], member["weight"]) for member in content["ensemble"]] == [
        ("good.json", 0.25),
        ("fair.json", 0.75),
    ]
    assert "1 of its entries are None" in result.err
    assert cli("compare", "mean.json", "good.json").status == 0, "an ensemble can be compared again"


def test_videos_that_are_predicted_differently_are_listed(cli: Cli, results: Path) -> None:
    result = cli("compare", "good.json", "blind.json", "--disagree", "3", "--disagree-csv", "sub/d.csv")
    assert result.status == 0, result.err
    good, blind = load_result("good.json"), load_result("blind.json")
    differ = np.flatnonzero(good.predictions != blind.predictions)
    assert f"{len(differ)} videos are predicted differently" in result.out
    with Path("sub/d.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "label", "good", "blind"]
    assert {row[0] for row in rows[1:]} == {f"v{number}.mp4" for number in differ}
    assert sum(line.startswith("v") for line in result.out.splitlines()) == 3


def test_a_list_without_labels_has_an_ensemble_alone(cli: Cli, results: Path) -> None:
    for name in ("one", "two"):
        scores = Scores(np.arange(2), np.eye(2, dtype=np.float32), np.array([-1, -1]), (), 2)
        write_result(Path(f"{name}.json"), build_result(scores, ["a", "b"], list_name="test.txt"))
    result = cli("compare", "one.json", "two.json")
    assert result.status == 2
    assert "one.json: its videos have no labels" in result.err
    assert cli("compare", "one.json", "two.json", "--out", "mean.json").status == 0
    assert load_result("mean.json").metrics == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("good.json", "name at least two results"),
        ("good.json gone.json", "'gone.json' does not exist"),
        ("good.json fair.json --weights 1", "--weights has 1 numbers for 2 results"),
        ("good.json fair.json --weights 1,0", "'1,0' are no weights"),
        ("good.json fair.json --weights a,b", "'a,b' are no weights"),
        ("good.json fair.json --out mean.txt", "mean.txt: a result is written as"),
        ("good.json bad.json", "bad.json is no result file"),
    ],
)
def test_mistakes_are_one_line(cli: Cli, results: Path, arguments: str, message: str) -> None:
    Path("bad.json").write_text("{")
    result = cli("compare", *arguments.split())
    assert result.status == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1
