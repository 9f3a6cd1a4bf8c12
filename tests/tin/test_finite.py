"""Steps that are not finite: counted, written down, and the end of a run when there are too many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tin.processes import run_ranks
from tin.distributed import World
from tin.errors import TinError
from tin.train.finite import FiniteGuard, Skipped

NAMES = ["conv.weight", "bn.weight", "fc.weight"]
NAN, INF = float("nan"), float("inf")


def record(guard: FiniteGuard, number: int, loss: float = 1.0, norm: float = 2.0, **extra: Any) -> None:
    """Step `number` of a run of ten steps an epoch."""
    norms = extra.pop("norms", None)
    guard.record(
        epoch=1 + number // 10,
        step=1 + number % 10,
        global_step=number,
        ids=extra.pop("ids", [number, number + 1]),
        loss=torch.tensor(loss),
        grad_norm=torch.tensor(norm),
        skip=torch.tensor(float(norm in (INF,) or norm != norm)),
        scale=None if extra.get("scale") is None else torch.tensor(extra["scale"]),
        per_parameter_norms=None if norms is None else torch.tensor(norms),
    )


def test_steps_that_were_left_out_are_told_and_written_with_their_evidence(tmp_path: Path) -> None:
    guard = FiniteGuard(2, NAMES, tmp_path, name_of="video{}.mp4".format)
    for number in range(14):
        broken = number == 12
        record(
            guard,
            number,
            loss=NAN if broken else 1.0,
            norm=NAN if broken else 2.0,
            norms=[1.0, NAN if broken else 1.0, INF],
        )
    nan = pytest.approx(NAN, nan_ok=True)
    expected = Skipped(2, 3, 12, nan, (nan,), None, ((12, 13),), ("bn.weight", "fc.weight"))
    assert guard.drain(World()) == [expected]
    assert guard.drain(World()) == []
    assert guard.counted == 1
    evidence = json.loads((tmp_path / "nonfinite.json").read_text(), parse_constant=pytest.fail)
    assert evidence == {
        "limit": 2,
        "left_out": 1,
        "steps": [
            {
                "epoch": 2,
                "step": 3,
                "global_step": 12,
                "grad_norm": "nan",
                "scale": None,
                "parameters_not_finite": 2,
                "parameters": ["bn.weight", "fc.weight"],
                "ranks": [{"rank": 0, "loss": "nan", "ids": [12, 13], "videos": ["video12.mp4", "video13.mp4"]}],
            }
        ],
    }


def test_a_good_run_writes_nothing(tmp_path: Path) -> None:
    guard = FiniteGuard(0, NAMES, tmp_path)
    assert guard.drain(World()) == []
    for number in range(5):
        record(guard, number)
    assert guard.drain(World()) == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", [0, 3])
def test_one_more_than_the_limit_ends_the_run_also_when_they_are_far_apart(tmp_path: Path, limit: int) -> None:
    guard = FiniteGuard(limit, NAMES, tmp_path)
    for number in range(limit):
        record(guard, 10 * number, norm=INF)
        record(guard, 10 * number + 1)
        assert len(guard.drain(World())) == 1
    record(guard, 10 * limit, loss=INF, norm=INF)
    with pytest.raises(
        TinError,
        match=rf"{limit + 1} steps? had .* more than train.max_skipped = {limit}; .* epoch {limit + 1}, step 1",
    ) as raised:
        guard.drain(World())
    assert "the loss was not finite on rank 0" in str(raised.value)
    assert f"Look at {tmp_path / 'nonfinite.json'}: if the steps name the same videos" in str(raised.value)
    steps = json.loads((tmp_path / "nonfinite.json").read_text())["steps"]
    assert [step["global_step"] for step in steps] == [10 * number for number in range(limit + 1)]


def test_fp16_looking_for_its_scale_does_not_count_until_it_finds_none(tmp_path: Path) -> None:
    guard = FiniteGuard(1, NAMES, tmp_path)
    for number in range(17):
        record(guard, number, norm=INF, scale=2.0 ** (16 - number))
    assert len(guard.drain(World())) == 17
    assert guard.counted == 0
    record(guard, 17, norm=INF, scale=0.5)
    record(guard, 18, loss=NAN, norm=NAN, scale=65536.0)
    with pytest.raises(TinError, match=r"2 steps had .* epoch 2, step 9"):
        guard.drain(World())


def test_the_scale_is_that_of_the_step_though_the_scaler_changes_it_in_place(tmp_path: Path) -> None:
    guard = FiniteGuard(5, NAMES, tmp_path)
    scale = torch.tensor(1.0)
    zero = torch.zeros(())
    guard.record(epoch=1, step=1, global_step=0, ids=[0], loss=zero, grad_norm=zero / 0, skip=zero + 1, scale=scale)
    scale.mul_(0.5)
    (skipped,) = guard.drain(World())
    assert skipped.scale == 1.0
    assert skipped.backing_off


def test_a_resumed_run_adds_to_the_evidence_and_counts_anew(tmp_path: Path) -> None:
    for number in (3, 4):
        guard = FiniteGuard(1, NAMES, tmp_path)
        record(guard, number, norm=INF)
        guard.drain(World())
    assert [step["global_step"] for step in json.loads((tmp_path / "nonfinite.json").read_text())["steps"]] == [3, 4]


def test_evidence_that_cannot_be_written_does_not_end_a_run_within_its_limit(tmp_path: Path) -> None:
    guard = FiniteGuard(1, NAMES, tmp_path / "gone")
    record(guard, 0, norm=INF)
    assert len(guard.drain(World())) == 1
    record(guard, 1, norm=INF)
    with pytest.raises(TinError, match=r"nonfinite.json \(which could not be written: .*No such file"):
        guard.drain(World())


def test_memory_is_bounded_by_draining_when_full(tmp_path: Path) -> None:
    guard = FiniteGuard(0, NAMES, tmp_path)
    for number in range(1000):
        assert not guard.full
        record(guard, number)
    assert guard.full
    guard.drain(World())
    assert not guard.full


def on_two_ranks(world: World, folder: str) -> list[Any]:
    """Rank 1's loss breaks in one step, then every rank's gradients in another, past the limit."""
    guard = FiniteGuard(1, NAMES, Path(folder), name_of=str)
    record(guard, 0)
    record(guard, 1, loss=NAN if world.rank else 0.5, norm=NAN, ids=[10 * world.rank, 10 * world.rank + 1])
    found: list[Any] = [guard.drain(world)]
    record(guard, 2, norm=INF, ids=[world.rank])
    try:
        guard.drain(world)
    except TinError as error:
        found.append((type(error).__name__, str(error)))
    return found


@pytest.mark.slow
def test_two_ranks_know_whose_batch_it_was_and_end_together(tmp_path: Path) -> None:
    zero, one = run_ranks(on_two_ranks, 2, tmp_path, str(tmp_path))
    assert repr(zero[0]) == repr(one[0])
    (skipped,) = zero[0]
    assert skipped.ids == ((0, 1), (10, 11))
    assert skipped.losses[0] == 0.5
    assert skipped.losses[1] != skipped.losses[1]
    assert (zero[1][0], one[1][0]) == ("TinError", "PeerError")
    assert "every loss was finite, a gradient was not" in zero[1][1]
    evidence = json.loads((tmp_path / "nonfinite.json").read_text())
    assert [[rank["ids"] for rank in step["ranks"]] for step in evidence["steps"]] == [[[0, 1], [10, 11]], [[0], [1]]]
    assert [rank["loss"] for rank in evidence["steps"][0]["ranks"]] == [0.5, "nan"]
