"""Mixup and CutMix: what is mixed is what the targets say, clip by clip, and the same whenever the step is taken again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from tests.tin.clips import MemoryLoader
from tests.tin.test_train import recipe, trainer
from tin.checkpoints import load_state
from tin.train import Interrupted
from tin.train.mix import Mixed, mix_clips

N, T, H, W, CLASSES = 5, 4, 24, 40, 7


def batch(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip n is n + 1 everywhere, of class n."""
    frames = torch.arange(1, N + 1, dtype=dtype).repeat_interleave(T).view(-1, 1, 1, 1).expand(-1, 3, H, W)
    return frames.contiguous(memory_format=torch.channels_last), torch.arange(N)


def mix(dtype: torch.dtype = torch.float32, **options: Any) -> Mixed:
    return mix_clips(*batch(dtype), CLASSES, **{"mixup": 0.0, "cutmix": 0.0, "seed": 0, "step": 0, **options})


def partners(mixed: Mixed) -> torch.Tensor:
    """The clip that each was mixed with, from the targets."""
    others = mixed.targets.clone()
    others[torch.arange(N), torch.arange(N)] = 0
    return others.argmax(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_mixup_blends_all_frames_of_a_clip_by_the_share_of_its_target(dtype: torch.dtype) -> None:
    mixed = mix(dtype, mixup=0.8)
    assert mixed.frames.dtype == dtype
    assert mixed.frames.shape == (N * T, 3, H, W)
    assert mixed.frames.is_contiguous(memory_format=torch.channels_last)
    assert mixed.targets.dtype == torch.float32
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(N))
    expected = mixed.targets[:, :N] @ torch.arange(1.0, N + 1)
    seen = mixed.frames.float().view(N, T, 3, H, W)
    torch.testing.assert_close(
        seen, expected.view(N, 1, 1, 1, 1).expand_as(seen), rtol=0, atol=1e-5 if dtype == torch.float32 else 0.05
    )
    assert mixed.labels.tolist() == mixed.targets.argmax(1).tolist()


def test_cutmix_puts_the_same_box_of_the_partner_in_every_frame_and_counts_its_pixels() -> None:
    boxes = set()
    for step in range(30):
        mixed = mix(cutmix=1.0, step=step)
        frames = mixed.frames.view(N, T, 3, H, W)
        assert torch.equal(frames, frames[:, :1, :1].expand_as(frames))
        for n, partner in enumerate(partners(mixed).tolist()):
            image = frames[n, 0, 0]
            taken = image == partner + 1
            assert torch.equal(image == n + 1, ~taken)
            if mixed.targets[n, n] < 1:
                assert partner != n
                assert mixed.targets[n, partner].item() == pytest.approx(taken.float().mean().item(), abs=1e-6)
                rows, columns = taken.any(1).nonzero(), taken.any(0).nonzero()
                y0, x0, y1, x1 = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
                assert taken[y0:y1, x0:x1].all()  # one box
                boxes.add((int(y0), int(x0), int(y1), int(x1)))
    assert len(boxes) > 100  # a box for each clip


def test_shares_follow_the_beta_distribution_and_partners_are_all_others_alike() -> None:
    mixed = [mix(mixup=0.4, step=step) for step in range(800)]
    own = np.array([one.targets.diagonal().numpy() for one in mixed])
    assert stats.kstest(own.reshape(-1), stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    mixed = [one for one in mixed if one.targets[0, 0] < 1]  # a share that rounds to 1 leaves no trace of the partner
    shifts = np.bincount([int(partners(one)[0]) for one in mixed], minlength=N)
    assert len(mixed) > 780
    assert shifts[0] == 0  # never itself
    assert stats.chisquare(shifts[1:]).pvalue > 1e-3


def test_boxes_have_the_area_of_the_share_about_a_uniform_centre() -> None:
    frames, labels = torch.zeros(2, 1, 500, 500), torch.arange(2)
    shares = [
        mix_clips(frames, labels, 2, mixup=0, cutmix=1.0, seed=1, step=step).targets.diagonal().numpy()
        for step in range(300)
    ]
    # Of a side s about a uniform centre, s − s²/4 remains inside; 1 − s² is uniform: E[(s − s²/4)²] = 1/2 − 1/5 + 1/48.
    assert 1 - np.mean(shares) == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.03)


