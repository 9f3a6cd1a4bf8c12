"""From a network to a file: the formats, and what all have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from tin.errors import TinError, unknown_name
from tin.export.files import check_target, written_whole
from tin.export.metadata import describe
from tin.export.onnx_file import require_packages, run_onnx, write_onnx
from tin.export.package import require_native, run_package, write_package
from tin.export.parity import check_parity
from tin.export.program import capture
from tin.export.program_file import run_program, write_program
from tin.models import TemporalResNet

Format = Literal["onnx", "torch-export", "aoti"]
FORMATS: tuple[str, ...] = get_args(Format)
SUFFIX = {"onnx": ".onnx", "torch-export": ".pt2", "aoti": ".pt2"}
DTYPES = {"float32": torch.float32, "float16": torch.float16}


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: the file.
        bytes: its size, with what lies beside it.
        difference: the largest difference of a logit from the eager network's, at 1, 3 and 8 clips.
        about: its metadata.
    """

    path: Path
    bytes: int
    difference: float
    about: dict[str, Any]


def export(
    network: TemporalResNet,
    path: str | Path,
    format: Format,
    *,
    size: tuple[int, int] = (224, 224),
    dtype: torch.dtype = torch.float32,
    about: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Exported:
    """Write a network for other programs: frames (N, T, 3, H, W) float32 -> logits (N, num_classes) float32, for any N.

    The file is loaded and held against the network before it gets its name; where it differs, there is none.

    Args:
        network: of `tin.build_model`, in evaluation mode; left as it is. ONNX is made on the CPU, the others are for the network's
            device.
        path: ends in .onnx, or .pt2 for the others.
        format: "onnx" (standard operators, opset 18), "torch-export" (for `torch.export.load`) or "aoti" (AOTInductor package).
        size: H and W of the frames, fixed in the file.
        dtype: float32 or float16, what convolutions and classifier compute in; offsets stay float32.
        about: metadata; `describe(network, size, dtype)` where nothing is given.
        force: replace a file that is there.

    Raises:
        TinError: the path, size or network cannot be; a package is missing; the file cannot be made or differs from the network.
    """
    check_export(path, format, size, dtype, next(network.parameters()).device, force)
    path = Path(path)
    facts = dict(about) if about is not None else describe(network, size, dtype)
    device = next(network.parameters()).device
    with written_whole(path) as file:
        # to ONNX a layout means nothing, but keeping one takes operators
        layout = torch.contiguous_format if format == "onnx" else torch.channels_last
        program = capture(network, size, dtype, layout)
        if format == "onnx":
            write_onnx(program, file, facts)
            run = run_onnx(file)
        elif format == "torch-export":
            write_program(program, file, facts)
            run = run_program(file, device)
        else:
            write_package(program, file, facts)
            run = run_package(file, device)
        difference = check_parity(run, network, size, dtype)
        written = sum(part.stat().st_size for part in file.parent.iterdir())
    return Exported(path, written, difference, facts)


def check_export(
    path: str | Path, format: str, size: tuple[int, int], dtype: torch.dtype, device: torch.device, force: bool
) -> None:
    """What `export` refuses before it begins.

    Raises:
        TinError: as `export`.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if dtype not in DTYPES.values():
        raise TinError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype}")
    if min(size) < 16 or max(size) > 4096:
        raise TinError(f"frames of {size[0]}×{size[1]} cannot be: take 16 to 4096 pixels a side")
    check_target(Path(path), SUFFIX[format], force)
    if format == "onnx":
        require_packages()
        if device.type != "cpu":
            raise TinError(f"ONNX is made on the CPU, for any device; the network is on {device}")
    if format == "aoti":
        require_native(device)
