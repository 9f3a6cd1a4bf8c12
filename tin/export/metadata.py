"""What a file says of itself: how to make its input, what its output means, and where it comes from."""

from __future__ import annotations

import json
import platform
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import tin
from tin.errors import TinError
from tin.export.program import CLIPS, INPUT, OUTPUT
from tin.models import TemporalResNet
from tin.recipes import DataSettings

KEY = "tin"
"""Of the ONNX metadata property, and of AOTInductor's; the extra file of torch.export is called `tin.json`."""
VERSION = 1
_PACKAGES = ("torch", "onnx", "onnxscript")


def describe(
    network: TemporalResNet,
    size: tuple[int, int],
    dtype: torch.dtype = torch.float32,
    *,
    data: DataSettings | None = None,
    labels: Sequence[str] | None = None,
    checkpoint: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Everything that docs/export.md lists under "metadata", as plain values for JSON.

    Args:
        network: what is exported.
        size: H and W of its frames.
        dtype: what the file computes in.
        data: how the recipe makes frames; None where nobody knows.
        labels: class names by number.
        checkpoint: `file`, `sha256` and `weights` ("raw" or "ema").
    """
    return {
        "metadata_version": VERSION,
        "network": {
            "arch": network.arch,
            "num_classes": network.num_classes,
            "num_segments": network.num_segments,
            "shift_div": network.shift_div,
            "dtype": str(dtype).removeprefix("torch."),
        },
        "input": {"name": INPUT, "shape": [CLIPS, network.num_segments, 3, *size], "dtype": "float32"},
        "output": {"name": OUTPUT, "shape": [CLIPS, network.num_classes], "dtype": "float32"},
        "preprocessing": None if data is None else _preprocessing(data),
        "labels": None if labels is None else list(labels),
        "checkpoint": None if checkpoint is None else dict(checkpoint),
        "versions": {"tin": tin.__version__, "python": platform.python_version(), **_versions()},
    }


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What `tin-cli export` wrote into a file of any of its formats, without loading the network.

    Raises:
        TinError: there is no such file, or nothing of the kind in it; for .onnx also that onnx is not installed.
    """
    path = Path(path)
    try:
        text = _onnx_text(path) if path.suffix == ".onnx" else _archive_text(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise TinError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if text is None:
        raise TinError(f"{path} holds no metadata of tin-cli export")
    found: dict[str, Any] = json.loads(text)
    return found


def _preprocessing(data: DataSettings) -> dict[str, Any]:
    return {
        "color": "RGB",
        "mean": list(data.mean),
        "std": list(data.std),
        "formula": "(pixel - mean) / std, pixels 0 to 255",
        "short_side": data.short_side,
        "crop": data.test_crop,
        "sampling": data.test_sampling,
        "clips_per_video": data.test_clips,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _onnx_text(path: Path) -> str | None:
    from google.protobuf.message import DecodeError

    from tin.export.onnx_file import require_packages

    require_packages()
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise TinError(f"{path} is no ONNX file, or is cut short") from error
    return next((entry.value for entry in model.metadata_props if entry.key == KEY), None)


def _archive_text(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(f"/extra/{KEY}.json"):
                return archive.read(name).decode()
            if "/aotinductor/" in name and name.endswith("_metadata.json"):
                value = json.loads(archive.read(name)).get(KEY)
                return value if isinstance(value, str) else None
    return None
