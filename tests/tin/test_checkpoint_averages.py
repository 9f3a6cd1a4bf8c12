"""Files that hold two sets of weights: the optimiser's, and their moving averages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tin
from tests.tin.networks import filled, same
from tin.checkpoints import save_checkpoint
from tin.errors import TinError

State = dict[str, Tensor]


class TestOurs:
    """Files of runs with `train.ema`."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        raw, averages = filled("tin_resnet18", 1).state_dict(), filled("tin_resnet18", 5).state_dict()
        floats = {name: value for name, value in averages.items() if value.is_floating_point()}
        save_checkpoint(tmp_path / "best.pt", {"state_dict": raw, "ema": {"updates": 7, "averages": floats}})
        return tmp_path / "best.pt"

    @pytest.mark.parametrize("weights", ["auto", "ema"])
    def test_the_averages_are_taken_and_the_report_says_so(self, path: Path, weights: Any) -> None:
        model = filled("tin_resnet18", 2)
        report = tin.load_checkpoint(model, path, weights=weights)
        report.require_complete()
        assert report.averaged
        assert f"{len(report.loaded)} averaged (EMA) weights loaded" in str(report)
        counters = {n: v for n, v in filled("tin_resnet18", 1).state_dict().items() if not v.is_floating_point()}
        same(model, filled("tin_resnet18", 5).state_dict() | counters)

    def test_the_weights_of_the_optimiser_are_there_for_the_asking(self, path: Path) -> None:
        model = filled("tin_resnet18", 2)
        report = tin.load_checkpoint(model, path, weights="raw")
        assert not report.averaged
        assert "EMA" not in str(report)
        same(model, filled("tin_resnet18", 1).state_dict())

    def test_asking_for_averages_that_are_not_there_is_an_error(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "x.pt", {"state_dict": filled("tin_resnet18", 1).state_dict()})
        with pytest.raises(TinError, match=r"x\.pt holds no averaged \(EMA\) weights"):
            tin.load_checkpoint(filled("tin_resnet18", 2), tmp_path / "x.pt", weights="ema")
        assert not tin.load_checkpoint(filled("tin_resnet18", 2), tmp_path / "x.pt").averaged


def floats(seed: int) -> State:
    """The parameters alone: what MMCV averages."""
    return {name: value.detach() for name, value in filled("tin_resnet18", seed).named_parameters()}


class TestMMEngine:
    """Its EMAHook exchanges the two sets while it saves."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        averaged = {f"backbone.{name}": value for name, value in filled("tin_resnet18", 5).state_dict().items()}
        raw = {f"module.backbone.{name}": value for name, value in filled("tin_resnet18", 1).state_dict().items()}
        state = {"meta": {"epoch": 2}, "state_dict": averaged, "ema_state_dict": {"steps": torch.tensor(7), **raw}}
        torch.save(state, tmp_path / "epoch_2.pth")
        return tmp_path / "epoch_2.pth"

    @pytest.mark.parametrize(("weights", "seed"), [("auto", 5), ("ema", 5), ("raw", 1)])
    def test_the_averages_have_the_weights_own_names(self, path: Path, weights: Any, seed: int) -> None:
        model = filled("tin_resnet18", 2)
        report = tin.load_checkpoint(model, path, weights=weights)
        report.require_complete()
        assert report.averaged is (weights != "raw")
        same(model, filled("tin_resnet18", seed).state_dict())

    def test_another_ema_state_dict_is_not_taken_for_one(self, tmp_path: Path) -> None:
        state = filled("tin_resnet18", 1).state_dict()
        torch.save({"state_dict": state, "ema_state_dict": {"weight": torch.ones(1)}}, tmp_path / "x.pth")
        assert not tin.load_checkpoint(filled("tin_resnet18", 2), tmp_path / "x.pth").averaged
        with pytest.raises(TinError, match="holds no averaged"):
            tin.load_checkpoint(filled("tin_resnet18", 2), tmp_path / "x.pth", weights="ema")


class TestMMCV:
    """Its EMAHook keeps the other set in buffers of the network and exchanges the two at the end of an epoch."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        state = {f"backbone.{name}": value for name, value in filled("tin_resnet18", 5).state_dict().items()}
        state |= {f"ema_backbone_{name.replace('.', '_')}": value for name, value in floats(1).items()}
        torch.save({"meta": {"epoch": 2}, "state_dict": state}, tmp_path / "epoch_2.pth")
        return tmp_path / "epoch_2.pth"

    @pytest.mark.parametrize(("weights", "seed"), [("auto", 5), ("ema", 5), ("raw", 1)])
    def test_the_buffers_are_no_weights_left_over(self, path: Path, weights: Any, seed: int) -> None:
        model = filled("tin_resnet18", 2)
        report = tin.load_checkpoint(model, path, weights=weights)
        report.require_complete()
        assert report.averaged is (weights != "raw")
        same(model, filled("tin_resnet18", 5).state_dict() | floats(seed))
