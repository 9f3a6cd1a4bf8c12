"""Looks into a model: the shifts it has learned, block by block, and where its multiply-adds are."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tin.models.interlace import TemporalInterlace
from tin.models.resnet import TemporalResNet


@dataclass(frozen=True)
class BlockShift:
    """What one block's TIN module does with the clips it was shown.

    Attributes:
        name: the block, as in `layer3.4`.
        offsets: (N, 2), frames, in (-2, 2), float32 or wider; the other two channel groups take their negatives.
        gains: (N, T, 2), the factors on the shifted frames, in (0, 2).
    """

    name: str
    offsets: Tensor
    gains: Tensor

    def __str__(self) -> str:
        mean, low, high = self.offsets.mean(0), self.offsets.amin(0), self.offsets.amax(0)
        shifts = "  ".join(f"{mean[i]:+.3f} ({low[i]:+.3f} … {high[i]:+.3f})" for i in range(2))
        return f"{self.name:<10} offsets {shifts}  gain {self.gains.mean():.3f}"


class OffsetProbe:
    """Watches what the TIN blocks of a model decide while it runs: a context manager around one or more forward passes.

    The model's numbers stay the same to the bit. What is seen stays on the device until `shifts` is asked for, so watching
    waits for nothing. A compiled model does not call its blocks; watch the one that was compiled.

    Args:
        model: any module with TIN blocks inside; without, nothing is seen.
        clips: the probe lets go of the model once it has seen so many; None watches to the end.
    """

    def __init__(self, model: nn.Module, clips: int | None = None) -> None:
        self._model, self._clips = model, clips
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._handles: dict[str, RemovableHandle] = {}

    def __enter__(self) -> Self:
        for name, module in self._model.named_modules():
            if isinstance(module, TemporalInterlace):
                block = name.removesuffix(".tin")
                self._handles[block] = module.register_forward_pre_hook(_Watcher(self, block))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()

    def shifts(self) -> list[BlockShift]:
        """What was seen, a block each in the order of the network, on the CPU; waits for the device."""
        return [
            BlockShift(block, *(torch.cat(parts).cpu() for parts in zip(*seen, strict=True)))
            for block, seen in self._seen.items()
        ]

    def _saw(self, block: str, offsets: Tensor, gains: Tensor) -> None:
        seen = self._seen.setdefault(block, [])
        seen.append((offsets, gains))
        if self._clips is not None and sum(len(offsets) for offsets, _ in seen) >= self._clips:
            self._handles.pop(block).remove()


@torch.no_grad()
def learned_shifts(model: TemporalResNet, frames: Tensor) -> list[BlockShift]:
    """The offsets and gains that every TIN block computes for `frames` (N·T, 3, H, W), in the order of the network.

    The model runs once in evaluation mode and gets its own mode back. Empty for TSM and TSN, which learn no shift.
    """
    training = model.training
    try:
        with OffsetProbe(model) as probe:
            model.eval()(frames)
    finally:
        model.train(training)
    return probe.shifts()


def multiply_adds(model: TemporalResNet, input_size: int = 224) -> dict[str, int]:
    """Multiply-adds of one clip of `num_segments` frames of input_size², by convolution and linear layer.

    Nothing is computed: a copy of the model runs on the meta device. Norms, pooling and the shift itself are not
    counted (mmcv's counter, behind MMAction2's published figure, adds norms, ReLU and pooling).
    """
    counts: dict[str, int] = {}

    def record(name: str) -> object:
        def hook(module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
            counts[name] = out.numel() * module.weight[0].numel()  # type: ignore[index]

        return hook

    def record_convolutions_in_time(name: str) -> object:  # TemporalInterlace computes them in one product, uncalled
        def hook(module: TemporalInterlace, args: tuple[Tensor]) -> None:
            for net in ("offset", "gain"):
                conv = module.get_submodule(f"{net}.conv")
                assert isinstance(conv, nn.Conv1d)
                counts[f"{name}.{net}.conv"] = module.num_segments * conv.weight.numel()

        return hook

    shadow = copy.deepcopy(model).to("meta").eval()
    for name, module in shadow.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(record(name))  # type: ignore[arg-type]
        elif isinstance(module, TemporalInterlace):
            module.register_forward_pre_hook(record_convolutions_in_time(name))  # type: ignore[arg-type]
    with torch.no_grad():
        shadow(torch.empty(model.num_segments, 3, input_size, input_size, device="meta"))
    return counts


class _Watcher:
    """Asks a block's networks what they will decide, before the block itself does."""

    keeps_nothing = True
    """Of the input: the block goes on as if nobody watched it (`tin.eager.watched`), with the same kernels and the same bits."""

    def __init__(self, probe: OffsetProbe, block: str) -> None:
        self._probe, self._block = probe, block

    @torch.no_grad()
    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(module, TemporalInterlace)
        self._probe._saw(self._block, *module.offsets_and_gains(args[0]))
