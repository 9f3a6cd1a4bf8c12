"""Checkpoints of every format are read as PyTorch reads them, and nothing that they name is imported or called."""

from __future__ import annotations

import argparse
import collections
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

import tin
from tests.tin.networks import filled, same
from tin.checkpoints import load_state, save_checkpoint
from tin.checkpoints.foreign import Foreign, Global
from tin.errors import TinError

BASE = torch.arange(24.0).reshape(4, 6)
TENSORS = {
    "whole": BASE,
    "transposed": BASE.t(),
    "part": BASE[1:, 2:],
    "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "parameter": torch.nn.Parameter(torch.randn(3)),
    "half": torch.randn(3).half(),
    "bfloat16": torch.randn(4).bfloat16(),
    "double": torch.randn(2, dtype=torch.float64),
    "bool": torch.tensor([True, False]),
    "byte": torch.arange(5, dtype=torch.uint8),
    "short": torch.arange(5, dtype=torch.int16),
    "uint16": torch.tensor([1, 65535], dtype=torch.uint16),
    "complex": torch.randn(2, dtype=torch.complex64),
    "empty": torch.empty(0, 3),
    "number": torch.tensor(3),
    "expanded": torch.ones(1).expand(64),
}
VALUES: dict[str, Any] = {
    "ordered": collections.OrderedDict(a=1, b=(2, [3.5, None])),
    "default": collections.defaultdict(list, {"a": [1]}),
    "counter": collections.Counter("aab"),
    "set": {1, 2},
    "frozen": frozenset({"a"}),
    "bytes": b"\x00\xff",
    "bytearray": bytearray(b"ab"),
    "size": torch.Size([1, 2]),
    "dtype": torch.float16,
    "device": torch.device("cpu"),
    "large": 2**100,
    "negative": -5,
    "text": "é€😀",
    "complex": 1 + 2j,
    "float64": np.float64(1.5),
    "float32": np.float32(2),
    "int64": np.int64(-3),
    "bool_": np.bool_(True),
}
ARRAYS = {
    "matrix": np.arange(6.0).reshape(2, 3),
    "fortran": np.arange(6.0).reshape(2, 3).T,
    "ints": np.arange(3, dtype=np.int32),
    "big_endian": np.arange(3, dtype=">f4"),
    "bools": np.array([True, False]),
    "nothing": np.zeros((0, 4)),
}


