"""The temporal-interlace op at every shape of a network, against a copy of the same bytes and its PyTorch reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tin import ops
from tin.bench.networks import Workload
from tin.bench.timing import Rounds, median_ratio, row, time_in_turns
from tin.models import build_model
from tin.models.interlace import TemporalInterlace

MIN_SECONDS = 2e-3
"""Of one sample: far above a kernel launch and the clock's grain."""

Inputs = tuple[Tensor, Tensor, Tensor]


def op(work: Workload, rounds: Rounds) -> dict[str, Any]:
    """Forward and backward of `temporal_interlace` at each layer shape of TIN with `work.arch`'s depth, channels_last.

    Bytes are the least that must move: forward reads x and writes the result; backward reads the gradient and the
    shifted part of x (for the gradients of offset and gain) and writes the gradient of x.

    Returns:
        `settings` and `rows`. `ratio` is time / time in which `Tensor.copy_` moves as many bytes; beside it `gb_per_s`, `bytes`,
        `blocks` (how many of the network have the shape) and `reference_ratio` (time of the PyTorch reference / time).
    """
    rows = []
    for (channels, height, width), blocks in layer_shapes(work).items():
        shape = (work.batch_size * work.num_segments, channels, height, width)
        fold = channels // 4
        inputs = _inputs(work, shape)
        size = inputs[0].numel() * inputs[0].element_size()
        for what, make, moved in (
            ("forward", _forward, 2 * size),
            ("backward", _backward, 2 * size + size * fold // channels),
        ):
            calls = {
                "op": make(ops.temporal_interlace, inputs, work.num_segments),
                "copy": _copy(inputs[0].detach()),
                "reference": make(ops.temporal_interlace_reference, inputs, work.num_segments),
            }
            samples = time_in_turns(calls, work.device, rounds, MIN_SECONDS)
            copy = [seconds * moved / (2 * size) for seconds in samples["copy"]]
            rows.append(
                row(
                    f"{what} {channels}×{height}×{width}", "ms", samples["op"], median_ratio(samples["op"], copy),
                    "copy of the same bytes", scale=1e3, bytes=moved, blocks=blocks,
                    gb_per_s=moved / sorted(samples["op"])[rounds.runs // 2] / 1e9,
                    copy_gb_per_s=moved / sorted(copy)[rounds.runs // 2] / 1e9,
                    reference_ratio=median_ratio(samples["reference"], samples["op"]),
                )
            )  # fmt: skip
    return {"settings": work.settings(rounds), "rows": rows}


def layer_shapes(work: Workload) -> Counter[tuple[int, int, int]]:
    """(C, H, W) at which the op runs in TIN of this depth, and in how many blocks; in the order of the network."""
    shapes: Counter[tuple[int, int, int]] = Counter()

    def note(module: nn.Module, args: tuple[Tensor]) -> None:
        _, channels, height, width = args[0].shape
        shapes[channels, height, width] += 1

    with torch.device("meta"), torch.no_grad():
        network = build_model(f"tin_{work.arch.partition('_')[2]}", 1, work.num_segments).eval()
        for module in network.modules():
            if isinstance(module, TemporalInterlace):
                module.register_forward_pre_hook(note)
        network(torch.empty(work.num_segments, 3, work.input_size, work.input_size))
    return shapes


def _inputs(work: Workload, shape: tuple[int, int, int, int]) -> Inputs:
    """x in the workload's type, offsets spread over (-2, 2) frames, gains around one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, device=work.device, dtype=getattr(torch, work.dtype))
    offset = 4 * torch.rand(work.batch_size, 4, generator=generator) - 2
    weight = 0.5 + torch.rand(work.batch_size, work.num_segments, 4, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last)
    return x.requires_grad_(), offset.to(work.device).requires_grad_(), weight.to(work.device).requires_grad_()


def _copy(x: Tensor) -> Callable[[], object]:
    target = torch.empty_like(x)
    return lambda: target.copy_(x)


def _forward(function: Callable[..., Tensor], inputs: Inputs, num_segments: int) -> Callable[[], object]:
    def call() -> Tensor:
        with torch.no_grad():
            return function(*inputs, num_segments)

    return call


def _backward(function: Callable[..., Tensor], inputs: Inputs, num_segments: int) -> Callable[[], object]:
    out = function(*inputs, num_segments)
    grad = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True)
