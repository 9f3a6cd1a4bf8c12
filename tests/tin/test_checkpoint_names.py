"""Every naming of the field loads: all weights, in their places, with the same logits; what is new and left over is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

import tin
from tests.tin import namings
from tests.tin.namings import AUTHORS_TIN, MMACTION2_TIN, MMACTION2_TSM, TSM_REPOSITORY
from tests.tin.networks import filled, same, trained_looking
from tests.tin.test_models import golden_weights
from tin.checkpoints import save_checkpoint
from tin.errors import TinError
from tin.models import TemporalResNet

State = dict[str, Tensor]
PLAIN = "plain"
TIN_SYSTEMS = (PLAIN, MMACTION2_TIN, AUTHORS_TIN)
TSM_SYSTEMS = (PLAIN, MMACTION2_TSM, TSM_REPOSITORY)
R18, R50 = namings.names(18), namings.names(50)


def renamed(state: State, system: str, table: dict[str, dict[str, str]]) -> State:
    """A state in the names of another system; KeyError for a weight that it has not."""
    return {name if system == PLAIN else table[name][system]: value for name, value in state.items()}


def envelope(system: str, state: State) -> dict[str, Any]:
    """As the system's own programs save it."""
    if system.startswith("MMAction2"):
        return {"meta": {"epoch": 40, "CLASSES": None}, "state_dict": state, "optimizer": {"state": {}}}
    if system == PLAIN:
        return state  # type: ignore[return-value]
    return {"epoch": 40, "arch": "resnet50", "state_dict": state, "best_prec1": torch.tensor(44.0)}


@pytest.fixture(scope="module")
def tin50() -> TemporalResNet:
    return trained_looking("tin_resnet50", 10, 8)


@pytest.fixture(scope="module")
def tsm50() -> TemporalResNet:
    return trained_looking("tsm_resnet50", 10, 8)


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class TestFiveSystems:
    def test_the_table_has_every_weight(self, tin50: TemporalResNet, tsm50: TemporalResNet) -> None:
        assert set(R50) == set(tin50.state_dict())
        assert len(R50) == 448
        assert sum(MMACTION2_TSM in row for row in R50.values()) == len(tsm50.state_dict()) == 320

    @pytest.mark.parametrize("without_module", [False, True])
    @pytest.mark.parametrize("system", TIN_SYSTEMS)
    def test_tin_weights_and_logits_are_the_same_in_all(
        self, tmp_path: Path, tin50: TemporalResNet, frames: Tensor, system: str, without_module: bool
    ) -> None:
        state = renamed(tin50.state_dict(), system, R50)
        if without_module:
            state = {name.removeprefix("module."): value for name, value in state.items()}
        torch.save(envelope(system, state), tmp_path / "x.pth")
        model = filled("tin_resnet50", 2)
        report = tin.load_checkpoint(model, tmp_path / "x.pth")
        report.require_complete()
        assert report.counts == {"loaded": 448, "new": 0, "dropped": 0, "reshaped": 0, "mismatched": 0}
        assert report.scheme == system
        same(model, tin50.state_dict())
        with torch.no_grad():
            assert torch.equal(model.eval()(frames), tin50(frames))

    @pytest.mark.parametrize("system", TSM_SYSTEMS)
    def test_tsm_weights_and_logits_are_the_same_in_all(
        self, tmp_path: Path, tsm50: TemporalResNet, frames: Tensor, system: str
    ) -> None:
        torch.save(envelope(system, renamed(tsm50.state_dict(), system, R50)), tmp_path / "x.pth")
        model = tin.build_model("tsm_resnet50", 10)
        report = tin.load_checkpoint(model, tmp_path / "x.pth")
        report.require_complete()
        assert len(report.loaded) == 320
        assert report.scheme == system
        same(model, tsm50.state_dict())
        with torch.no_grad():
            assert torch.equal(model.eval()(frames), tsm50(frames))

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
    @pytest.mark.parametrize("system", [PLAIN, MMACTION2_TIN])
    def test_wrappers_say_nothing(self, tmp_path: Path, system: str, prefix: str) -> None:
        saved, model = filled("tin_resnet18", 1), filled("tin_resnet18", 2)
        state = {prefix + name: value for name, value in renamed(saved.state_dict(), system, R18).items()}
        torch.save(state, tmp_path / "x.pth")
        report = tin.load_checkpoint(model, tmp_path / "x.pth")
        report.require_complete()
        assert report.scheme == system
        same(model, saved.state_dict())

    def test_the_authors_classifier_without_dropout(self, tmp_path: Path) -> None:
        saved, model = filled("tin_resnet50", 1), filled("tin_resnet50", 2)
        state = renamed(saved.state_dict(), AUTHORS_TIN, R50)
        state = {name.replace("module.new_fc.", "module.base_model.fc."): value for name, value in state.items()}
        torch.save(envelope(AUTHORS_TIN, state), tmp_path / "x.pth")
        tin.load_checkpoint(model, tmp_path / "x.pth").require_complete()
        same(model, saved.state_dict())


class TestGolden:
    """Numbers of the public implementations."""

    @pytest.mark.parametrize("system", [*TIN_SYSTEMS, MMACTION2_TSM, TSM_REPOSITORY])
    def test_logits_come_out_through_every_naming(self, tmp_path: Path, golden: Path, system: str) -> None:
        expected = torch.load(golden / "tin_resnet18.pt", weights_only=True)
        made = golden_weights(golden)
        state = made.state(made.plain_shapes(18, 10, 4))
        model = filled("tin_resnet18", 2, segments=4)
        if system in (MMACTION2_TSM, TSM_REPOSITORY):  # a TSM has no `tin`: the model's own must stay
            own = {name: value for name, value in state.items() if ".tin." in name}
            model.load_state_dict(own, strict=False)
            state = {name: value for name, value in state.items() if name not in own}
        torch.save(envelope(system, renamed(state, system, R18)), tmp_path / "x.pth")
        report = tin.load_checkpoint(model, tmp_path / "x.pth")
        assert len(report.loaded) == len(state)
        with torch.no_grad():
            logits = model.double().eval()(expected["input_fp16"].double().flatten(0, 1))
        assert (logits - expected["eval_logits_fp64"]).abs().max() < 1e-9


