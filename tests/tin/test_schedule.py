"""The learning rate against closed forms of both MMAction2 versions."""

from __future__ import annotations

import math

import pytest

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
