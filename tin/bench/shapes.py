"""The temporal-interlace op at every shape of a network, against a copy of the same bytes and the other ways to compute it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tin import ops
from tin.bench.peers import two_shifts_and_blend
from tin.bench.timing import Rounds, median_ratio, ratios, row, time_in_turns
from tin.bench.workload import Workload

MIN_SECONDS = 2e-3
"""Of one sample: far above a kernel launch and the clock's grain."""

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

Inputs = tuple[Tensor, Tensor, Tensor]
Function = Callable[..., Tensor]
Make = Callable[[Function, Inputs, int], Callable[[], object]]


def op(
    work: Workload,
    rounds: Rounds,
    *,
    layouts: Sequence[str] = ("channels_last",),
    skip_compiled: str | None = None,
) -> dict[str, Any]:
    """Forward and backward of `temporal_interlace` at each layer shape of TIN with `work.arch`'s depth.

    Bytes are the least that must move: forward reads x and writes the result; backward reads the gradient and the
    shifted part of x (for the gradients of offset and gain) and writes the gradient of x. Beside these two, the forms
    that the network uses: `in place` copies the shifted part of x and writes it shifted into x (CPU), and `both
    gradients` is backward that adds the identity's gradient and, on a CPU, sets to zero what the ReLU before lets no gradient
    through, which would otherwise be passes of their own.

    Args:
        work: depth, clips, frame size, type and device.
        rounds: warm-up and samples of each figure.
        layouts: of `LAYOUTS`, each a row of its own.
        skip_compiled: why the reference is not timed under torch.compile; None: it is.

    Returns:
        `settings` and `rows`. `ratio` is time / time in which `Tensor.copy_` moves as many bytes; beside it `gb_per_s`,
        `bytes`, `layout`, `blocks` (how many of the network have the shape), and the time of other ways / time of the op:
        `reference_ratio` (PyTorch), `compiled_ratio` (that under torch.compile; None with the reason in `compiled_skipped`)
        and `peers_ratio` (`tin.bench.peers`).
    """
    rows = []
    for shape, blocks in layer_shapes(work).items():
        for layout in layouts:
            inputs = _inputs(work, shape, layout)
            suffix = f" {'×'.join(map(str, shape))}" + (f", {layout}" if layout != "channels_last" else "")
            for what, make in (("forward", _forward), ("backward", _backward)):
                line = _row(work, rounds, what + suffix, make, inputs, skip_compiled)
                rows.append({**line, "layout": layout, "blocks": blocks})
            if layout == "channels_last" and ops.has_native(work.device.type):
                rows += [
                    {**line, "layout": layout, "blocks": blocks} for line in _in_network(work, rounds, suffix, inputs)
                ]
    return {"settings": {**work.settings(rounds), "layouts": list(layouts)}, "rows": rows}


def layer_shapes(work: Workload) -> Counter[tuple[int, int, int]]:
    """(C, H, W) at which the op runs in TIN of this depth, and in how many blocks; in the order of the network."""
    return Counter(shape for _, shape in work.temporal_layers(f"tin_{work.arch.partition('_')[2]}"))