class TestStarts:
    """From another network's weights."""

    @pytest.mark.parametrize("arch", ["tin_resnet18", "tsm_resnet18", "tsn_resnet18"])
    @pytest.mark.parametrize("key", [None, "model", "state_dict"])
    def test_our_own_files_are_complete(self, tmp_path: Path, arch: str, key: str | None) -> None:
        saved, model = filled(arch, 1), filled(arch, 2)
        state: Any = saved.state_dict()
        save_checkpoint(tmp_path / "x.pt", {key: state, "epoch": 1} if key else state)
        report = tin.load_checkpoint(model, tmp_path / "x.pt")
        assert report.complete
        assert sorted(report.loaded) == sorted(saved.state_dict())
        report.require_complete()
        same(model, saved.state_dict())

    @pytest.mark.parametrize("system", [MMACTION2_TSM, TSM_REPOSITORY])
    @pytest.mark.parametrize("classes", [10, 400])
    def test_tsm_into_tin_fills_every_convolution_and_says_what_is_new(
        self, tmp_path: Path, system: str, classes: int
    ) -> None:
        saved, model = filled("tsm_resnet50", 1, classes), filled("tin_resnet50", 2)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        torch.save(envelope(system, renamed(saved.state_dict(), system, R50)), tmp_path / "x.pth")
        report = tin.load_checkpoint(model, tmp_path / "x.pth")
        fresh = {name for name in before if ".tin." in name}
        if classes == 10:
            assert report.counts == {"loaded": 320, "new": 128, "dropped": 0, "reshaped": 0, "mismatched": 0}
        else:
            fresh |= {"fc.weight", "fc.bias"}
            assert report.counts == {"loaded": 318, "new": 130, "dropped": 2, "reshaped": 0, "mismatched": 0}
        assert set(report.new) == fresh
        expected = {name: before[name] if name in fresh else saved.state_dict()[name] for name in before}
        assert sum(name.endswith("conv1.weight") for name in report.loaded) == 17
        same(model, expected)
        assert not report.complete
        with pytest.raises(TinError, match=r"is not this model: \d+ not in the file"):
            report.require_complete()
        counts = report.counts
        text = (
            f"({system} names): {counts['loaded']} weights loaded, {counts['new']} new, {counts['dropped']} dropped\n"
        )
        assert text in str(report)
        assert "\n  new: layer1.0.tin.offset.conv.weight, " in str(report)

    def test_imagenet_weights_of_torchvision_load_but_for_the_classifier(self, tmp_path: Path) -> None:
        plain = torchvision.models.resnet18()
        torch.save(plain.state_dict(), tmp_path / "resnet18.pth")
        for arch in ("tin_resnet18", "tsm_resnet18", "tsn_resnet18"):
            model = filled(arch, 2)
            report = tin.load_checkpoint(model, tmp_path / "resnet18.pth")
            assert report.dropped == ["fc.weight", "fc.bias"]
            assert {name for name in report.new if ".tin." not in name} == {"fc.weight", "fc.bias"}
            assert len(report.loaded) == len(plain.state_dict()) - 2

    @pytest.mark.parametrize("system", [MMACTION2_TSM, TSM_REPOSITORY])
    def test_a_tsm_does_not_lose_its_shift_in_silence(self, tmp_path: Path, system: str) -> None:
        torch.save(renamed(filled("tsm_resnet18", 1).state_dict(), system, R18), tmp_path / "x.pth")
        with pytest.raises(TinError, match=r"TSM's shift, which the model tsn_resnet18 has not: build tsm_resnet18"):
            tin.load_checkpoint(filled("tsn_resnet18", 2), tmp_path / "x.pth")
        model = filled("tsn_resnet18", 2)
        assert tin.load_checkpoint(model, tmp_path / "x.pth", strict=False).complete

    def test_files_from_before_batch_counters_are_complete(self, tmp_path: Path) -> None:
        saved, model = filled("tsn_resnet18", 1), filled("tsn_resnet18", 2)
        torch.save({n: v for n, v in saved.state_dict().items() if "num_batches" not in n}, tmp_path / "x.pth")
        assert tin.load_checkpoint(model, tmp_path / "x.pth").complete

    def test_half_precision_weights_load_into_a_float32_model(self, tmp_path: Path) -> None:
        saved, model = filled("tin_resnet18", 1), filled("tin_resnet18", 2)
        torch.save(saved.half().state_dict(), tmp_path / "x.pt")
        assert tin.load_checkpoint(model, tmp_path / "x.pt").complete
        assert model.conv1.weight.dtype == torch.float32
        same(model, {n: v.to(model.state_dict()[n].dtype) for n, v in saved.state_dict().items()})

    @pytest.mark.parametrize("change", [Tensor.int, lambda value: value + 0j])
    def test_weights_that_are_no_real_numbers_are_named(
        self, tmp_path: Path, change: Callable[[Tensor], Tensor]
    ) -> None:
        state = dict(filled("tsn_resnet18", 1).state_dict())
        state["conv1.weight"] = change(state["conv1.weight"])
        torch.save(state, tmp_path / "x.pt")
        with pytest.raises(TinError, match=r"conv1\.weight: file (complex64|int32), model float32"):
            tin.load_checkpoint(filled("tsn_resnet18", 2), tmp_path / "x.pt")
