"""Exported files beside the network they are made from: what another runtime gains or costs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tin.bench.timing import Rounds, ratios, row, time_in_turns
from tin.bench.workload import Workload
from tin.export.formats import SUFFIX, Format, export
from tin.export.onnx_file import run_onnx
from tin.export.package import run_package
from tin.export.program_file import run_program
from tin.inference import prepare

NAMES = {"onnx": "ONNX Runtime", "torch-export": "torch.export", "aoti": "AOTInductor"}


def exported(work: Workload, rounds: Rounds, formats: Sequence[Format]) -> dict[str, Any]:
    """Inference time of a batch on the CPU: the eager network, prepared (`tin.inference`), and exported, in turns.

    Args:
        work: float32, on the CPU. Frames are (N·T, 3, S, S) channels_last for the network and (N, T, 3, S, S), as lies in
            memory, for the files.
        rounds: warm-up and timed samples of each.
        formats: of `tin.export.export`. ONNX Runtime gets as many threads as PyTorch has.

    Returns:
        `settings` and `rows`: milliseconds, the ratio to eager. `difference` is the largest of a file's logits from eager's at
        1, 3 and 8 clips, else None.

    Raises:
        TinError: as `tin.export.export`.
    """
    network = work.build(work.arch).eval()
    frames = work.frames(work.batch_size)
    clips = frames.contiguous().unflatten(0, (work.batch_size, work.num_segments))
    size = (work.input_size, work.input_size)
    calls: dict[str, Callable[[], object]] = {
        "eager": partial(_eager, network, frames),
        "prepared": partial(prepare(network, frames), frames),
    }
    differences: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="tin-bench-export-") as folder:
        for format in formats:
            path = Path(folder) / f"{format}{SUFFIX[format]}"
            differences[NAMES[format]] = export(network, path, format, size=size).difference
            if format == "onnx":
                run = run_onnx(path, torch.get_num_threads())
            else:
                run = run_program(path, work.device) if format == "torch-export" else run_package(path, work.device)
            calls[NAMES[format]] = partial(run, clips)
        samples = time_in_turns(calls, work.device, rounds)
    rows = [
        row(name, "ms", times, ratios(times, samples["eager"]), "eager", scale=1e3, difference=differences.get(name))
        for name, times in samples.items()
    ]
    return {"settings": {**work.settings(rounds), "formats": list(formats)}, "rows": rows}


def _eager(network: torch.nn.Module, frames: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = network(frames)
    return logits
