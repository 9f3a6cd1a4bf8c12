"""Predictions are the best of the scores that a test of the same videos gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.tin.clips import NUM_CLASSES, NUM_SEGMENTS, SIZE, Clips, MemoryLoader
from tests.tin.networks import trained_looking
from tin.evaluation import evaluate
from tin.inference import prepare
from tin.predict import predict


def test_classes_and_scores_are_those_of_evaluate() -> None:
    model = trained_looking("tin_resnet18", NUM_CLASSES, NUM_SEGMENTS)
    loader = MemoryLoader(videos=7, batch_size=3, training=False, num_views=3)
    expected = evaluate(model, loader, 7)
    found = list(predict(model.train(), loader, 2))
    assert [prediction.id for prediction in found] == list(range(7))
    assert not model.training
    for prediction, scores in zip(found, expected.scores, strict=True):
        order = np.argsort(-scores, kind="stable")[:2]
        assert prediction.classes == tuple(order)
        assert prediction.scores == pytest.approx(scores[order], abs=1e-6)


def test_a_prepared_model_predicts_the_same() -> None:
    model = trained_looking("tin_resnet18", NUM_CLASSES, NUM_SEGMENTS)
    loader = MemoryLoader(videos=4, batch_size=2, training=False)
    prepared = prepare(model, torch.zeros(2 * NUM_SEGMENTS, 3, SIZE, SIZE))
    for plain, fast in zip(predict(model, loader, 3), predict(prepared, loader, 3), strict=True):
        assert fast.classes == plain.classes
        assert fast.scores == pytest.approx(plain.scores, abs=1e-5)


def test_predictions_come_batch_by_batch() -> None:
    """The second batch is not asked for before the first is handed out."""
    asked: list[int] = []
    loader = MemoryLoader(videos=6, batch_size=3, training=False, before_batch=lambda epoch, step: asked.append(step))
    predictions = predict(trained_looking("tsn_resnet18", NUM_CLASSES, NUM_SEGMENTS), loader, 1)
    next(predictions)
    assert asked == [0]
    assert not torch.is_inference_mode_enabled()


def test_ties_go_to_the_lower_class_and_k_may_exceed_the_classes() -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0, 0.0]])
    batch = Clips(torch.zeros(4, 3, 8, 8), torch.tensor([-1]), np.array([5]))
    (found,) = predict(lambda frames: logits, [batch], 9)
    assert (found.id, found.classes) == (5, (1, 2, 0, 3))
    assert sum(found.scores) == pytest.approx(1)


def test_scores_that_are_not_finite_are_no_prediction() -> None:
    logits = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    batch = Clips(torch.zeros(8, 3, 8, 8), torch.tensor([-1, -1]), np.array([0, 1]))
    first, second = predict(lambda frames: logits, [batch], 1)
    assert first.classes == first.scores == ()
    assert second.classes == (1,)