@pytest.mark.parametrize("old_format", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_values_come_back_as_they_were(tmp_path: Path, protocol: int, old_format: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save(
        {"tensors": TENSORS, "values": VALUES, "arrays": ARRAYS}, path,
        pickle_protocol=protocol, _use_new_zipfile_serialization=not old_format,
    )  # fmt: skip
    state = load_state(path)
    assert state["values"] == VALUES
    for name, value in TENSORS.items():
        found = state["tensors"][name]
        assert torch.equal(found, value), name
        assert (found.dtype, found.stride()) == (value.dtype, value.stride()), name
        assert not found.requires_grad
    assert state["tensors"]["part"].untyped_storage().data_ptr() == state["tensors"]["whole"].data_ptr()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(state["arrays"][name], array)


@pytest.mark.parametrize("old_format", [False, True], ids=["zip", "legacy"])
def test_optimiser_states_come_back(tmp_path: Path, old_format: bool) -> None:
    model = tin.build_model("tsn_resnet18", 5)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    for kind in (torch.optim.SGD, torch.optim.AdamW):
        optimizer = kind(model.parameters(), lr=0.1)
        optimizer.step()
        path = tmp_path / "x.pt"
        torch.save({"optimizer": optimizer.state_dict()}, path, _use_new_zipfile_serialization=not old_format)
        found, expected = load_state(path), torch.load(path, weights_only=True)
        assert str(found) == str(expected)


class TestForeignClasses:
    """Of other training programs: their values are kept, their code is not needed and would not be called."""

    @pytest.fixture
    def mmengine(self) -> Iterator[ModuleType]:
        """A package under MMEngine's name whose class says when anything of it runs."""
        package, logging, module = (
            ModuleType(f"mmengine{rest}") for rest in ("", ".logging", ".logging.history_buffer")
        )
        module.calls = []  # type: ignore[attr-defined]

        class HistoryBuffer:
            _statistics_methods: dict[str, Any] = {}  # noqa: RUF012

            def __init__(self) -> None:
                self.max_length = 1000000
                self._log_history = np.array([0.5, 0.25])
                self._count_history = np.array([1, 1])
                self.methods = {"mean": HistoryBuffer.mean}

            def mean(self) -> None: ...

            def __setstate__(self, state: Any) -> None:
                module.calls.append("__setstate__")

            def __new__(cls) -> HistoryBuffer:
                module.calls.append("__new__")
                return super().__new__(cls)

        HistoryBuffer.__module__, HistoryBuffer.__qualname__ = "mmengine.logging.history_buffer", "HistoryBuffer"
        HistoryBuffer.mean.__module__ = HistoryBuffer.__module__
        HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
        module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
        modules = {part.__name__: part for part in (package, logging, module)}
        sys.modules.update(modules)
        yield module
        for name in modules:
            del sys.modules[name]

    @pytest.mark.parametrize("protocol", [2, 4])
    @pytest.mark.parametrize("old_format", [False, True], ids=["zip", "legacy"])
    def test_a_checkpoint_of_mmengine(
        self, tmp_path: Path, mmengine: ModuleType, old_format: bool, protocol: int
    ) -> None:
        saved = filled("tsn_resnet18", 1)
        hub = {
            "log_scalars": collections.OrderedDict({"train/loss": mmengine.HistoryBuffer()}),
            "runtime_info": collections.OrderedDict(epoch=3, best=np.float64(70.5)),
            "resumed_keys": {},
        }
        state = {"meta": {"epoch": 3, "dataset_meta": {"palette": np.arange(3)}}, "message_hub": hub}
        torch.save(
            {**state, "state_dict": saved.state_dict()}, tmp_path / "x.pth",
            pickle_protocol=protocol, _use_new_zipfile_serialization=not old_format,
        )  # fmt: skip
        mmengine.calls.clear()
        before = set(sys.modules)
        found = load_state(tmp_path / "x.pth")
        assert mmengine.calls == []
        assert set(sys.modules) == before
        buffer = found["message_hub"]["log_scalars"]["train/loss"]
        assert isinstance(buffer, Foreign)
        assert buffer.type_name == "mmengine.logging.history_buffer.HistoryBuffer"
        assert buffer.state["_log_history"].tolist() == [0.5, 0.25]
        assert buffer.state["methods"]["mean"] == Global("mmengine.logging.history_buffer.HistoryBuffer.mean")
        assert found["message_hub"]["runtime_info"]["best"] == 70.5
        model = filled("tsn_resnet18", 2)
        tin.load_checkpoint(model, tmp_path / "x.pth").require_complete()
        same(model, saved.state_dict())

    def test_the_authors_arguments_and_paths(self, tmp_path: Path) -> None:
        args = argparse.Namespace(arch="resnet50", lr_steps=[20, 40], root=Path("runs/x"))
        torch.save({"args": args, "best_prec1": torch.tensor(4.0), "state_dict": {"w": torch.ones(1)}}, tmp_path / "x")
        found = load_state(tmp_path / "x")["args"]
        assert found.state == {"arch": "resnet50", "lr_steps": [20, 40], "root": "runs/x"}
        assert repr(found) == "<argparse.Namespace, not loaded>"

    def test_no_switch_of_pytorch_is_left_on(self, tmp_path: Path) -> None:
        torch.save({"args": argparse.Namespace()}, tmp_path / "x")
        before = set(torch.serialization.get_safe_globals())
        load_state(tmp_path / "x")
        assert set(torch.serialization.get_safe_globals()) == before
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / "x", weights_only=True)

    @pytest.mark.parametrize("old_format", [False, True], ids=["zip", "legacy"])
    def test_a_whole_module_is_refused_by_its_class(self, tmp_path: Path, old_format: bool) -> None:
        torch.save(filled("tsn_resnet18", 1), tmp_path / "x.pt", _use_new_zipfile_serialization=not old_format)
        with pytest.raises(TinError, match=r"x\.pt holds Python objects \(tin\.models\.resnet\.TemporalResNet\)"):
            load_state(tmp_path / "x.pt")

    def test_sparse_tensors_are_refused_by_kind(self, tmp_path: Path) -> None:
        torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "x.pt")
        with pytest.raises(TinError, match=r"a kind of tensor \(torch\._utils\._rebuild_sparse_tensor\)"):
            load_state(tmp_path / "x.pt")


