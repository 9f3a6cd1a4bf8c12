"""Evaluation: every video once, views averaged, failures counted, mistakes of a loader found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import tin
from tests.tin.clips import NUM_CLASSES, NUM_SEGMENTS, MemoryLoader, video
from tin.errors import TinError
from tin.evaluation import evaluate


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


def test_an_empty_shard_still_merges(model: torch.nn.Module) -> None:
    scores = evaluate(model, MemoryLoader(0, training=False, failures=[Bad(0, "a", "gone")]), 1)
    assert len(scores.ids) == 0
    assert not scores.labelled
