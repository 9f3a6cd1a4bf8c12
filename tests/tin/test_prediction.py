"""Predictions are the best of the scores that a test of the same videos gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import tin
from tests.tin.clips import NUM_CLASSES, NUM_SEGMENTS, SIZE, Clips, MemoryLoader
from tests.tin.networks import trained_looking
from tin.evaluation import evaluate
from tin.inference import prepare


def test_classes_and_scores_are_those_of_evaluate() -> None:
    model = trained_looking("tin_resnet18", NUM_CLASSES, NUM_SEGMENTS)
    loader = MemoryLoader(videos=7, batch_size=3, training=False, num_views=3)
    expected = evaluate(model, loader, 7)
    found = list(tin.predict(model.train(), loader, ["left", "middle", "right"], 2))
    assert [prediction.id for prediction in found] == list(range(7))
    assert not model.training
    for prediction, scores in zip(found, expected.scores, strict=True):
        order = np.argsort(-scores, kind="stable")[:2]
        assert prediction.classes == tuple(order)
        assert prediction.labels == tuple(["left", "middle", "right"][number] for number in order)
        assert prediction.scores == pytest.approx(scores[order], abs=1e-6)


def test_a_prepared_model_predicts_the_same() -> None:
    model = trained_looking("tin_resnet18", NUM_CLASSES, NUM_SEGMENTS)
    loader = MemoryLoader(videos=4, batch_size=2, training=False)
    prepared = prepare(model, torch.zeros(2 * NUM_SEGMENTS, 3, SIZE, SIZE))
    for plain, fast in zip(tin.predict(model, loader), tin.predict(prepared, loader), strict=True):
        assert fast.classes == plain.classes
        assert fast.scores == pytest.approx(plain.scores, abs=1e-5)


def test_predictions_come_batch_by_batch() -> None:
    """The second batch is not asked for before the first is handed out."""
    asked: list[int] = []
    loader = MemoryLoader(videos=6, batch_size=3, training=False, before_batch=lambda epoch, step: asked.append(step))
    predictions = tin.predict(trained_looking("tsn_resnet18", NUM_CLASSES, NUM_SEGMENTS), loader)
    next(predictions)
    assert asked == [0]
    assert not torch.is_inference_mode_enabled()


def batch(*ids: int) -> Clips:
    return Clips(torch.zeros(4 * len(ids), 3, 8, 8), torch.full((len(ids),), -1), np.array(ids))


def test_ties_go_to_the_lower_class_and_k_may_exceed_the_classes() -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0, 0.0]])
    (found,) = tin.predict(lambda frames: logits, [batch(5)], top_k=9)
    assert (found.id, found.classes, found.labels) == (5, (1, 2, 0, 3), None)
    assert sum(found.scores) == pytest.approx(1)


def test_scores_that_are_not_finite_are_an_error_of_that_video() -> None:
    logits = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    first, second = tin.predict(lambda frames: logits, [batch(0, 1)], ["no", "yes"], 1)
    assert first == tin.Prediction(0, error="the network's scores are not finite")
    assert (second.labels, second.error) == (("yes",), None)


@dataclass(frozen=True)
class LeftOut:
    id: int
    reason: str = "is cut"


class Gaps:
    """Two batches; videos before, between, in and after them cannot be read, and the loader knows that in its own time."""

    def __init__(self) -> None:
        self.failures = [LeftOut(4), LeftOut(0)]

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield batch(1, 3)
        self.failures += [LeftOut(2), LeftOut(7)]
        yield batch(5, 6)
        self.failures.append(LeftOut(8))


def test_videos_that_were_left_out_come_in_their_places_once() -> None:
    found = list(tin.predict(lambda frames: torch.zeros(2, 3), Gaps(), top_k=1))
    # 2 was known too late for its own place
    assert [prediction.id for prediction in found] == [0, 1, 3, 2, 4, 5, 6, 7, 8]
    assert [prediction.id for prediction in found if prediction.error == "is cut"] == [0, 2, 4, 7, 8]
    assert all(prediction.error or prediction.classes == (0,) for prediction in found)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(tin.TinError, match="top_k must be at least 1; got 0"):
        tin.predict(lambda frames: frames, [], top_k=0)
    with pytest.raises(tin.TinError, match="2 labels for 3 classes"):
        next(tin.predict(lambda frames: torch.zeros(1, 3), [batch(0)], ["a", "b"]))
