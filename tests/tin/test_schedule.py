"""The learning rate against closed forms of both MMAction2 versions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from tin import recipes
from tin.recipes import ScheduleSettings
from tin.train import lr_factor

STEPS = 7


def test_per_epoch_cosine_with_warmup_is_mmaction2_0x() -> None:
    schedule = ScheduleSettings(kind="cosine", epochs=40, warmup_epochs=1, warmup_start=0.1, final_lr=0.5)
    for step in range(STEPS):
        assert lr_factor(schedule, step, STEPS) == pytest.approx(0.1 + 0.9 * step / STEPS)
    for epoch in (1, 2, 20, 39):
        expected = 0.5 + 0.5 * 0.5 * (1 + math.cos(math.pi * epoch / 40))
        for step in (0, STEPS - 1):
            assert lr_factor(schedule, epoch * STEPS + step, STEPS) == pytest.approx(expected)


def test_per_step_cosine_with_warmup_is_mmaction2_1x() -> None:
    schedule = ScheduleSettings(kind="cosine", epochs=40, per_step=True, warmup_epochs=1, warmup_start=0.1)
    for i in range(STEPS):
        assert lr_factor(schedule, i, STEPS) == pytest.approx(0.1 + 0.9 * i / (STEPS - 1))
    for i in range(STEPS, 40 * STEPS):
        expected = 0.5 * (1 + math.cos(math.pi * (i - STEPS) / (39 * STEPS)))
        assert lr_factor(schedule, i, STEPS) == pytest.approx(expected)


def test_milestones_multiply_by_gamma_at_the_start_of_their_epoch() -> None:
    schedule = ScheduleSettings(kind="step", epochs=50, milestones=(20, 40))
    at = {epoch: lr_factor(schedule, epoch * STEPS, STEPS) for epoch in (0, 19, 20, 39, 40, 49)}
    assert at == pytest.approx({0: 1.0, 19: 1.0, 20: 0.1, 39: 0.1, 40: 0.01, 49: 0.01})
    assert lr_factor(schedule, 20 * STEPS - 1, STEPS) == 1.0


def test_constant_and_single_step_warmup() -> None:
    assert lr_factor(ScheduleSettings(kind="constant", epochs=2), 5, STEPS) == 1.0
    one = ScheduleSettings(kind="constant", epochs=2, per_step=True, warmup_epochs=1)
    assert lr_factor(one, 0, 1) == pytest.approx(0.1)
    assert lr_factor(one, 1, 1) == 1.0


@pytest.mark.parametrize(
    ("name", "base", "rates"),
    [
        # REFERENCE: cosine per epoch from 0.02 to its half, warm-up over one epoch from a tenth
        (
            "tin_r50_1x1x8_40e_sthv1_rgb",
            0.02,
            lambda e, i: (0.01 + 0.005 * (1 + math.cos(math.pi * e / 40))) * (0.1 + 0.9 * i / STEPS if e == 0 else 1),
        ),
        (
            "tin_r50_1x1x8_40e_sthv2_rgb",
            0.02,
            lambda e, i: (0.01 + 0.005 * (1 + math.cos(math.pi * e / 40))) * (0.1 + 0.9 * i / STEPS if e == 0 else 1),
        ),
        # a tenth at epochs 20 and 40, no warm-up
        ("tin_tsm_finetune_r50_1x1x8_50e_kinetics400_rgb", 0.01, lambda e, i: 0.01 * 0.1 ** ((e >= 20) + (e >= 40))),
    ],
)
def test_every_step_of_the_published_recipes(name: str, base: float, rates: Callable[[int, int], float]) -> None:
    recipe = recipes.load(name)
    assert recipe.optim.lr == base
    for epoch in range(recipe.schedule.epochs):
        for i in range(STEPS):
            rate = base * lr_factor(recipe.schedule, epoch * STEPS + i, STEPS)
            assert rate == pytest.approx(rates(epoch, i), rel=1e-12), (epoch, i)


def test_the_published_recipes_with_the_rate_of_every_step() -> None:
    """MMAction2 1.x: 0.01, warm-up of I steps, then a cosine to 0 over 39 epochs."""
    recipe = recipes.load(
        "tin_r50_1x1x8_40e_sthv1_rgb", ["schedule.per_step=true", "schedule.final_lr=0", "optim.lr=0.01"]
    )
    for i in range(40 * STEPS):
        rate = recipe.optim.lr * lr_factor(recipe.schedule, i, STEPS)
        if i < STEPS:
            assert rate == pytest.approx(0.01 * (0.1 + 0.9 * i / (STEPS - 1)), rel=1e-12)
        else:
            expected = 0.005 * (1 + math.cos(math.pi * (i - STEPS) / (39 * STEPS)))
            assert rate == pytest.approx(expected, rel=1e-12, abs=1e-17)


def test_a_place_between_two_steps_has_the_rate_of_its_epoch_or_lies_on_the_curve() -> None:
    """A run that goes on at another global batch stands at a fraction of a step."""
    cosine = ScheduleSettings(kind="cosine", epochs=40, warmup_epochs=1)
    for epoch, part in ((1, 0.25), (7, 3.5), (39, STEPS - 1e-9)):
        assert lr_factor(cosine, epoch * STEPS + part, STEPS) == lr_factor(cosine, epoch * STEPS, STEPS)
    assert lr_factor(cosine, 2.5, STEPS) == pytest.approx(0.1 + 0.9 * 2.5 / STEPS)
    steps = ScheduleSettings(kind="step", epochs=50, milestones=(20, 40))
    assert lr_factor(steps, 20 * STEPS - 0.5, STEPS) == 1.0
    assert lr_factor(steps, 20 * STEPS + 0.5, STEPS) == pytest.approx(0.1)
    per_step = ScheduleSettings(kind="cosine", epochs=40, per_step=True)
    expected = 0.5 * (1 + math.cos(math.pi * 30.5 / (40 * STEPS)))
    assert lr_factor(per_step, 30.5, STEPS) == pytest.approx(expected)
    rates = [lr_factor(per_step, i / 8, STEPS) for i in range(8 * 40 * STEPS + 8)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0.0