def _in_network(work: Workload, rounds: Rounds, suffix: str, inputs: Inputs) -> list[dict[str, Any]]:
    """Rows of the forms that `tin.residual` uses, without the other ways to compute them."""
    x, offset, weight = (tensor.detach().clone() for tensor in inputs)
    size, fold, segments = x.numel() * x.element_size(), x.shape[1] // 4, work.num_segments
    kept, grad, passed = x[:, :fold].clone(memory_format=torch.channels_last), torch.randn_like(x), torch.randn_like(x)
    signs = torch.randint(256, (x.numel() // 8,), dtype=torch.uint8, device=x.device)

    def in_place() -> None:
        torch.ops.tin.temporal_interlace_(x, offset, weight, segments, fold // 4, True)

    def both() -> object:
        return torch.ops.tin.temporal_interlace_backward(
            grad, kept, offset, weight, segments, True, True, True, fold // 4, passed
        )

    def both_masked() -> object:
        return torch.ops.tin.split_backward(grad, kept, offset, weight, segments, fold // 4, passed, 1, signs)

    part = size * fold // x.shape[1]
    forms: list[tuple[str, Callable[[], object], int]]
    if work.device.type == "cpu":
        masked = fold % 8 == 0 and x.shape[2] * x.shape[3] > 1  # else the network leaves that to the join
        forms = [("in place", in_place, 3 * part)]
        forms += [("both gradients", both_masked if masked else both, 3 * size + part + masked * signs.numel())]
    else:
        forms = [("both gradients", both, 3 * size + part)]
    rows = []
    for name, call, moved in forms:
        samples = time_in_turns({"op": call, "copy": _copy(x)}, work.device, rounds, MIN_SECONDS)
        rows.append(_line(name + suffix, samples, size, moved))
    return rows


def _line(name: str, samples: dict[str, list[float]], size: int, moved: int, **more: Any) -> dict[str, Any]:
    """A row: the op's time against the time in which `copy_`, which reads and writes `size` bytes, would move `moved`."""
    copy = [seconds * moved / (2 * size) for seconds in samples["copy"]]
    return row(
        name, "ms", samples["op"], ratios(samples["op"], copy),
        "copy of the same bytes", scale=1e3, bytes=moved, megabytes=moved / 1e6,
        gb_per_s=moved / float(np.median(samples["op"])) / 1e9,
        copy_gb_per_s=moved / float(np.median(copy)) / 1e9,
        **more,
    )  # fmt: skip


def _row(
    work: Workload, rounds: Rounds, name: str, make: Make, inputs: Inputs, skip_compiled: str | None
) -> dict[str, Any]:
    x, segments = inputs[0], work.num_segments
    size = x.numel() * x.element_size()
    moved = 2 * size if make is _forward else 2 * size + size * (x.shape[1] // 4) // x.shape[1]
    calls = {
        "op": make(ops.temporal_interlace, inputs, segments),
        "copy": _copy(x.detach()),
        "reference": make(ops.temporal_interlace_reference, inputs, segments),
        "peers": make(two_shifts_and_blend, inputs, segments),
    }
    compiled = skip_compiled or _compiled(make, inputs, segments)
    if not isinstance(compiled, str):
        calls["compiled"] = compiled
    samples = time_in_turns(calls, work.device, rounds, MIN_SECONDS)
    return _line(
        name, samples, size, moved,
        reference_ratio=median_ratio(samples["reference"], samples["op"]),
        compiled_ratio=median_ratio(samples["compiled"], samples["op"]) if "compiled" in samples else None,
        compiled_skipped=compiled if isinstance(compiled, str) else None,
        peers_ratio=median_ratio(samples["peers"], samples["op"]),
    )  # fmt: skip


def _inputs(work: Workload, shape: tuple[int, int, int], layout: str) -> Inputs:
    """x in the workload's type, offsets spread over (-2, 2) frames, gains around one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(work.batch_size * work.num_segments, *shape, device=work.device, dtype=work.torch_dtype)
    offset = 4 * torch.rand(work.batch_size, 4, generator=generator) - 2
    weight = 0.5 + torch.rand(work.batch_size, work.num_segments, 4, generator=generator)
    x = x.contiguous(memory_format=LAYOUTS[layout])
    return x.requires_grad_(), offset.to(work.device).requires_grad_(), weight.to(work.device).requires_grad_()


def _copy(x: Tensor) -> Callable[[], object]:
    target = torch.empty_like(x)
    return lambda: target.copy_(x)


def _forward(function: Function, inputs: Inputs, num_segments: int) -> Callable[[], object]:
    def call() -> Tensor:
        with torch.no_grad():
            return function(*inputs, num_segments)

    return call


def _backward(function: Function, inputs: Inputs, num_segments: int) -> Callable[[], object]:
    out = function(*inputs, num_segments)
    grad = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True)


def _compiled(make: Make, inputs: Inputs, num_segments: int) -> Callable[[], object] | str:
    """The reference compiled for just these inputs, or why it could not be."""
    torch.compiler.reset()  # each shape and direction is a graph of its own; the compiler gives up after eight
    function = torch.compile(ops.temporal_interlace_reference, dynamic=False)
    try:
        # its backward runs often, so nothing that it reads may be overwritten
        with torch._functorch.config.patch(donated_buffer=False):
            call = make(function, inputs, num_segments)
            call()
    except torch._dynamo.exc.TorchDynamoException as error:
        return f"torch.compile does not work here: {str(error).strip().splitlines()[0]}"
    return call
