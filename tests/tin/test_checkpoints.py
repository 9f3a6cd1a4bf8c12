"""Checkpoint files: what is written comes back, crashes lose nothing, nothing half-loads in silence."""

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
from torch import Tensor

import tin
from tests.tin.networks import filled, same
from tin.checkpoints import LoadReport, load_state, save_checkpoint
from tin.errors import TinError

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
