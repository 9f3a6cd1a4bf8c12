"""The moving average against its closed form, and the weights back as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tin.checkpoints import load_state, save_checkpoint
from tin.errors import TinError
from tin.train import freeze_partial_bn
from tin.train.ema import Ema


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))


def change(model: nn.Module, step: int) -> None:
    """What a training step does to weights and statistics: a forward pass, and new weights."""
    random = torch.Generator().manual_seed(step)
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        model(torch.randn(2, 3, 8, 8, generator=random, dtype=dtype))
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random, dtype=dtype))


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.9999])
def test_the_average_is_its_closed_form(decay: float) -> None:
    """Σ over steps of (1 − d_i) · Π of the later d, plus Π of all of them for the weights of the start."""
    model = net().double()
    ema = Ema(model, decay)
    seen, decays = [values(model)], [0.0]
    for step in range(30):
        change(model, step)
        ema.update()
        seen.append(values(model))
        decays.append(min(decay, (1 + step) / (10 + step)))
    shares, later = [0.0] * len(seen), 1.0
    for i in reversed(range(len(seen))):
        shares[i] = (1 - decays[i]) * later
        later *= decays[i]
    assert sum(shares) == pytest.approx(1.0, abs=1e-12)
    with ema.applied():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                expected = torch.stack([share * at[name] for share, at in zip(shares, seen, strict=True)]).sum(0)
                torch.testing.assert_close(value, expected, rtol=0, atol=1e-12, msg=name)
            else:
                assert torch.equal(value, seen[-1][name])


def test_statistics_are_averaged_and_frozen_ones_stay_bit_for_bit() -> None:
    model = net()
    for step in range(3):
        change(model, step)
    freeze_partial_bn(model)
    frozen = values(model[3])  # type: ignore[index]
    ema = Ema(model, 0.9)
    for step in range(20):
        change(model, step)
        with torch.no_grad():
            model[3].load_state_dict(frozen)  # type: ignore[index]  # `change` moves every weight
        ema.update()
    last = values(model)
    with ema.applied():
        averaged = values(model)
    assert not torch.equal(averaged["1.running_mean"], last["1.running_mean"])
    assert not torch.equal(averaged["1.running_var"], last["1.running_var"])
    assert all(torch.equal(averaged[f"3.{name}"], value) for name, value in frozen.items())


def test_the_weights_come_back_bit_for_bit_also_after_an_exception() -> None:
    model = net().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = Ema(model, 0.9)
    change(model, 0)
    ema.update()
    before = values(model)
    identity = [(id(p), p.data_ptr(), p.stride()) for p in model.parameters()]
    with ema.applied():
        assert not torch.equal(model.state_dict()["0.weight"], before["0.weight"])
    with pytest.raises(RuntimeError, match="batched"), ema.applied():
        model(torch.zeros(2, 3))  # a forward pass that fails, in validation
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [(id(p), p.data_ptr(), p.stride()) for p in model.parameters()] == identity


def test_a_saved_average_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model, twin = net(), net(1)
    ema = Ema(model, 0.99)
    for step in range(5):
        change(model, step)
        ema.update()
    save_checkpoint(tmp_path / "state.pt", {"model": model.state_dict(), "ema": ema.state_dict()})
    state = load_state(tmp_path / "state.pt")
    resumed = Ema(twin, 0.99)
    twin.load_state_dict(state["model"])
    resumed.load_state_dict(state["ema"])
    for net_, average in ((model, ema), (twin, resumed)):
        for step in range(5, 9):
            change(net_, step)
            average.update()
    with ema.applied(), resumed.applied():
        assert all(torch.equal(value, twin.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_average_of_another_model_is_refused() -> None:
    ema = Ema(net(), 0.9)
    state = ema.state_dict()
    with pytest.raises(
        TinError, match=r"another model: '0.weight' is \(4, 3, 3, 3\) in the checkpoint and \(8, 3, 3, 3\)"
    ):
        Ema(nn.Sequential(nn.Conv2d(3, 8, 3), *list(net())[1:]), 0.9).load_state_dict(state)  # type: ignore[call-overload]
    state["averages"].pop("2.bias")
    with pytest.raises(TinError, match=r"another model: the checkpoint has no '2\.bias'"):
        ema.load_state_dict(state)
    state["averages"].update({"2.bias": torch.zeros(4), "more": torch.zeros(1)})
    with pytest.raises(TinError, match="another model: this model has no 'more'"):
        ema.load_state_dict(state)
