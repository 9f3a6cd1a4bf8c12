"""Checkpoint files: what is written comes back, crashes lose nothing, every naming of the field loads, nothing half-loads in silence."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

import tin
from tin.checkpoints import LoadReport, load_state, save_checkpoint
from tin.errors import TinError
from tin.models import TemporalResNet

State = dict[str, Tensor]


class TestFiles:
    def test_what_is_saved_comes_back(self, tmp_path: Path) -> None:
        state = {
            "model": OrderedDict(weight=torch.randn(3, 2)),
            "epoch": 3,
            "best": 0.5,
            "name": "tin",
            "nested": [1, (2.0, None), {"flag": True}],
        }
        path = tmp_path / "new" / "folder" / "last.pt"
        save_checkpoint(path, state)
        back = load_state(path)
        assert torch.equal(back["model"]["weight"], state["model"]["weight"])  # type: ignore[index]
        assert {k: v for k, v in back.items() if k != "model"} == {k: v for k, v in state.items() if k != "model"}
        assert os.listdir(path.parent) == ["last.pt"]

    @pytest.mark.parametrize(
        ("value", "name"),
        [
            (np.float64(0.5), "numpy.float64"),
            (np.arange(3), "ndarray"),
            (Path("x"), "Path"),
            (defaultdict(int), "default"),
        ],
    )
    def test_what_could_not_be_loaded_is_refused_at_saving_and_named(
        self, tmp_path: Path, value: Any, name: str
    ) -> None:
        path = tmp_path / "last.pt"
        save_checkpoint(path, {"epoch": 1})
        with pytest.raises(TypeError, match=rf"state\['run'\]\['best'\]\[1\] is a .*{name}"):
            save_checkpoint(path, {"epoch": 2, "run": {"best": [1, value]}})
        assert load_state(path) == {"epoch": 1}

    def test_a_write_that_fails_leaves_the_old_file_and_no_litter(self, tmp_path: Path) -> None:
        """A real full disk: a process that may not write files beyond 1 MB."""
        path = tmp_path / "last.pt"
        save_checkpoint(path, {"epoch": 1})
        script = (
            "import resource, signal, sys, torch; from tin.checkpoints import save_checkpoint; "
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)); "
            "save_checkpoint(sys.argv[1], {'epoch': 2, 'w': torch.zeros(10**6)})"
        )
        ran = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
        assert "TinError: cannot write the checkpoint" in ran.stderr
        assert "the old file is untouched" in ran.stderr
        assert load_state(path) == {"epoch": 1}
        assert os.listdir(tmp_path) == ["last.pt"]

    @pytest.mark.slow
    def test_a_killed_writer_leaves_a_whole_file(self, tmp_path: Path) -> None:
        path = tmp_path / "last.pt"
        script = (
            "import itertools, sys, torch; from tin.checkpoints import save_checkpoint\n"
            "for i in itertools.count(): save_checkpoint(sys.argv[1], {'i': i, 'w': torch.full((10**6,), float(i))}); print(i)"
        )
        for rounds in range(3):
            writer = subprocess.Popen([sys.executable, "-uc", script, str(path)], stdout=subprocess.PIPE, text=True)
            assert writer.stdout is not None
            for _ in range(3 + rounds):
                writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            writer.stdout.close()
            state = load_state(path)
            assert state["i"] >= 2
            assert torch.equal(state["w"], torch.full((10**6,), float(state["i"])))

    def test_a_file_that_is_not_there_is_answered_with_those_that_are(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "best.pt", {"epoch": 1})
        with pytest.raises(TinError, match=r"there is no checkpoint .*last\.pt: .* holds best\.pt"):
            load_state(tmp_path / "last.pt")
        with pytest.raises(TinError, match=r"is a directory, not a checkpoint.* holds best\.pt"):
            load_state(tmp_path)
        with pytest.raises(TinError, match=r"there is no folder .*runs either"):
            load_state(tmp_path / "runs" / "last.pt")

    @pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
    def test_both_formats_load_and_a_cut_is_noticed_wherever_it_falls(self, tmp_path: Path, legacy: bool) -> None:
        path = tmp_path / "last.pt"
        torch.save({"w": torch.arange(1000)}, path, _use_new_zipfile_serialization=not legacy)
        assert torch.equal(load_state(path)["w"], torch.arange(1000))
        whole = path.read_bytes()
        for kept in (0, 3, 20, len(whole) // 2, len(whole) - 10):
            path.write_bytes(whole[:kept])
            with pytest.raises(TinError, match=r"last\.pt .*(cut|no PyTorch checkpoint)"):
                load_state(path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"<!DOCTYPE html><html>not found</html>", "is a web page"),
            (b"hello, this is a text file", "no PyTorch checkpoint"),
            (b"\x00" * 100, "no PyTorch checkpoint"),
            (bytes(range(256)) * 4, "no PyTorch checkpoint"),
        ],
    )
    def test_other_files_are_no_checkpoints(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "x.pth"
        path.write_bytes(content)
        with pytest.raises(TinError, match=rf"x\.pth .*{message}") as caught:
            load_state(path)
        assert "\n" not in str(caught.value)

    def test_flipped_bits_in_the_structure_are_noticed(self, tmp_path: Path) -> None:
        path = tmp_path / "last.pt"
        torch.save({"w": torch.arange(1000)}, path)
        whole = bytearray(path.read_bytes())
        at = whole.index(b"data.pkl") + 30
        whole[at : at + 40] = b"\xff" * 40
        path.write_bytes(whole)
        with pytest.raises(TinError, match=r"last\.pt .*damaged"):
            load_state(path)

    def test_a_flipped_bit_anywhere_is_noticed(self, tmp_path: Path) -> None:
        """PyTorch itself would load such a file without a word and train on with the wrong weights."""
        path = tmp_path / "last.pt"
        save_checkpoint(path, {"w": torch.arange(300.0), "epoch": 3})
        whole = path.read_bytes()
        for at in range(0, len(whole), 7):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
            with pytest.raises(TinError, match=r"last\.pt "):
                load_state(path)
        for at in range(len(whole) - 50, len(whole)):  # the end, where the checksum itself is
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
            with pytest.raises(TinError, match=r"last\.pt "):
                load_state(path)

    def test_a_flipped_bit_in_the_weights_of_another_programs_file_is_noticed(self, tmp_path: Path) -> None:
        path = tmp_path / "last.pth"
        weights = torch.arange(1000.0)
        torch.save({"w": weights}, path)
        whole = bytearray(path.read_bytes())
        whole[whole.index(weights.numpy().tobytes()) + 1001] ^= 1
        path.write_bytes(whole)
        assert not torch.equal(torch.load(path, weights_only=True)["w"], weights)
        with pytest.raises(TinError, match=r"last\.pth is damaged .*data/0"):
            load_state(path)

    def test_other_programs_read_what_is_written_here(self, tmp_path: Path) -> None:
        path = tmp_path / "last.pt"
        save_checkpoint(path, {"w": torch.arange(1000.0)})
        for mmap in (False, True):
            assert torch.equal(torch.load(path, weights_only=True, mmap=mmap)["w"], torch.arange(1000.0))
        assert zipfile.ZipFile(path).testzip() is None

    def test_python_objects_are_not_run_but_named(self, tmp_path: Path) -> None:
        path = tmp_path / "evil.pt"
        mark = tmp_path / "ran"
        torch.save({"w": torch.ones(1), "x": Evil(str(mark))}, path)
        with pytest.raises(TinError, match=r"evil\.pt holds Python objects \(.*mkdir.*\)"):
            load_state(path)
        assert not mark.exists()

    def test_a_file_that_holds_no_dict_is_refused(self, tmp_path: Path) -> None:
        torch.save(torch.ones(3), tmp_path / "x.pt")
        with pytest.raises(TinError, match="holds a Tensor"):
            load_state(tmp_path / "x.pt")


class Evil:
    """Unpickled, it would make a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.path,)


