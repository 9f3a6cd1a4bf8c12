"""AOTInductor: a compiled package for Python and C++, which calls the op in libtin_cpu.so or libtin_cuda.so."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch._inductor
from torch import Tensor
from torch.export import ExportedProgram

from tin import ops
from tin.errors import TinError
from tin.export.metadata import KEY
from tin.export.parity import Run


def require_native(device: torch.device) -> None:
    """Refuse where the op has no compiled kernels, which a package calls.

    Raises:
        TinError: with the reason.
    """
    if not ops.has_native(device.type):
        found = ops.backend()
        reason = found.cuda_reason if device.type == "cuda" else found.cpu_reason
        raise TinError(f"a package needs the compiled kernels of the op on {device.type}: {reason}")


def write_package(program: ExportedProgram, path: Path, about: Mapping[str, Any]) -> None:
    """Compile a program and write the package, metadata under "tin" (JSON), "num_segments", "height" and "width".

    Raises:
        TinError: it does not compile here.
        OSError: it cannot be written.
    """
    from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler

    _, segments, _, height, width = about["input"]["shape"]
    plain = {
        "num_segments": str(segments),
        "height": str(height),
        "width": str(width),
    }  # for C++, which has no JSON reader
    described = {KEY: json.dumps(about, ensure_ascii=False), **plain}
    if next(iter(program.state_dict.values())).device.type == "cpu":
        # it says that there is no GPU, which nobody asked for
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    content = io.BytesIO()  # PyTorch's own file writer ends the process when a disk is full
    try:
        torch._inductor.aoti_compile_and_package(
            program, package_path=content, inductor_configs={"aot_inductor.metadata": described}
        )
    except (InductorError, CppCompileError, InvalidCxxCompiler) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TinError(f"AOTInductor does not compile here ({reason}): it needs a C++ compiler, g++ or $CXX") from error
    path.write_bytes(content.getbuffer())


def run_package(path: Path, device: torch.device) -> Run:
    """The file as PyTorch runs it."""
    model = torch._inductor.aoti_load_package(str(path))

    def run(frames: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model(frames.to(device))
        return logits.cpu()

    return run
