"""The training loop: it learns, records, resumes exactly where it was, and stops with a reason."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import tin
from tests.tin.clips import NUM_CLASSES, NUM_SEGMENTS, SIZE, MemoryLoader
from tin.checkpoints import load_state
from tin.errors import TinError
from tin.recipes import Recipe, from_dict
from tin.train import Interrupted, Trainer, scaled_lr

RECIPE: dict[str, Any] = {
    "name": "small",
    "dataset": "memory",
    "model": {"arch": "tin_resnet18", "num_classes": NUM_CLASSES, "num_segments": NUM_SEGMENTS, "dropout": 0.3},
    "data": {"input_size": SIZE, "short_side": SIZE},
    "optim": {"lr": 0.005},
    "schedule": {"epochs": 3},
    "train": {"batch_size": 4, "base_batch": 4, "validate_every": 2, "amp": "off", "log_every": 4},
}


def recipe(*overrides: str) -> Recipe:
    return from_dict(RECIPE, "small", overrides)


def trainer(settings: Recipe, work_dir: Path, loader: MemoryLoader | None = None, **extra: Any) -> Trainer:
    torch.manual_seed(1)
    model = tin.build_model(**settings.model.model_dump(exclude={"pretrained"}))
    work_dir.mkdir(exist_ok=True)
    return Trainer(model, settings, loader or MemoryLoader(), work_dir, seed=5, **extra)


@pytest.mark.slow
def test_a_run_learns_and_leaves_checkpoints_log_and_metrics(tmp_path: Path) -> None:
    run = trainer(recipe("schedule.epochs=5"), tmp_path, val_loader=MemoryLoader(10, training=False), val_videos=10)
    result = run.fit()
    assert result.metrics["top1_acc"] == 1.0
    assert result.metrics["coverage"] == 1.0
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    assert steps[-1]["global_step"] == 30
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]
    assert [event["epoch"] for event in events if event["event"] == "validation"] == [2, 4, 5]
    last, best = load_state(tmp_path / "last.pt"), load_state(tmp_path / "best.pt")
    assert (last["progress"]["epoch"], last["progress"]["step"]) == (5, 0)
    assert best["progress"]["best"]["top1_acc"] == 1.0
    fresh = tin.build_model("tin_resnet18", NUM_CLASSES, NUM_SEGMENTS)
    assert not tin.load_checkpoint(fresh, tmp_path / "last.pt").new
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("at", [(0, 2), (1, 0), (2, 5)])
def test_an_interrupted_and_resumed_run_ends_bit_identical(tmp_path: Path, at: tuple[int, int]) -> None:
    whole = trainer(recipe(), tmp_path / "whole")
    whole.fit()

    def interrupt(epoch: int, step: int) -> None:
        if (epoch, step) == at:
            os.kill(os.getpid(), signal.SIGTERM)

    parts = trainer(recipe(), tmp_path / "parts", MemoryLoader(before_batch=interrupt))
    with pytest.raises(Interrupted, match="SIGTERM") as raised:
        parts.fit()
    assert raised.value.exit_status == 143
    last = tmp_path / "parts" / "last.pt"
    resumed = trainer(recipe(), tmp_path / "parts")
    resumed.resume(load_state(last), last)
    assert resumed.progress.global_step == at[0] * 6 + at[1] + 1
    resumed.fit()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_numbers_that_keep_going_wrong_stop_the_run_with_the_evidence(tmp_path: Path) -> None:
    settings = recipe("optim.lr=1e30", "train.max_skipped=3", "optim.clip_norm=none", "train.log_every=100")
    run = trainer(settings, tmp_path, name_of=lambda number: f"video {number}")
    with pytest.raises(
        TinError, match=r"\d+ steps had a loss or gradients that are not finite.*train\.max_skipped = 3"
    ):
        run.fit()
    evidence = json.loads((tmp_path / "nonfinite.json").read_text())
    assert evidence["left_out"] == len(evidence["steps"]) > 3
    assert evidence["steps"][0]["ranks"][0]["videos"][0].startswith("video ")


def test_a_batch_that_breaks_is_left_out_and_the_run_goes_on(tmp_path: Path) -> None:
    class Breaking(MemoryLoader):
        def __iter__(self) -> Any:
            for number, batch in enumerate(super().__iter__()):
                if (self._epoch, number) == (0, 2):
                    batch.frames[0] = float("inf")
                yield batch

    run = trainer(recipe("schedule.epochs=2"), tmp_path, Breaking())
    run.fit()
    assert (run.progress.skipped, run.progress.global_step) == (1, 12)
    assert all(value.isfinite().all() for value in run.model.state_dict().values())
    steps = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [event["skipped"] for event in steps if event["event"] == "step"][-1] == 1
    assert json.loads((tmp_path / "nonfinite.json").read_text())["steps"][0]["step"] == 3


def test_resuming_another_model_or_a_finished_run_is_refused(tmp_path: Path) -> None:
    run = trainer(recipe("schedule.epochs=1"), tmp_path)
    run.fit()
    last = tmp_path / "last.pt"
    state = load_state(last)
    with pytest.raises(TinError, match="has finished its 1 epochs; raise --epochs"):
        trainer(recipe("schedule.epochs=1"), tmp_path).resume(state, last)
    with pytest.raises(TinError, match=r"model\.num_classes = 3, this run has 4"):
        trainer(recipe("model.num_classes=4"), tmp_path).resume(state, last)
    for key, value, was in (("repeats", "2", "1"), ("class_balanced", "0.5", "0.0")):
        with pytest.raises(TinError, match=rf"data\.{key} = {was}, this run has {value}; a resumed run must keep it"):
            trainer(recipe(f"data.{key}={value}", "schedule.epochs=2"), tmp_path).resume(state, last)
    with pytest.raises(TinError, match="not a training checkpoint"):
        trainer(recipe(), tmp_path).resume({"state_dict": state["state_dict"]}, last)


def test_a_loader_that_ends_early_is_an_error_not_a_short_epoch(tmp_path: Path) -> None:
    class Short(MemoryLoader):
        def __len__(self) -> int:
            return super().__len__() + 1 if not self._iterating else super().__len__()

        _iterating = False

        def __iter__(self) -> Any:
            self._iterating = True
            yield from super().__iter__()

    with pytest.raises(TinError, match="gave 6 of 7 steps in epoch 1"):
        trainer(recipe("schedule.epochs=1"), tmp_path, Short()).fit()


def test_linear_scaling_rule_follows_the_published_examples() -> None:
    scaled = recipe("optim.lr=0.02", "train.batch_size=6", "train.base_batch=48")
    assert scaled_lr(scaled, 8) == pytest.approx(0.02)
    assert scaled_lr(scaled, 1) == pytest.approx(0.0025)
    table = recipe("optim.lr=0.01", "train.batch_size=4", "train.base_batch=8")
    assert scaled_lr(table, 16) == pytest.approx(0.08)
    assert scaled_lr(recipe("train.scale_lr=false"), 64) == 0.005


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["fp16", "bf16"])
def test_mixed_precision_learns_too(tmp_path: Path, amp: str) -> None:
    run = trainer(recipe(f"train.amp={amp}", "schedule.epochs=3"), tmp_path)
    run.fit()
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert losses[-1] < losses[0]
    assert all(value.dtype == torch.float32 for value in run.model.parameters())
