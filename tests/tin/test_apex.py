"""NVIDIA apex: asked for without it, beside its namesake, and through its surface.

The real package compiles CUDA kernels and is on no package index, so no test can install it. What is called, and with which
types, is held against `tests/tin/fake_apex`, which has the surface of apex of 2026-07 (its own page says which parts) and
refuses what the kernels would refuse, or what would make them wait for the device.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tin.errors import TinError
from tin.recipes import OptimSettings
from tin.train import build_optimizer, nvidia_apex
from tin.train.optim import clip_gradients, guarded_step

FAKE = Path(__file__).with_name("fake_apex")


@pytest.fixture(autouse=True)
def _fresh_imports() -> Iterator[None]:
    """Whatever `apex` a test put on the path, the next one finds its own."""

    def forget() -> None:
        for name in [name for name in sys.modules if name == "amp_C" or name.split(".")[0] == "apex"]:
            del sys.modules[name]

    forget()
    yield
    forget()


@pytest.fixture
def fake_apex(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FAKE))
    monkeypatch.setattr(nvidia_apex, "DEVICE_TYPE", "cpu")


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, 4, 3, bias=False))
    model.add_module("bn", nn.BatchNorm2d(4))
    model.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    model.add_module("fc", nn.Linear(4, 3))
    return model


def backward(model: nn.Module, seed: int, poisoned: bool = False) -> None:
    frames = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    nn.functional.cross_entropy(model(frames), torch.arange(8) % 3).backward()
    if poisoned:
        next(model.parameters()).grad[0, 0, 0, 0] = float("nan")  # type: ignore[index]


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    of_optimizer = [value for entry in optimizer.state.values() for value in entry.values()]
    steps = [group["step"].clone() for group in optimizer.param_groups if "step" in group]
    return [value.detach().clone() for value in (*model.parameters(), *of_optimizer, *steps)]


@pytest.mark.skipif(importlib.util.find_spec("apex") is not None, reason="an apex is installed")
@pytest.mark.parametrize("kind", ["apex-sgd", "lamb"])
def test_without_apex_the_error_says_how_to_get_it_and_what_is_as_good(kind: str) -> None:
    with pytest.raises(TinError, match=f"--optimizer {kind} is NVIDIA apex's, which is not installed") as raised:
        build_optimizer(net(), OptimSettings(kind=kind, lr=0.1), 0.1)
    message = str(raised.value)
    assert (
        "git clone https://github.com/NVIDIA/apex && cd apex && APEX_CPP_EXT=1 APEX_CUDA_EXT=1 pip install" in message
    )
    assert "--no-build-isolation ." in message
    assert "use --optimizer sgd" in message


def test_the_other_project_of_that_name_is_recognised_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apex" / "lib").mkdir(parents=True)
    (tmp_path / "apex" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TinError, match=r"the 'apex' at .*/apex is another project: pip uninstall apex first"):
        build_optimizer(net(), OptimSettings(kind="lamb", lr=0.1), 0.1)


def test_an_apex_without_its_kernels_says_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apex" / "optimizers").mkdir(parents=True)
    for name in ("apex/__init__.py", "apex/optimizers/__init__.py"):
        (tmp_path / name).touch()
    (tmp_path / "amp_C.py").write_text("raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        TinError, match=r"lacks its CUDA kernels or does not fit this torch \(undefined symbol: _ZN3c10"
    ):
        build_optimizer(net(), OptimSettings(kind="apex-sgd", lr=0.1), 0.1)


def test_apex_on_a_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FAKE))
    with pytest.raises(TinError, match="--optimizer lamb: apex runs on NVIDIA GPUs, this run is on cpu"):
        build_optimizer(net(), OptimSettings(kind="lamb", lr=0.1), 0.1)


@pytest.mark.usefixtures("fake_apex")
@pytest.mark.parametrize("nesterov", [False, True])
def test_fused_sgd_takes_the_steps_of_sgd(nesterov: bool) -> None:
    models = {kind: net() for kind in ("sgd", "apex-sgd")}
    for kind, model in models.items():
        settings = OptimSettings(kind=kind, lr=0.1, weight_decay=1e-2, nesterov=nesterov)
        optimizer = build_optimizer(model, settings, 0.1)
        for step in range(6):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * group["lr_mult"] / (1 + step)
            optimizer.zero_grad(set_to_none=True)
            backward(model, step)
            norms = clip_gradients(model.parameters(), 0.5, fused_by_apex=kind != "sgd")
            guarded_step(optimizer, norms.skip)
    for mine, theirs in zip(*(model.parameters() for model in models.values()), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("fake_apex")
@pytest.mark.parametrize("kind", ["apex-sgd", "lamb"])
@pytest.mark.parametrize("at", [0, 2])
def test_a_step_that_is_left_out_leaves_nothing_behind(kind: str, at: int) -> None:
    ends = []
    for poisoned in (at, None):
        model = net()
        optimizer = build_optimizer(model, OptimSettings(kind=kind, lr=0.01), 0.01)
        for step in range(5):
            if poisoned is None and step == at:
                continue
            before = state(model, optimizer)
            optimizer.zero_grad(set_to_none=True)
            backward(model, step, poisoned=step == poisoned)
            norms = clip_gradients(model.parameters(), 20.0, fused_by_apex=True)
            guarded_step(optimizer, norms.skip)
            if step == poisoned and step:
                assert all(torch.equal(a, b) for a, b in zip(before, state(model, optimizer), strict=True))
        ends.append(state(model, optimizer))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.usefixtures("fake_apex")
def test_lamb_has_the_groups_of_sgd_and_rates_that_are_numbers() -> None:
    model, other = net(), net()
    settings = OptimSettings(kind="lamb", lr=0.01, weight_decay=1e-2)
    lamb = build_optimizer(model, settings, 0.01)
    sgd = build_optimizer(other, settings.model_copy(update={"kind": "sgd"}), 0.01)
    for mine, theirs in zip(lamb.param_groups, sgd.param_groups, strict=True):
        for key in ("name", "param_names", "lr", "lr_mult", "weight_decay"):
            assert mine[key] == theirs[key]
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    backward(model, 0)
    guarded_step(lamb, torch.zeros(()))
    moved = {name: (value.detach() - before[name]) for name, value in model.named_parameters()}
    assert moved["bn.weight"].abs().max().item() == pytest.approx(0.01, rel=1e-3)  # Adam's first step: ± the rate
    assert moved["fc.bias"].abs().max().item() == pytest.approx(0.1, rel=1e-3)  # ten times the rate
    relative = moved["conv.weight"].norm() / before["conv.weight"].norm()
    assert relative.item() == pytest.approx(0.01, rel=1e-3)  # LAMB's: the rate is the part of the norm that moves
    assert all(type(group["lr"]) is float for group in lamb.param_groups)


@pytest.mark.usefixtures("fake_apex")
@pytest.mark.parametrize("kind", ["apex-sgd", "lamb"])
def test_state_goes_on_from_a_file_saved_in_another_memory_format(kind: str) -> None:
    settings = OptimSettings(kind=kind, lr=0.01)
    model = net()
    optimizer = build_optimizer(model, settings, 0.01)
    for step in range(2):
        optimizer.zero_grad(set_to_none=True)
        backward(model, step)
        guarded_step(optimizer, torch.zeros(()))
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    resumed = build_optimizer(twin, settings, 0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for net_, optimizer_ in ((model, optimizer), (twin, resumed)):
        optimizer_.zero_grad(set_to_none=True)
        backward(net_, 2)
        guarded_step(optimizer_, torch.zeros(()))
        for parameter, entry in optimizer_.state.items():
            assert all(value.stride() == parameter.stride() for value in entry.values())
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("fake_apex")
def test_norms_of_apex_are_those_of_pytorch() -> None:
    model = net()
    backward(model, 0)
    ours, theirs = (clip_gradients(model.parameters(), None, fused_by_apex=apex) for apex in (False, True))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
        assert a.shape == b.shape
