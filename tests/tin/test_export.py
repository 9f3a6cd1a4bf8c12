"""Exported files against the network they were made from: logits, operators, metadata, and what becomes of files that fail."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.op_cases import CASES, Case
from tests.tin.networks import trained_looking
from tests.tin.test_models import golden_resnet18
from tin import ops
from tin.errors import TinError
from tin.export import describe, export, onnx_file, read_metadata
from tin.export.formats import SUFFIX, Format
from tin.export.interlace import interlace_by_matrix
from tin.models import ARCHITECTURES, TemporalResNet
from tin.models.resnet import Stage

SIZE = (32, 48)


@pytest.fixture(scope="module")
def network() -> TemporalResNet:
    return cut(trained_looking("tin_resnet18"))


def cut(network: TemporalResNet) -> TemporalResNet:
    """Two blocks of it, one without and one with a convolution in its shortcut: faster to export than all."""
    network.layer1, network.layer2 = Stage(network.layer1[0]), Stage(network.layer2[0])
    network.layer3 = network.layer4 = Stage()
    network.fc = torch.nn.Linear(128, network.num_classes)
    torch.nn.init.normal_(network.fc.weight, std=0.2)
    return network.eval()


@pytest.fixture(scope="module")
def onnx_path(network: TemporalResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "tin.onnx"
    done = export(network, path, "onnx", size=SIZE)
    assert done.difference <= 1e-4
    assert done.bytes == path.stat().st_size
    return path


@pytest.fixture(scope="module")
def program_path(network: TemporalResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "tin.pt2"
    assert export(network, path, "torch-export", size=SIZE).difference <= 1e-4
    return path


def clips(count: int, network: TemporalResNet, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.randn(count, network.num_segments, 3, *size, generator=torch.Generator().manual_seed(count))


def in_onnxruntime(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda frames: torch.from_numpy(session.run(["logits"], {"frames": frames.numpy()})[0])


def assert_equals_network(run: Callable[[torch.Tensor], torch.Tensor], network: TemporalResNet) -> None:
    for count in (1, 2, 3, 5, 8):
        frames = clips(count, network)
        with torch.no_grad():
            expected = network(frames.flatten(0, 1))
        torch.testing.assert_close(run(frames), expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.1  # or being close would mean little


class TestMatrix:
    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_equals_the_op(self, case: Case) -> None:
        x, offset, weight = case.tensors(torch.float64)
        expected = ops.temporal_interlace(x, offset, weight, case.segments, case.group_size)
        actual = interlace_by_matrix(x, offset, weight, case.segments, case.group_size)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)

    def test_is_the_op_s_quarter_of_the_channels_by_default(self) -> None:
        x, offset, weight = CASES[3].tensors()
        assert torch.equal(
            interlace_by_matrix(x, offset, weight, 8), interlace_by_matrix(x, offset, weight, 8, x.shape[1] // 16)
        )

    def test_an_offset_a_rounding_away_from_a_whole_frame_makes_no_jump(self) -> None:
        x, _, weight = CASES[3].tensors(torch.float32)
        below, above = (torch.tensor([[value] * 4] * 2) for value in (np.nextafter(np.float32(1), np.float32(0)), 1.0))
        both = (interlace_by_matrix(x, offset.float(), weight, 8) for offset in (below, above))
        torch.testing.assert_close(*both, rtol=0, atol=1e-6)


class TestOnnx:
    def test_equals_the_network_at_any_number_of_clips(self, network: TemporalResNet, onnx_path: Path) -> None:
        assert_equals_network(in_onnxruntime(onnx_path), network)

    def test_has_standard_operators_alone_and_no_batch_norm(self, onnx_path: Path) -> None:
        model = onnx.load(onnx_path)
        onnx.checker.check_model(model, full_check=True)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
        assert not model.functions
        kinds = {node.op_type for node in model.graph.node}
        assert {"Conv", "MatMul"} <= kinds
        assert not kinds & {"BatchNormalization", "Floor", "Loop", "If", "Scan", "Shape"}

    def test_only_the_number_of_clips_is_free(self, network: TemporalResNet, onnx_path: Path) -> None:
        graph = onnx.load(onnx_path).graph
        shapes = {
            value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.output)
        }
        assert shapes == {"frames": ["clips", 4, 3, *SIZE], "logits": ["clips", 7]}
        session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
            session.run(None, {"frames": np.zeros((1, 5, 3, *SIZE), np.float32)})

    def test_says_nothing_of_the_machine_it_was_made_on(self, onnx_path: Path) -> None:
        content = onnx_path.read_bytes()
        for place in (Path.cwd(), Path(torch.__path__[0]).parent, onnx_path.parent):
            assert str(place).encode() not in content
        assert b"stack_trace" not in content

    def test_tsm(self, tmp_path: Path) -> None:
        self.assert_exports(cut(trained_looking("tsm_resnet18")), tmp_path)

    @pytest.mark.prove
    @pytest.mark.parametrize("arch", [arch for arch in ARCHITECTURES if arch != "tin_resnet18"])
    def test_every_architecture(self, arch: str, tmp_path: Path) -> None:
        self.assert_exports(trained_looking(arch, num_segments=3), tmp_path)

    def assert_exports(self, network: TemporalResNet, folder: Path) -> None:
        path = folder / "x.onnx"
        export(network, path, "onnx", size=SIZE)
        assert_equals_network(in_onnxruntime(path), network)

    @pytest.mark.slow
    def test_reproduces_the_golden_logits(self, golden: Path, tmp_path: Path) -> None:
        model, frames, expected = golden_resnet18(golden, torch.contiguous_format)
        path = tmp_path / "golden.onnx"
        export(model.float().eval(), path, "onnx", size=(64, 64))
        logits = in_onnxruntime(path)(frames.float().unflatten(0, (2, 4)))
        torch.testing.assert_close(logits.double(), expected["eval_logits_fp64"], rtol=0, atol=1e-4)

    def test_in_float16_offsets_stay_float32(self, network: TemporalResNet, tmp_path: Path) -> None:
        path = tmp_path / "half.onnx"
        export(network, path, "onnx", size=SIZE, dtype=torch.float16)
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        types = {value.name: value.data_type for value in model.graph.initializer}
        half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
        assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {full}
        convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
        assert len(convolutions) == 6
        assert all(types[node.input[1]] == half for node in convolutions)
        by_output = {name: node for node in model.graph.node for name in node.output}
        kept = [name for name in types if ".tin." in name]
        assert kept or "Sigmoid" in {node.op_type for node in by_output.values()}
        assert all(types[name] == full for name in kept)

    def test_weights_above_the_limit_lie_beside_the_file(
        self, network: TemporalResNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(onnx_file, "LARGEST_FILE", 1 << 18)
        path = tmp_path / "large.onnx"
        done = export(network, path, "onnx", size=SIZE)
        assert sorted(found.name for found in tmp_path.iterdir()) == ["large.onnx", "large.onnx.data"]
        assert path.stat().st_size < 1 << 18 < (tmp_path / "large.onnx.data").stat().st_size
        assert done.bytes == sum(found.stat().st_size for found in tmp_path.iterdir())
        assert_equals_network(in_onnxruntime(path), network)


class TestProgram:
    def test_equals_the_network_at_any_number_of_clips(self, network: TemporalResNet, program_path: Path) -> None:
        module = torch.export.load(program_path).module()
        with torch.no_grad():
            assert_equals_network(module, network)

    def test_calls_the_op_by_its_name(self, program_path: Path) -> None:
        program = torch.export.load(program_path)
        called = [node.target for node in program.graph.nodes if node.op == "call_function"]
        assert called.count(torch.ops.tin.temporal_interlace.default) == 2


class TestMetadata:
    def test_is_in_every_format(self, network: TemporalResNet, onnx_path: Path, program_path: Path) -> None:
        expected = describe(network, SIZE)
        assert expected["input"] == {"name": "frames", "shape": ["clips", 4, 3, *SIZE], "dtype": "float32"}
        assert read_metadata(onnx_path) == read_metadata(program_path) == expected
        session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
        assert json.loads(session.get_modelmeta().custom_metadata_map["tin"]) == expected
        extra = {"tin.json": ""}
        torch.export.load(program_path, extra_files=extra)
        assert json.loads(extra["tin.json"]) == expected

    @pytest.mark.parametrize("name", ["x.onnx", "x.pt2"])
    def test_of_a_file_without_it_or_no_file_says_so(self, name: str, tmp_path: Path) -> None:
        path = tmp_path / name
        with pytest.raises(TinError, match=f"cannot read .*{name}: No such file"):
            read_metadata(path)
        path.write_text("neither")
        with pytest.raises(TinError, match=f"{name}"):
            read_metadata(path)
        if name == "x.pt2":
            torch.save({}, path)
        else:
            onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])), path)
        with pytest.raises(TinError, match="holds no metadata of tin-cli export"):
            read_metadata(path)


class TestFiles:
    def test_a_file_that_differs_from_the_network_is_not_written(self, tmp_path: Path) -> None:
        network = cut(trained_looking("tin_resnet18"))
        torch.nn.init.constant_(
            network.bn1.weight, 3e4
        )  # its weights fit into float16, what it makes of frames does not
        path = tmp_path / "x.pt2"
        path.write_text("the old one")
        with pytest.raises(TinError, match=r"differs from the network: by (inf|nan) .* no file was written"):
            export(network, path, "torch-export", size=SIZE, dtype=torch.float16, force=True)
        assert path.read_text() == "the old one"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_file_that_is_there_stays_unless_forced(
        self, network: TemporalResNet, program_path: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "x.pt2"
        path.write_text("mine")
        with pytest.raises(TinError, match=r"x\.pt2 is there already: give another name, or --force"):
            export(network, path, "torch-export", size=SIZE)
        assert path.read_text() == "mine"
        export(network, path, "torch-export", size=SIZE, force=True)
        assert read_metadata(path) == read_metadata(program_path)
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("format", ["onnx", "torch-export"])
    def test_a_write_that_fails_is_named_and_leaves_nothing(
        self, network: TemporalResNet, tmp_path: Path, format: Format
    ) -> None:
        path = tmp_path / f"x{SUFFIX[format]}"
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, hard))  # as a disk that is full after a quarter MiB
        try:
            with pytest.raises(TinError, match=rf"cannot write {path}: .*"):
                export(network, path, format, size=SIZE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("path", "format", "options", "words"),
        [
            ("x.pt2", "onnx", {}, r"written to a file that ends in \.onnx"),
            ("x.onnx", "aoti", {}, r"written to a file that ends in \.pt2"),
            ("no/x.onnx", "onnx", {}, "there is no folder"),
            ("folder.onnx", "onnx", {"force": True}, "it is a folder"),
            ("x.onnx", "onxx", {}, "unknown format 'onxx': did you mean 'onnx'"),
            ("x.onnx", "onnx", {"size": (8, 224)}, "frames of 8×224 cannot be"),
            ("x.onnx", "onnx", {"dtype": torch.bfloat16}, "dtype must be one of float32, float16"),
        ],
    )
    def test_what_cannot_be_is_refused_first(
        self, network: TemporalResNet, tmp_path: Path, path: str, format: Any, options: dict[str, Any], words: str
    ) -> None:
        (tmp_path / "folder.onnx").mkdir()
        with pytest.raises(TinError, match=words):
            export(network, tmp_path / path, format, **options)
        assert [found.name for found in tmp_path.iterdir()] == ["folder.onnx"]

    def test_a_network_in_training_mode_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(TinError, match=r"training mode.*call model\.eval\(\)"):
            export(trained_looking("tin_resnet18").train(), tmp_path / "x.onnx", "onnx", size=SIZE)

    def test_a_package_that_is_missing_is_named_with_its_remedy(
        self, network: TemporalResNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
        with pytest.raises(TinError, match="ONNX files need onnxscript: pip install onnxscript"):
            export(network, tmp_path / "x.onnx", "onnx", size=SIZE)