def of_python_2(tensor_id: bytes) -> bytes:
    """A file as PyTorch 0.3 under Python 2 wrote it, opcode for opcode: six numbers, of which a tensor shows some.

    Args:
        tensor_id: the end of the storage's persistent id (what part of it is meant), then offset, size and stride.
    """
    value = (
        b"\x80\x02}q\x00U\x05epochK\x03sU\nstate_dictccollections\nOrderedDict\nq\x01)Rq\x02U\x0cconv1.weight"
        b"ctorch._utils\n_rebuild_tensor\n((U\x07storagectorch.cuda\nFloatStorage\nU\x0894021000U\x06cuda:0K\x06"
        + tensor_id
        + b"tRssU\x04bestcnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x08\x00\x00\x00\x00\x00\x00\xf8\x3f\x86Rs."
    )
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    heads = [pickle.dumps(head, 2) for head in (0x1950A86A20F9469CFC6C, 1001, system)]
    data = (6).to_bytes(8, "little") + np.arange(6, dtype="<f4").tobytes()
    return b"".join([*heads, value, b"\x80\x02]U\x0894021000a.", data])


@pytest.mark.parametrize(
    ("tensor_id", "expected"),
    [
        (b"NtQK\x00K\x02K\x03\x86K\x03K\x01\x86", [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]),
        (b"(U\x04viewK\x02K\x03ttQK\x00K\x03\x85K\x01\x85", [2.0, 3.0, 4.0]),
    ],
    ids=["whole", "view"],
)
def test_a_file_of_python_2(tmp_path: Path, tensor_id: bytes, expected: list[Any]) -> None:
    (tmp_path / "x.pth.tar").write_bytes(of_python_2(tensor_id))
    state = load_state(tmp_path / "x.pth.tar")
    assert state["epoch"] == 3
    assert state["best"] == 1.5
    assert state["state_dict"]["conv1.weight"].tolist() == expected


def test_a_view_of_a_storage_cannot_reach_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(of_python_2(b"(U\x04viewK\x04K\x03ttQK\x00K\x03\x85K\x01\x85"))
    with pytest.raises(TinError, match="a storage that reaches out of another"):
        load_state(tmp_path / "x.pth")


class TestSafetensors:
    def test_weights_and_metadata_come_back_and_load(self, tmp_path: Path) -> None:
        saved, model = filled("tin_resnet18", 1), filled("tin_resnet18", 2)
        path = tmp_path / "x.safetensors"
        safetensors.torch.save_file(saved.state_dict(), path, metadata={"arch": "tin_resnet18"})
        state = load_state(path)
        assert state["metadata"] == {"arch": "tin_resnet18"}
        same_values = {
            name: torch.equal(value, saved.state_dict()[name]) for name, value in state["state_dict"].items()
        }
        assert len(same_values) == len(saved.state_dict())
        assert all(same_values.values())
        tin.load_checkpoint(model, path).require_complete()
        same(model, saved.state_dict())

    def test_it_is_known_by_its_content(self, tmp_path: Path) -> None:
        safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "x.pth")
        assert torch.equal(load_state(tmp_path / "x.pth")["state_dict"]["w"], torch.ones(2))

    def test_a_file_that_shrinks_later_does_not_crash_the_process(self, tmp_path: Path) -> None:
        """Mapped files would."""
        script = (
            "import os, sys, torch, safetensors.torch; from tin.checkpoints import load_state\n"
            "safetensors.torch.save_file({'w': torch.ones(10**6)}, sys.argv[1])\n"
            "state = load_state(sys.argv[1]); os.truncate(sys.argv[1], 100); print(state['state_dict']['w'].sum().item())"
        )
        ran = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "x.safetensors")], capture_output=True, text=True
        )
        assert ran.stdout == "1000000.0\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "pointer of Git LFS"),
        (b"\x00" * 257 + b"ustar" + b"\x00" * 300, "tar archive"),
        (b"", "is empty"),
        (b"\x1b[31mred\x07", r"begins with .*\\x1b\[31mred"),
    ],
)
def test_what_is_no_checkpoint_is_said_to_be_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(TinError, match=message) as caught:
        load_state(tmp_path / "x.pth")
    assert str(caught.value).isprintable()


def test_programs_and_other_archives_are_told_from_checkpoints(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning, match="deprecated"):
        torch.jit.script(torch.nn.ReLU()).save(tmp_path / "x.pt")
    with pytest.raises(TinError, match="is a TorchScript program"):
        load_state(tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(TinError, match=r"no PyTorch checkpoint: it holds readme\.txt"):
        load_state(tmp_path / "y.pt")


def test_names_from_a_file_cannot_command_a_terminal(tmp_path: Path) -> None:
    state: dict[str, Tensor] = dict(filled("tsn_resnet18", 1).state_dict())
    state["\x1b]0;owned\x07\nfake line"] = torch.ones(1)
    state["x" * 10_000] = torch.ones(1)
    save_checkpoint(tmp_path / "x.pt", state)
    with pytest.raises(TinError) as caught:
        tin.load_checkpoint(filled("tsn_resnet18", 2), tmp_path / "x.pt")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
