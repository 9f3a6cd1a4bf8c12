"""ONNX: standard operators alone, any number of clips, run here by ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from tin.errors import TinError
from tin.export.interlace import interlace_by_matrix
from tin.export.metadata import KEY
from tin.export.parity import Run
from tin.export.program import CLIPS, INPUT, OUTPUT

OPSET = 18
"""ONNX Runtime from 1.14 and TensorRT from 8.6 know it."""
LARGEST_FILE = 2**31 - 2**24
"""Bytes of weights that a file holds itself: protobuf ends at 2 GiB. More go into a file of their own beside it."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def require_packages() -> None:
    """Refuse where what ONNX files need is not installed.

    Raises:
        TinError: with how to install it.
    """
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise TinError(f"ONNX files need {', '.join(missing)}: pip install {' '.join(missing)}")


def write_onnx(program: ExportedProgram, path: Path, about: Mapping[str, Any]) -> None:
    """Write a program as ONNX with opset 18, metadata under the property "tin"; weights above 2 GiB beside it in `path`.data.

    Raises:
        OSError: it cannot be written.
    """
    import onnx_ir
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    plain = program.run_decompositions({torch.ops.tin.temporal_interlace.default: interlace_by_matrix})
    exported = torch.onnx.export(
        plain, input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes={INPUT: {0: CLIPS}}, opset_version=OPSET,
        dynamo=True, verbose=False,
    )  # fmt: skip
    assert exported is not None
    model = exported.model
    ClearMetadataAndDocStringPass()(model)  # each node's Python stack, with the paths of this machine
    model.metadata_props[KEY] = json.dumps(about, ensure_ascii=False)
    weights = sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None
    )
    onnx_ir.save(model, path, external_data=f"{path.name}.data" if weights > LARGEST_FILE else None)


def run_onnx(path: Path, threads: int = 0) -> Run:
    """The file in ONNX Runtime on the CPU.

    Args:
        threads: of the runtime; 0: as many as it likes.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(frames: Tensor) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: frames.numpy()})
        return torch.from_numpy(logits)

    return run
