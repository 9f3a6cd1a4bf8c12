"""One training step: the same update however its batch is cut up, and none where the numbers went wrong."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tin
from tests.tin.clips import NUM_CLASSES, NUM_SEGMENTS, SIZE, Clips, video
from tin.distributed import World
from tin.errors import TinError
from tin.recipes import Recipe, from_dict
from tin.train import TrainStep
from tin.train.step import Outcome

RECIPE: dict[str, Any] = {
    "name": "small",
    "dataset": "memory",
    "model": {"arch": "tin_resnet18", "num_classes": NUM_CLASSES, "num_segments": NUM_SEGMENTS, "dropout": 0.0},
    "data": {"input_size": SIZE, "short_side": SIZE},
    "optim": {"lr": 0.01},
    "schedule": {"epochs": 2, "kind": "constant"},
    "train": {"batch_size": 4, "base_batch": 4, "amp": "off"},
}


def step_of(*overrides: str, seed: int = 1) -> TrainStep:
    recipe: Recipe = from_dict(RECIPE, "small", overrides)
    torch.manual_seed(seed)
    model = tin.build_model(**recipe.model.model_dump(exclude={"pretrained"}))
    return TrainStep(
        model, recipe, lr=recipe.optim.lr, steps_per_epoch=6, device=torch.device("cpu"), world=World(), seed=3
    )


def clips(*numbers: int) -> Clips:
    ids = np.array(numbers)
    frames = torch.cat([video(number) for number in numbers]).contiguous(memory_format=torch.channels_last)
    return Clips(frames, torch.from_numpy(ids % NUM_CLASSES), ids)


def run(step: TrainStep, batch: Clips, count: int = 3) -> list[Outcome]:
    return [step(batch, position=number, global_step=number) for number in range(count)]


def test_an_accumulated_batch_moves_the_weights_as_the_whole_batch_does() -> None:
    def frozen(step: TrainStep) -> TrainStep:
        """Without BatchNorm's batch statistics, which depend on how the batch is cut."""
        step.model.eval()
        return step

    whole = frozen(step_of("train.batch_size=8", "optim.label_smoothing=0.1"))
    parts = frozen(step_of("train.batch_size=2", "train.accumulate=4", "optim.label_smoothing=0.1"))
    batch = clips(*range(8))
    for one, other in zip(run(whole, batch), run(parts, batch), strict=True):
        torch.testing.assert_close(one.loss, other.loss, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(one.grad_norm, other.grad_norm, rtol=1e-4, atol=1e-6)
        assert (int(one.hits1), int(one.hits5), one.clips) == (int(other.hits1), int(other.hits5), other.clips)
    for (name, one), other in zip(whole.model.named_parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-6, msg=name)


def test_label_smoothing_is_the_mixture_of_the_label_and_all_classes() -> None:
    plain, smooth = step_of(), step_of("optim.label_smoothing=0.3")
    batch = clips(0, 1, 2, 3)
    with torch.no_grad():
        plain.model.train()
        log_shares = plain.model(batch.frames).float().log_softmax(-1)
    own = log_shares.gather(1, batch.labels[:, None]).squeeze(1)
    expected = -(0.7 * own + 0.3 * log_shares.mean(1)).mean()
    torch.testing.assert_close(run(smooth, batch, 1)[0].loss, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(run(step_of(), batch, 1)[0].loss, -own.mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_batch_that_is_not_finite_changes_nothing(amp: str) -> None:
    step = step_of(f"train.amp={amp}", "train.ema=0.9", "train.accumulate=2", "train.batch_size=2")
    run(step, clips(0, 1, 2, 3), 2)
    weights = {name: value.clone() for name, value in step.model.state_dict().items() if value.is_floating_point()}
    momentum = [step.optimizer.state[p]["momentum_buffer"].clone() for p in step.model.parameters()]
    batch = clips(4, 5, 6, 7)
    batch.frames[0, 0, 0, 0] = float("nan")
    outcome = run(step, batch, 1)[0]
    assert float(outcome.skipped) == 1
    assert not outcome.grad_norm.isfinite()
    assert outcome.parameter_norms.shape == (len(step.names),)
    for name, value in weights.items():
        assert torch.equal(value, step.model.state_dict()[name]), name
    for before, p in zip(momentum, step.model.parameters(), strict=True):
        assert torch.equal(before, step.optimizer.state[p]["momentum_buffer"])
    after = run(step, clips(0, 1, 2, 3), 1)[0]
    assert float(after.skipped) == 0
    assert after.loss.isfinite()


def test_the_fp16_scale_backs_off_after_a_step_that_was_left_out() -> None:
    step = step_of("train.amp=fp16")
    batch = clips(0, 1, 2, 3)
    before = float(run(step, batch, 1)[0].scale)  # type: ignore[arg-type]
    batch.frames[0] = float("inf")
    run(step, batch, 1)
    outcome = run(step, clips(0, 1, 2, 3), 1)[0]
    assert outcome.scale is not None
    assert float(outcome.scale) == before / 2


def test_partial_bn_stays_frozen_after_an_evaluation() -> None:
    step = step_of("optim.partial_bn=true")
    step.model.eval()
    step.train_mode()
    norms = [module for module in step.model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.training for norm in norms] == [True] + [False] * (len(norms) - 1)
    frozen = [norm.running_mean.clone() for norm in norms[1:] if norm.running_mean is not None]
    run(step, clips(0, 1, 2, 3))
    for before, norm in zip(frozen, norms[1:], strict=True):
        assert norm.running_mean is not None
        assert torch.equal(before, norm.running_mean)


def test_rates_follow_the_position_and_the_groups() -> None:
    step = step_of("schedule.kind=cosine", "schedule.final_lr=0.5", "schedule.per_step=true")
    step(clips(0, 1, 2, 3), position=6.0, global_step=0)  # the middle of 2 epochs of 6 steps
    assert step.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.75)
    rates = {group["name"]: group["lr"] / group["lr_mult"] for group in step.optimizer.param_groups}
    assert list(rates.values()) == pytest.approx([0.0075] * len(rates))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.prove)])
def test_the_compiled_step_is_the_eager_step(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The short form traces and differentiates as the other does, and leaves out the minute of a C++ compiler."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    eager, compiled = step_of(), step_of("train.compile=true")
    batch = clips(0, 1, 2, 3)
    for one, other in zip(run(eager, batch), run(compiled, batch), strict=True):
        torch.testing.assert_close(one.loss, other.loss, rtol=1e-4, atol=1e-5)
    assert list(eager.model.state_dict()) == list(compiled.model.state_dict())


def test_sync_bn_on_a_cpu_is_refused() -> None:
    recipe = from_dict(RECIPE, "small", ["train.sync_bn=true"])
    model = tin.build_model(**recipe.model.model_dump(exclude={"pretrained"}))
    with pytest.raises(TinError, match="sync_bn needs GPUs"):
        TrainStep(model, recipe, lr=0.1, steps_per_epoch=1, device=torch.device("cpu"), world=World(0, 0, 2), seed=0)
