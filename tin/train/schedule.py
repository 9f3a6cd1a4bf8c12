"""The learning rate as a pure function of the step: warm-up, cosine, steps."""

from __future__ import annotations

import bisect
import math

from tin.recipes import ScheduleSettings


def lr_factor(schedule: ScheduleSettings, step: float, steps_per_epoch: int) -> float:
    """The factor of the base learning rate at an optimiser step.

    Per epoch (`per_step=False`, MMAction2 0.x): the rate of epoch e is that of a cosine over all epochs, or of the milestones; a
    warm-up of W steps multiplies it by `warmup_start + (1 - warmup_start) · step / W`.
    Per step (`per_step=True`, MMAction2 1.x): the warm-up rises to the full rate at its last step, `warmup_start +
    (1 - warmup_start) · step / (W - 1)`, then the cosine runs over the steps that are left.

    Args:
        schedule: the recipe's settings.
        step: optimiser steps done before this one, from 0; a fraction where a run went on in mid-epoch with another global batch.
            Per epoch, the epoch is ⌊step / steps_per_epoch⌋.
        steps_per_epoch: optimiser steps of an epoch.

    Returns:
        A factor in [0, 1].
    """
    total = schedule.epochs * steps_per_epoch
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if schedule.per_step:
        if step < warmup:
            return _rise(schedule.warmup_start, step, max(1, warmup - 1))
        return _regular(schedule, step - warmup, total - warmup, step / steps_per_epoch)
    epoch = step // steps_per_epoch
    factor = _regular(schedule, epoch, schedule.epochs, epoch)
    return factor * _rise(schedule.warmup_start, step, warmup) if step < warmup else factor


def _rise(start: float, step: float, length: int) -> float:
    return min(1.0, start + (1.0 - start) * step / length)


def _regular(schedule: ScheduleSettings, position: float, length: int, epoch: float) -> float:
    if schedule.kind == "step":
        return schedule.gamma ** bisect.bisect_right(schedule.milestones, epoch)
    if schedule.kind == "cosine":
        progress = min(1.0, position / max(1, length))
        return schedule.final_lr + (1.0 - schedule.final_lr) * 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0
