"""Parameter groups equal the peers' by name, a step equals plain SGD with the same groups, or leaves no trace."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tin
from tin import recipes
from tin.errors import TinError
from tin.recipes import OptimSettings
from tin.train import build_optimizer, freeze_partial_bn, parameter_groups
from tin.train.amp import autocast
from tin.train.optim import clip_gradients, guarded_step


@pytest.mark.parametrize(("name", "classes", "decay"), [("mmaction_sthv1", 174, 5e-4), ("mmaction_k400", 400, 1e-4)])
def test_groups_equal_mmaction2_name_by_name(golden: Path, name: str, classes: int, decay: float) -> None:
    expected = {
        (group["lr_mult"], group["wd"], frozenset(group["params"]))
        for group in json.loads((golden / "param_groups.json").read_text())[name]
        if group["params"]
    }
    groups = parameter_groups(tin.build_model("tin_resnet50", classes), lr=1.0, weight_decay=decay)
    assert {(g["lr_mult"], g["weight_decay"], frozenset(g["param_names"])) for g in groups} == expected
    assert sum(len(g["params"]) for g in groups) == 289


SMALL = {
    "plain": {},
    "nesterov": {"nesterov": True},
    "partial_bn": {"partial_bn": True},
    "no_momentum": {"momentum": 0.0, "fc_lr5": False},
}


@pytest.mark.parametrize("name", SMALL)
def test_ten_steps_equal_plain_sgd(name: str) -> None:
    assert_ten_steps_equal_plain_sgd(layers, OptimSettings(lr=0.01, weight_decay=1e-3, **SMALL[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tin_r50_1x1x8_40e_sthv1_rgb", "tin_tsm_finetune_r50_1x1x8_50e_kinetics400_rgb"])
def test_ten_steps_of_a_published_recipe_equal_plain_sgd(name: str) -> None:
    def build() -> nn.Module:
        return tin.build_model("tin_resnet18", 3, num_segments=2, dropout=0.0)

    assert_ten_steps_equal_plain_sgd(build, recipes.load(name).optim)


def assert_ten_steps_equal_plain_sgd(build: Callable[[], nn.Module], settings: OptimSettings) -> None:
    """In float64, with rates that change: the formula written out, over the same groups."""
    torch.manual_seed(0)
    ours, formula = build().double(), build().double()
    formula.load_state_dict(ours.state_dict())
    for model in (ours, formula):
        model.train()
        if settings.partial_bn:
            freeze_partial_bn(model)
    optimizer = build_optimizer(ours, settings, lr=0.01)
    groups = parameter_groups(formula, 0.01, settings.weight_decay, settings.partial_bn, settings.fc_lr5)
    velocity = {p: torch.zeros_like(p) for g in groups for p in g["params"]}
    frames, labels = torch.randn(12, 3, 32, 32, dtype=torch.float64), torch.arange(6) % 3
    for step in range(10):
        for model in (ours, formula):
            model.zero_grad()
            logits = model(frames)
            nn.functional.cross_entropy(logits, labels if len(logits) == 6 else labels.repeat(2)).backward()
        for group in (*optimizer.param_groups, *groups):
            group["lr"] = 0.01 * group["lr_mult"] * (1 - step / 20)
        guarded_step(optimizer, torch.zeros(()))
        with torch.no_grad():
            for group in groups:
                for p in group["params"]:
                    assert p.grad is not None
                    gradient = p.grad + group["weight_decay"] * p
                    velocity[p] = settings.momentum * velocity[p] + gradient
                    ahead = gradient + settings.momentum * velocity[p] if settings.nesterov else velocity[p]
                    p -= group["lr"] * ahead
    for mine, plain in zip(ours.parameters(), formula.parameters(), strict=True):
        torch.testing.assert_close(mine, plain, rtol=0, atol=1e-12)


def layers() -> nn.Module:
    """One of every kind that has a group."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    )
    model.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 8), nn.Tanh()))
    model.add_module("fc", nn.Linear(8, 3))
    return model


def test_partial_bn_trains_only_the_first() -> None:
    model = tin.build_model("tsn_resnet18", 4)
    model.train()
    freeze_partial_bn(model)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.training for norm in norms] == [True] + [False] * (len(norms) - 1)
    names = [n for g in parameter_groups(model, 0.1, 0.0, partial_bn=True) for n in g["param_names"]]
    assert [n for n in names if ".bn" in n or n.startswith("bn")] == ["bn1.weight", "bn1.bias"]


def test_unknown_layers_are_refused() -> None:
    with pytest.raises(TinError, match="no parameter group for LayerNorm 'norm'"):
        parameter_groups(nn.ModuleDict({"norm": nn.LayerNorm(3)}), 0.1, 0.0)


