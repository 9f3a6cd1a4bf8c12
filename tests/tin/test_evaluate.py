"""Evaluation: every video once, views averaged, failures counted, mistakes of a loader found; and the result file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import tin
from tests.tin.clips import NUM_CLASSES, NUM_SEGMENTS, MemoryLoader, video
from tin.errors import TinError
from tin.evaluation import build_result, compute, evaluate, write_json


@dataclass(frozen=True)
class Bad:
    id: int
    name: str
    reason: str


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    net = tin.build_model("tsn_resnet18", NUM_CLASSES, NUM_SEGMENTS)
    torch.nn.init.normal_(net.fc.weight, std=0.3)
    return net


@pytest.mark.parametrize("average", ["prob", "score"])
def test_scores_are_means_over_views_in_list_order(model: torch.nn.Module, average: str) -> None:
    scores = evaluate(model, MemoryLoader(7, training=False, num_views=2), 7, average=average)  # type: ignore[arg-type]
    assert scores.ids.tolist() == list(range(7))
    assert scores.labels.tolist() == [i % NUM_CLASSES for i in range(7)]
    with torch.inference_mode():
        logits = model.eval()(video(6, 2))
    expected = (logits.softmax(-1) if average == "prob" else logits).mean(0)
    np.testing.assert_allclose(scores.scores[6], expected.numpy(), rtol=1e-5, atol=1e-6)


def test_evaluation_leaves_the_training_mode_as_it_was(model: torch.nn.Module) -> None:
    model.train()
    evaluate(model, MemoryLoader(4, training=False), 4)
    assert model.training


def test_lost_and_doubled_videos_are_errors(model: torch.nn.Module) -> None:
    with pytest.raises(TinError, match="1 videos were neither scored nor reported as failed"):
        evaluate(model, MemoryLoader(4, training=False), 5)
    with pytest.raises(TinError, match="scored more than once"):
        evaluate(model, [*MemoryLoader(4, training=False), *MemoryLoader(2, training=False)], 4)
    with pytest.raises(TinError, match="1 were both"):
        evaluate(model, MemoryLoader(4, training=False, failures=[Bad(2, "two", "broken")]), 4)


def test_the_result_file_carries_coverage_and_a_score_a_video(model: torch.nn.Module, tmp_path: Path) -> None:
    scores = evaluate(model, MemoryLoader(4, training=False, failures=[Bad(4, "e.mp4", "truncated")]), 5)
    metrics = compute(["top_k_accuracy"], scores.scores, scores.labels)
    write_json(
        tmp_path / "sub" / "result.json", build_result(scores, metrics, ["a", "b", "c", "d", "e.mp4"], average="prob")
    )
    result = json.loads((tmp_path / "sub" / "result.json").read_text())
    assert result["coverage"] == {
        "expected": 5, "scored": 4, "failed": 1, "failures": [{"id": "e.mp4", "reason": "truncated"}],
    }  # fmt: skip
    assert result["videos"][4] == {"id": "e.mp4", "failed": "truncated"}
    assert result["scores"][4] is None
    np.testing.assert_allclose(np.array(result["scores"][:4]), scores.scores, rtol=1e-5)
    assert [v["prediction"] for v in result["videos"][:4]] == scores.scores.argmax(1).tolist()


def test_a_result_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TinError, match="cannot write"):
        write_json(tmp_path / "file" / "result.json", {})


def test_an_empty_shard_still_merges(model: torch.nn.Module) -> None:
    scores = evaluate(model, MemoryLoader(0, training=False, failures=[Bad(0, "a", "gone")]), 1)
    assert len(scores.ids) == 0
    assert not scores.labelled