class TestNamings:
    @pytest.mark.parametrize("arch", ["tin_resnet18", "tsm_resnet18", "tsn_resnet18"])
    @pytest.mark.parametrize("envelope", [None, "model", "state_dict"])
    def test_our_own_files_are_complete(self, tmp_path: Path, arch: str, envelope: str | None) -> None:
        saved, model = filled(arch, 1), filled(arch, 2)
        state: Any = saved.state_dict()
        save_checkpoint(tmp_path / "x.pt", {envelope: state, "epoch": 1} if envelope else state)
        report = tin.load_checkpoint(model, tmp_path / "x.pt")
        assert report.complete
        assert sorted(report.loaded) == sorted(saved.state_dict())
        report.require_complete()
        same(model, saved.state_dict())

    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_every_weight_of_mmaction2s_tin_lands_in_its_place(self, tmp_path: Path, prefix: str) -> None:
        saved, model = filled("tin_resnet50", 1), filled("tin_resnet50", 2)
        named = {prefix + mmaction2(name, "net2"): value for name, value in saved.state_dict().items()}
        torch.save({"meta": {"epoch": 40}, "state_dict": named}, tmp_path / "x.pth")
        report = tin.load_checkpoint(model, tmp_path / "x.pth")
        assert report.complete
        assert prefix or report.scheme == "MMAction2 TIN"
        same(model, saved.state_dict())

    @pytest.mark.parametrize("head", ["module.new_fc", "module.base_model.fc"])
    def test_every_weight_of_the_authors_tin_lands_in_its_place(self, tmp_path: Path, head: str) -> None:
        saved, model = filled("tin_resnet50", 1), filled("tin_resnet50", 2)
        named = {authors(name, "net2", head): value for name, value in saved.state_dict().items()}
        torch.save({"epoch": 40, "arch": "resnet50", "state_dict": named}, tmp_path / "x.pth")
        report = tin.load_checkpoint(model, tmp_path / "x.pth")
        assert report.complete
        assert report.scheme == "the TIN authors' repository"
        same(model, saved.state_dict())

    @pytest.mark.parametrize("source", ["mmaction2", "authors"])
    @pytest.mark.parametrize("classes", [10, 400])
    def test_tsm_into_tin_fills_every_convolution_and_says_what_is_new(
        self, tmp_path: Path, source: str, classes: int
    ) -> None:
        saved, model = filled("tsm_resnet50", 1, classes), filled("tin_resnet50", 2)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        rename = (lambda n: mmaction2(n, "net")) if source == "mmaction2" else (lambda n: authors(n, "net"))
        torch.save({"state_dict": {rename(n): v for n, v in saved.state_dict().items()}}, tmp_path / "x.pth")
        report = tin.load_checkpoint(model, tmp_path / "x.pth")
        fresh = {name for name in before if ".tin." in name}
        assert len(fresh) == 16 * 8
        if classes != 10:
            fresh |= {"fc.weight", "fc.bias"}
        assert set(report.new) == fresh
        assert len(report.dropped) == (0 if classes == 10 else 2)
        assert report.mismatched == []
        expected = {name: before[name] if name in fresh else saved.state_dict()[name] for name in before}
        assert sum(name.endswith("conv1.weight") for name in report.loaded) == 17
        same(model, expected)
        assert not report.complete
        with pytest.raises(TinError, match=r"is not this model: \d+ not in the file"):
            report.require_complete()
        assert "layer1.0.tin.offset.conv.weight" in str(report)
        assert f"{len(report.loaded)} weights loaded" in str(report)

    def test_imagenet_weights_of_torchvision_load_but_for_the_classifier(self, tmp_path: Path) -> None:
        plain = torchvision.models.resnet18()
        torch.save(plain.state_dict(), tmp_path / "resnet18.pth")
        for arch in ("tin_resnet18", "tsm_resnet18", "tsn_resnet18"):
            model = filled(arch, 2)
            report = tin.load_checkpoint(model, tmp_path / "resnet18.pth")
            assert report.dropped == ["fc.weight", "fc.bias"]
            assert {name for name in report.new if ".tin." not in name} == {"fc.weight", "fc.bias"}
            assert len(report.loaded) == len(plain.state_dict()) - 2

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