def test_a_step_takes_one_of_the_two_with_equal_chances_and_only_part_of_the_steps() -> None:
    kinds = []
    for step in range(1200):
        mixed = mix(mixup=1.0, cutmix=1.0, probability=0.5, step=step)
        blended = (mixed.frames != mixed.frames.round()).any()
        kinds.append("none" if torch.equal(mixed.frames, batch()[0]) else "mixup" if blended else "cutmix")
    counts = [kinds.count(kind) for kind in ("none", "mixup", "cutmix")]
    assert stats.chisquare(counts, [600, 300, 300]).pvalue > 1e-3


def test_draws_are_a_function_of_seed_step_and_rank_alone() -> None:
    torch.manual_seed(0)
    first = mix(mixup=0.8, cutmix=1.0)
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    np.random.seed(1)
    again = mix(mixup=0.8, cutmix=1.0)
    assert torch.equal(first.frames, again.frames)
    assert torch.equal(first.targets, again.targets)
    for other in ({"seed": 1}, {"step": 1}, {"rank": 1}):
        assert not torch.equal(first.targets, mix(mixup=0.8, cutmix=1.0, **other).targets)
    torch.random.set_rng_state(state)
    mix(mixup=0.8)
    assert torch.equal(state, torch.random.get_rng_state())  # dropout draws what it would have drawn


def test_the_given_batch_stays_as_it_is_and_a_single_clip_is_not_mixed() -> None:
    frames, labels = batch()
    before = frames.clone()
    mix_clips(frames, labels, CLASSES, mixup=0.8, cutmix=0.0, seed=0, step=0)
    assert torch.equal(frames, before)
    alone = mix_clips(frames[:T], labels[:1], CLASSES, mixup=0.8, cutmix=1.0, seed=0, step=0)
    assert torch.equal(alone.frames, frames[:T])
    assert alone.targets.tolist() == F.one_hot(labels[:1], CLASSES).tolist()


def test_the_loss_of_soft_targets_is_the_mean_of_the_two_labels_losses() -> None:
    mixed = mix(mixup=0.8)
    logits = torch.randn(N, CLASSES, generator=torch.Generator().manual_seed(0))
    own = mixed.targets.diagonal()
    losses = [F.cross_entropy(logits, labels, reduction="none") for labels in (torch.arange(N), partners(mixed))]
    torch.testing.assert_close(F.cross_entropy(logits, mixed.targets), (own * losses[0] + (1 - own) * losses[1]).mean())


@pytest.mark.slow
def test_a_run_that_mixes_learns_and_resumes_bit_identical(tmp_path: Path) -> None:
    settings = recipe("train.mixup=0.2", "train.cutmix=1.0", "schedule.epochs=3")
    whole = trainer(settings, tmp_path / "whole")
    whole.fit()
    events = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert losses[-1] < losses[0]

    def interrupt(epoch: int, step: int) -> None:
        if (epoch, step) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)

    parts = trainer(settings, tmp_path / "parts", MemoryLoader(before_batch=interrupt))
    with pytest.raises(Interrupted):
        parts.fit()
    last = tmp_path / "parts" / "last.pt"
    resumed = trainer(settings, tmp_path / "parts")
    resumed.resume(load_state(last), last)
    resumed.fit()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    plain = trainer(recipe("schedule.epochs=3"), tmp_path / "plain")
    plain.fit()
    assert not torch.equal(plain.model.state_dict()["fc.weight"], whole.model.state_dict()["fc.weight"])
