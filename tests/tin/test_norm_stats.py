"""BatchNorm statistics: one set for all ranks, none from a step that was left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.tin.processes import run_ranks
from tin.distributed import World
from tin.recipes import OptimSettings
from tin.train import build_optimizer, freeze_partial_bn
from tin.train.norm_stats import NormStatistics
from tin.train.optim import clip_gradients, guarded_step

State = dict[str, Tensor]


def net() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6))
    model.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    model.add_module("fc", nn.Linear(6, 3))
    return model


def state(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def batch(step: int, rank: int) -> Tensor:
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(100 * step + rank))


def same(one: State, other: State) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def train(world: World, partial_bn: bool, poisoned: tuple[int, int] | None) -> list[State]:
    """Five steps; the state before and after each. In `poisoned` = (step, rank) that rank's batch holds one NaN."""
    model = net()
    if partial_bn:
        freeze_partial_bn(model)
    statistics = NormStatistics(model, world)
    optimizer = build_optimizer(model, OptimSettings(lr=0.01, partial_bn=partial_bn), 0.01)
    parallel = DistributedDataParallel(model, broadcast_buffers=False) if world.size > 1 else model
    states = [state(model)]
    for step in range(5):
        frames = batch(step, world.rank)
        if poisoned == (step, world.rank):
            frames[0, 0, 0, 0] = float("nan")
        optimizer.zero_grad()
        nn.functional.cross_entropy(parallel(frames), torch.arange(4) % 3).backward()
        norms = clip_gradients(model.parameters(), None)
        guarded_step(optimizer, norms.skip)
        statistics.settle(norms.skip)
        states.append(state(model))
    return states


def means(world: World) -> list[State]:
    """One step: the statistics that this rank had of its own batch, and those after `settle`."""
    model = net()
    statistics = NormStatistics(model, world)
    model(batch(0, world.rank))
    own = state(model)
    statistics.settle()
    return [own, state(model)]


def sync(world: World) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A SyncBatchNorm beside a BatchNorm, with statistics of this rank; both, before and after."""
    model = nn.ModuleList([nn.SyncBatchNorm(3), nn.BatchNorm2d(3)])
    statistics = NormStatistics(model, world)
    for norm in model:
        torch.nn.init.constant_(norm.running_mean, 0.1 + world.rank)  # type: ignore[arg-type]
    before = [norm.running_mean.clone() for norm in model]  # type: ignore[operator, union-attr]
    statistics.settle(torch.zeros(()))
    return (*before, *(norm.running_mean.clone() for norm in model))  # type: ignore[return-value, operator, union-attr]


def everything(world: World) -> dict[str, Any]:
    poisoned = (2, world.size - 1)
    return {
        "means": means(world),
        "all": train(world, False, poisoned),
        "partial": train(world, True, poisoned),
        "sync": sync(world),
    }


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(everything, request.param, tmp_path_factory.mktemp("ranks"))


@pytest.mark.slow
def test_ranks_hold_the_mean_of_their_statistics(ranks: list[dict[str, Any]]) -> None:
    found = [rank["means"] for rank in ranks]
    for name, value in found[0][1].items():
        if "running" in name:
            mean = torch.stack([own[name] for own, _ in found]).mean(0)
            torch.testing.assert_close(value, mean, rtol=0, atol=1e-6)
            assert not torch.equal(found[0][0][name], found[1][0][name])
        assert all(torch.equal(value, settled[name]) for _, settled in found)


@pytest.mark.slow
@pytest.mark.parametrize("norms", ["all", "partial"])
def test_a_batch_with_a_nan_on_one_rank_changes_nothing_on_any(ranks: list[dict[str, Any]], norms: str) -> None:
    for rank in ranks:
        states = rank[norms]
        assert same(states[2], states[3])
        assert not same(states[3], states[4])
        assert all(value.isfinite().all() for value in states[-1].values())
        assert all(same(*pair) for pair in zip(states, ranks[0][norms], strict=True))
        assert not torch.equal(states[0]["1.running_mean"], states[-1]["1.running_mean"])
        frozen = all(torch.equal(states[0][name], states[-1][name]) for name in states[0] if name.startswith("4."))
        assert frozen == (norms == "partial")


@pytest.mark.slow
def test_statistics_that_are_synchronised_already_are_left_alone(ranks: list[dict[str, Any]]) -> None:
    for synced, _, synced_after, after in (rank["sync"] for rank in ranks):
        assert torch.equal(synced, synced_after)
        torch.testing.assert_close(after, torch.full((3,), 0.1 + (len(ranks) - 1) / 2))


@pytest.mark.parametrize("step", [0, 3])
def test_one_process_too_goes_on_as_if_the_broken_batch_had_not_been(step: int) -> None:
    states = train(World(), False, (step, 0))
    assert same(states[step], states[step + 1])
    if step:
        assert all(
            same(*pair) for pair in zip(states[: step + 1], train(World(), False, None)[: step + 1], strict=True)
        )
    assert all(value.isfinite().all() for value in states[-1].values())


def test_a_loaded_state_is_what_a_broken_first_step_returns_to() -> None:
    model = net()
    statistics = NormStatistics(model, World())
    other = net()
    for step in range(3):
        other(batch(step, 0))
    model.load_state_dict(other.state_dict())
    model(batch(9, 0) * float("nan"))
    statistics.settle(torch.ones(()))
    assert same(state(model), state(other))


def test_norms_in_evaluation_mode_are_not_touched() -> None:
    model = net()
    statistics = NormStatistics(model, World())
    model.eval()
    with torch.no_grad():
        model[1].running_mean.fill_(7.0)  # type: ignore[index, operator, union-attr]
    statistics.settle(torch.ones(()))
    assert model[1].running_mean.unique().item() == 7.0  # type: ignore[index, operator, union-attr]