class TestAverages:
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


class TestRefusals:
    def test_another_number_of_segments_is_said_so(self, tmp_path: Path) -> None:
        model = filled("tin_resnet18", 2, segments=16)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        torch.save(filled("tin_resnet18", 1).state_dict(), tmp_path / "x.pt")
        message = (
            r"another number of segments: layer1\.0\.tin\.offset\.fc1\.weight is \(8, 8\), the model has \(16, 16\)"
        )
        with pytest.raises(TinError, match=message):
            tin.load_checkpoint(model, tmp_path / "x.pt")
        same(model, before)
        report = tin.load_checkpoint(model, tmp_path / "x.pt", strict=False)
        assert len(report.mismatched) == 8 * 3  # fc1 weight and bias, fc2 weight
        assert torch.equal(
            model.state_dict()["layer1.0.tin.offset.fc1.weight"], before["layer1.0.tin.offset.fc1.weight"]
        )
        assert not torch.equal(model.state_dict()["conv1.weight"], before["conv1.weight"])

    @pytest.mark.parametrize(
        ("change", "names"),
        [
            (lambda s: s.pop("layer2.0.conv2.weight"), r"layer2\.0\.conv2\.weight"),
            (lambda s: s.pop("layer2.0.tin.gain.conv.bias"), r"layer2\.0\.tin\.gain\.conv\.bias"),
            (lambda s: s.pop("fc.bias"), r"fc\.bias"),
            (lambda s: s.update({"extra.weight": torch.ones(1)}), r"extra\.weight"),
            (lambda s: s.update({"bn1.weight": torch.ones(3)}), r"bn1\.weight: file \(3,\), model \(64,\)"),
            (lambda s: s.update({"fc.weight": torch.ones(10, 7)}), r"fc\.weight: file \(10, 7\)"),
        ],
    )
    def test_what_is_not_explained_is_named_and_changes_nothing(
        self, tmp_path: Path, change: Callable[[State], Any], names: str
    ) -> None:
        state = dict(filled("tin_resnet18", 1).state_dict())
        change(state)
        torch.save(state, tmp_path / "x.pt")
        model = filled("tin_resnet18", 2)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(TinError, match=names):
            tin.load_checkpoint(model, tmp_path / "x.pt")
        same(model, before)
        report = tin.load_checkpoint(model, tmp_path / "x.pt", strict=False)
        assert re.search(names, str(report))

    def test_a_tin_does_not_turn_into_a_plain_resnet_unasked(self, tmp_path: Path) -> None:
        torch.save(filled("tin_resnet18", 1).state_dict(), tmp_path / "x.pt")
        with pytest.raises(TinError, match=r"model tsn_resnet18: 64 not in the model \(layer1\.0\.tin"):
            tin.load_checkpoint(filled("tsn_resnet18", 2), tmp_path / "x.pt")

    def test_another_depth_is_refused(self, tmp_path: Path) -> None:
        torch.save(filled("tsn_resnet50", 1).state_dict(), tmp_path / "x.pt")
        with pytest.raises(TinError, match=r"does not fit the model tsn_resnet18.*… \d+ more"):
            tin.load_checkpoint(filled("tsn_resnet18", 2), tmp_path / "x.pt")

    def test_a_file_without_weights_says_what_it_has(self, tmp_path: Path) -> None:
        torch.save({"epoch": 3, "arch": "x"}, tmp_path / "x.pt")
        with pytest.raises(TinError, match=r"holds no weights.*found epoch, arch"):
            tin.load_checkpoint(filled("tsn_resnet18", 2), tmp_path / "x.pt")
        torch.save({"something": torch.ones(1)}, tmp_path / "x.pt")
        with pytest.raises(TinError, match=r"nothing in .*x\.pt fits the model"):
            tin.load_checkpoint(filled("tsn_resnet18", 2), tmp_path / "x.pt", strict=False)

    def test_one_weight_under_two_names_is_refused(self, tmp_path: Path) -> None:
        state = dict(filled("tsn_resnet18", 1).state_dict())
        state["module.conv1.weight"] = state["conv1.weight"]
        torch.save(state, tmp_path / "x.pt")
        with pytest.raises(TinError, match=r"conv1\.weight twice"):
            tin.load_checkpoint(filled("tsn_resnet18", 2), tmp_path / "x.pt")

    def test_a_report_is_a_value(self, tmp_path: Path) -> None:
        assert LoadReport(tmp_path, "plain", loaded=["a"]).complete


