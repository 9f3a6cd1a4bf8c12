"""Where the shift may stand before a bottleneck's first convolution: each form's time and the bytes that it moves.

    python -m benchmarks.shift_forms --threads 2 --out benchmarks/results/shift-forms.json

Every form begins with the join of the block before, as in the network, and ends with the 1×1 convolution; the yardstick is the same without
a shift. In training the gradients of the block's input, which the identity has too, and of the convolution's weight follow.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tin.allocator import keep_freed_memory
from tin.bench.machine import describe
from tin.bench.records import new_record, write_record
from tin.bench.shapes import MIN_SECONDS, layer_shapes
from tin.bench.timing import Rounds, ratios, row, time_in_turns
from tin.bench.workload import Workload
from tin.joins import join
from tin.ops import temporal_interlace
from tin.residual import Branches, split


@dataclass(frozen=True)
class Block:
    """What a block takes, and its first convolution: x is (N·T, C, H, W), channels_last."""

    made: Tensor
    """By the last convolution of the block before."""
    passed: Tensor
    """By its identity: x is relu(norm(made) + passed)."""
    norm: nn.Module
    convolution: nn.Conv2d
    offset: Tensor
    gain: Tensor
    num_segments: int

    @classmethod
    def build(cls, work: Workload, shape: tuple[int, int, int], training: bool) -> Block:
        generator = torch.Generator().manual_seed(0)
        channels = shape[0]

        def frames() -> Tensor:
            noise = torch.randn(work.batch_size * work.num_segments, *shape, generator=generator)
            there = noise.to(work.device, work.torch_dtype, memory_format=torch.channels_last)
            return there.requires_grad_(training)

        convolution = nn.Conv2d(channels, max(channels // 4, 64), 1, bias=False).to(work.device, work.torch_dtype)
        norm = nn.BatchNorm2d(channels).to(work.device).train() if training else nn.Identity()
        offset = 4 * torch.rand(work.batch_size, 4, generator=generator) - 2
        gain = 0.5 + torch.rand(work.batch_size, work.num_segments, 4, generator=generator)
        return cls(
            frames(), frames(), norm, convolution.requires_grad_(training),
            offset.to(work.device), gain.to(work.device), work.num_segments,
        )  # fmt: skip

    @property
    def fold(self) -> int:
        return self.made.shape[1] // 4


def no_shift(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    return block.convolution(x), x


def copied(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    return block.convolution(temporal_interlace(x, block.offset, block.gain, block.num_segments)), x


def copied_and_gathered(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    return _split(block, x, False)


def in_place(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    return _split(block, x, True)


def in_place_and_product(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    branches = split(x, block.offset, block.gain, block.num_segments, block.fold, owned=True)
    return _as_frames(_pixels(branches.branch) @ _matrix(block).T, branches.branch), branches.identity


def two_products(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    made, passed = _TwoProducts.apply(x, _matrix(block), block.offset, block.gain, block.num_segments)
    return made, passed


def two_convolutions(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    fold, weight = block.fold, block.convolution.weight
    shifted = temporal_interlace(x[:, :fold], block.offset, block.gain, block.num_segments, group_size=fold // 4)
    made = F.conv2d(shifted, weight[:, :fold])
    return made.add_(F.conv2d(x[:, fold:], weight[:, fold:])), x


class Form(NamedTuple):
    compute: Callable[[Block, Tensor], tuple[Tensor, Tensor]]
    """Of a block and x: what its first convolution makes, and what its identity reads."""
    inference: tuple[float, float] | None
    """Bytes moved beyond the block without a shift, in those of the block's input and of what the convolution makes: (C, C')."""
    training: tuple[float, float] | None
    """None: not timed in training."""


IN_PLACE = ("in place", "in place, then a product")
FORMS = {
    "no shift": Form(no_shift, (0, 0), (0, 0)),
    "copied": Form(copied, (2, 0), (4, 0)),
    "copied, gradients together": Form(copied_and_gathered, None, (2, 0)),
    IN_PLACE[0]: Form(in_place, (0.75, 0), (-1.25, 0)),
    IN_PLACE[1]: Form(in_place_and_product, (0.75, 0), (-1.25, 0)),
    "two products": Form(two_products, (1, 2), (1, 2)),
    "two convolutions": Form(two_convolutions, (2.5, 4), None),
}
"""The bytes are counted by the table in docs/op.md. After a shift in place one pass of 3 C takes the place of the sum with the identity's
gradient (3 C) and of the mask (2 C), elsewhere of the sum alone. The two products copy the moved quarter out and shift the copy (twice
½ C), and the second is added to the first (2 C'). oneDNN's convolutions copy the rest too (1½ C), and are added up afterwards (4 C')."""


def forms(work: Workload, rounds: Rounds, *, training: bool) -> list[dict[str, Any]]:
    """Rows, milliseconds: every form at every layer shape of `work`, ratio to the block without a shift.

    Beside it `extra_bytes`, moved beyond that block.
    """
    rows, what = [], "training" if training else "inference"
    for shape in layer_shapes(work):
        block = Block.build(work, shape, training)
        calls: dict[str, Callable[[], object]] = {}
        extra: dict[str, tuple[float, float]] = {}
        for name, form in FORMS.items():
            wanted = form.training if training else form.inference
            if wanted is not None and (work.device.type == "cpu" or name not in IN_PLACE):
                calls[name] = partial(_train if training else _infer, block, form)
                extra[name] = wanted
        samples = time_in_turns(calls, work.device, rounds, MIN_SECONDS)
        size = block.made.numel() * block.made.element_size()
        for name in calls:
            of_input, of_made = extra[name]
            rows.append(row(
                f"{what} {'×'.join(map(str, shape))}, {name}", "ms", samples[name], ratios(samples[name], samples["no shift"]),
                "no shift", scale=1e3, what=what, form=name, shape=list(shape),
                extra_bytes=round(size * (of_input + of_made * block.convolution.out_channels / shape[0])),
            ))  # fmt: skip
    return rows


def _split(block: Block, x: Tensor, owned: bool) -> tuple[Tensor, Tensor]:
    branches: Branches = split(x, block.offset, block.gain, block.num_segments, block.fold, owned=owned)
    return block.convolution(branches.branch), branches.identity


class _TwoProducts(torch.autograd.Function):
    """The shifted fold times its rows of the weight, and the rest, read in place, times the others."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, offset: Tensor, gain: Tensor, num_segments: int
    ) -> tuple[Tensor, Tensor]:
        fold = x.shape[1] // 4
        shifted = temporal_interlace(x[:, :fold], offset, gain, num_segments, group_size=fold // 4)
        made = _pixels(shifted) @ weight[:, :fold].T
        made.addmm_(_pixels(x)[:, fold:], weight[:, fold:].T)
        ctx.num_segments = num_segments
        ctx.save_for_backward(x, shifted, weight, offset, gain)
        return _as_frames(made, x), x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, passed: Tensor) -> tuple[Tensor | None, ...]:
        x, shifted, weight, offset, gain = ctx.saved_tensors
        fold, of_made = shifted.shape[1], _pixels(grad)
        of_weight = torch.cat([of_made.T @ _pixels(shifted), of_made.T @ _pixels(x)[:, fold:]], dim=1)
        of_shifted = _as_frames(of_made @ weight, x)
        of_x = torch.ops.tin.temporal_interlace_backward(
            of_shifted, of_shifted, offset, gain, ctx.num_segments, True, False, False, fold // 4, passed
        )[0]
        return of_x, of_weight, None, None, None


def _pixels(x: Tensor) -> Tensor:
    """(N, C, H, W), channels_last -> (N·H·W, C), the same memory."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _as_frames(made: Tensor, like: Tensor) -> Tensor:
    """(N·H·W, C') -> (N, C', H, W), the same memory."""
    return made.unflatten(0, (like.shape[0], *like.shape[2:])).permute(0, 3, 1, 2)


def _matrix(block: Block) -> Tensor:
    return block.convolution.weight.flatten(1)


def _joined(block: Block) -> Tensor:
    return join(nn.Identity(), block.norm, block.made, block.passed)


@torch.no_grad()
def _infer(block: Block, form: Form) -> object:
    return form.compute(block, _joined(block))


def _train(block: Block, form: Form) -> object:
    outputs = form.compute(block, _joined(block))
    inputs = [block.made, block.passed, block.convolution.weight]
    return torch.autograd.grad(outputs, inputs, [output.detach() for output in outputs])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="tin_resnet50")
    parser.add_argument(
        "--input-size", type=int, default=224, help="side of a frame in inference, of 1 clip (default 224)"
    )
    parser.add_argument("--train-size", type=int, default=112, help="in training, of 2 clips (default 112)")
    parser.add_argument("--threads", type=int, help="CPU threads of PyTorch")
    parser.add_argument("--runs", type=int, default=31, help="timed samples of each figure (default 31)")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    rounds, work = Rounds(3, options.runs), Workload(options.arch, input_size=options.input_size)
    trained = replace(work, batch_size=2, input_size=options.train_size)
    rows = forms(work, rounds, training=False) + forms(trained, rounds, training=True)
    for line in rows:
        print(
            f"{line['name']:58} {line['median']:8.3f} ms × {line['ratio']:.3f}   {line['extra_bytes'] / 1e6:+8.2f} MB"
        )
    if options.out:
        settings = {**work.settings(rounds), "train_batch_size": 2, "train_input_size": options.train_size}
        result = {"shift_forms": {"settings": settings, "rows": rows}}
        command = shlex.join(["python", "-m", "benchmarks.shift_forms", *sys.argv[1:]])
        write_record(options.out, new_record(describe(work.device), command, result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