def test_without_fc_lr5_the_classifier_is_a_layer_like_any_other() -> None:
    groups = {g["name"]: g for g in parameter_groups(tin.build_model("tsn_resnet18", 4), 0.1, 1e-4, fc_lr5=False)}
    assert "fc.weight" in groups["weight"]["param_names"]
    assert groups["bias"]["param_names"] == ["fc.bias"]
    assert not {"classifier_weight", "classifier_bias"} & set(groups)


# ---- steps that are left out -------------------------------------------------------------------------------------------------


def net() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, 8, 3, bias=False))
    model.add_module("rest", nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    model.add_module("fc", nn.Linear(8, 3))
    return model


def batch(step: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(step)
    return torch.randn(6, 3, 6, 6, generator=random), torch.randint(3, (6,), generator=random)


class Run:
    """The documented order of a step, in one precision."""

    def __init__(self, amp: str, lr: float = 0.1, **settings: Any) -> None:
        self.amp, self.model = amp, net()
        self.optimizer = build_optimizer(self.model, OptimSettings(lr=lr, **settings), lr)
        self.scaler = torch.amp.GradScaler("cpu", enabled=amp == "fp16")

    def step(self, number: int, factor: float = 1.0) -> Tensor:
        frames, labels = batch(number)
        with autocast(self.amp, torch.device("cpu")):
            loss = nn.functional.cross_entropy(self.model(frames).float(), labels) * factor
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norms = clip_gradients(self.model.parameters(), 20.0)
        guarded_step(self.optimizer, norms.skip)
        self.scaler.update()
        return norms.skip

    def state(self) -> list[Tensor]:
        of_optimizer = [value for entry in self.optimizer.state.values() for value in entry.values()]
        return [value.detach().clone() for value in (*self.model.parameters(), *of_optimizer)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_a_step_that_is_not_finite_changes_nothing_and_the_run_goes_on(amp: str, at: int, momentum: float) -> None:
    broken, whole = Run(amp, momentum=momentum), Run(amp, momentum=momentum)
    for number in range(6):
        before = broken.state()
        skip = broken.step(number, factor=float("nan") if number == at else 1.0)
        assert (skip.dtype, skip.shape, skip.item()) == (torch.float32, (), float(number == at))
        assert same(before, broken.state()) == (number == at)
        if number != at:
            whole.step(number)
    assert same(broken.state(), whole.state())
    assert broken.scaler.get_scale() == (32768.0 if amp == "fp16" else 1.0)


def test_fp16_finds_its_scale_from_one_that_is_far_too_large() -> None:
    run, plain = Run("fp16", lr=0.01), Run("off", lr=0.01)
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    left_out = [bool(run.step(number)) for number in range(40)]
    assert left_out[0]
    assert 5 < sum(left_out) < 39
    assert run.scaler.get_scale() == 2.0 ** (40 - sum(left_out))
    for number in range(40):
        if not left_out[number]:
            plain.step(number)
    for mine, theirs in zip(run.state(), plain.state(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-3)


@pytest.mark.parametrize("max_norm", [0.01, 1e9, None])
def test_clipping_is_pytorchs_bit_for_bit_and_measures_without_a_limit(max_norm: float | None) -> None:
    ours, theirs = net(), net()
    for model in (ours, theirs):
        nn.functional.cross_entropy(model(batch(0)[0]), batch(0)[1]).backward()
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), float("inf") if max_norm is None else max_norm)
    norms = clip_gradients(ours.parameters(), max_norm)
    assert torch.equal(norms.total, expected)
    assert norms.skip.item() == 0.0
    assert norms.per_parameter.square().sum().sqrt().item() == pytest.approx(expected.item(), rel=1e-6)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        assert torch.equal(mine.grad, other.grad)


def test_norms_name_the_parameter_that_broke_also_where_others_have_no_gradient() -> None:
    model = net()
    parameters = list(model.parameters())
    parameters[0].requires_grad_(False)
    nn.functional.cross_entropy(model(batch(0)[0]), batch(0)[1]).backward()
    assert parameters[2].grad is not None
    parameters[2].grad[1] = float("inf")
    norms = clip_gradients(parameters, 20.0)
    assert norms.per_parameter[0] == 0.0
    assert norms.per_parameter.isfinite().tolist() == [True, True, False]
    assert norms.skip.item() == 1.0


def test_momentum_saved_in_another_memory_format_is_laid_out_anew() -> None:
    """PyTorch's fused kernel on a CPU walks both by address: it would take one element's momentum for another's."""
    model = net()
    optimizer = build_optimizer(model, OptimSettings(lr=0.1), 0.1)
    twin = net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    resumed = build_optimizer(twin, OptimSettings(lr=0.1), 0.1)
    for number in range(4):
        if number == 2:
            twin.load_state_dict(model.state_dict())
            resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for net_, optimizer_ in ((model, optimizer), (twin, resumed)):
            optimizer_.zero_grad()
            nn.functional.cross_entropy(net_(batch(number)[0]), batch(number)[1]).backward()
            guarded_step(optimizer_, torch.zeros(()))
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