def filled(arch: str, seed: int, classes: int = 10, segments: int = 8) -> TemporalResNet:
    """A model in which every weight and buffer has a value of its own."""
    with torch.device("meta"):
        model = tin.build_model(arch, classes, num_segments=segments)
    model.to_empty(device="cpu")
    for i, value in enumerate(model.state_dict().values()):
        value.fill_(seed + i / 1024 if value.is_floating_point() else seed + i)
    return model


def same(model: TemporalResNet, expected: State) -> None:
    actual = model.state_dict()
    assert list(actual) == list(expected)
    wrong = [name for name in expected if not torch.equal(actual[name], expected[name])]
    assert wrong == []


def mmaction2(name: str, net: str) -> str:
    """MMAction2's name, built part by part from its module structure."""
    parts = name.split(".")
    if parts[0] == "fc":
        return f"cls_head.fc_cls.{parts[1]}"
    if parts[0] in ("conv1", "bn1"):
        return f"backbone.conv1.{'conv' if parts[0] == 'conv1' else 'bn'}.{parts[1]}"
    block, rest = ".".join(parts[:2]), parts[2:]
    if rest[0] == "tin":
        return f"backbone.{block}.conv1.conv.net1.{rest[1]}".replace("gain", "weight") + f"_net.{'.'.join(rest[2:])}"
    if rest[0] == "downsample":
        return f"backbone.{block}.downsample.{'conv' if rest[1] == '0' else 'bn'}.{rest[2]}"
    inner = f"conv.{net}" if rest[0] == "conv1" else "conv" if rest[0].startswith("conv") else "bn"
    return f"backbone.{block}.conv{rest[0][-1]}.{inner}.{rest[1]}"


def authors(name: str, net: str, head: str = "module.new_fc") -> str:
    """The name in the authors' repositories of TSM (net) and TIN (net2)."""
    parts = name.split(".")
    if parts[0] == "fc":
        return f"{head}.{parts[1]}"
    block = "module.base_model." + ".".join(parts[:2])
    if parts[2] == "tin" if len(parts) > 2 else False:
        module = "biasnet" if parts[3] == "offset" else "weightnet"
        layer = {"fc1": "fc", "fc2": "lastlayer", "conv": "conv" if module == "biasnet" else "lastlayer"}[parts[4]]
        return f"{block}.conv1.net1.{module}.net.{layer}.{parts[5]}"
    if len(parts) > 3 and parts[2] == "conv1":
        return f"{block}.conv1.{net}.{parts[3]}"
    return f"module.base_model.{name}"
