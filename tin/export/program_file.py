"""torch.export: a program that PyTorch runs, compiles or transforms, with the op in it by its name."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from tin.export.metadata import KEY
from tin.export.parity import Run


def write_program(program: ExportedProgram, path: Path, about: Mapping[str, Any]) -> None:
    """Write a program as torch.export.save does, metadata in its extra file `tin.json`.

    Raises:
        OSError: it cannot be written.
    """
    content = io.BytesIO()  # PyTorch's own file writer ends the process when a disk is full
    with warnings.catch_warnings():
        # channels_last weights are taken for parts of something larger; that they come back right is checked afterwards
        warnings.filterwarnings("ignore", "No complete tensor found in the group")
        torch.export.save(program, content, extra_files={f"{KEY}.json": json.dumps(about, ensure_ascii=False)})
    path.write_bytes(content.getbuffer())


def run_program(path: Path, device: torch.device) -> Run:
    """The file as PyTorch runs it."""
    module = torch.export.load(path).module()

    def run(frames: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = module(frames.to(device))
        return logits.cpu()

    return run
