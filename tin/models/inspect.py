"""Looks into a model: the shifts it has learned, block by block, and where its multiply-adds are."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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


@torch.no_grad()
def learned_shifts(model: TemporalResNet, frames: Tensor) -> list[BlockShift]:
    """The offsets and gains that every TIN block computes for `frames` (N·T, 3, H, W), in the order of the network.

    The model runs once in evaluation mode and gets its own mode back. Empty for TSM and TSN, which learn no shift.
    """
    found: list[BlockShift] = []

    def record(name: str) -> object:
        def hook(module: nn.Module, args: tuple[Tensor]) -> None:
            assert isinstance(module, TemporalInterlace)
            offsets, gains = module.offsets_and_gains(args[0])
            found.append(BlockShift(name, offsets.cpu(), gains.cpu()))

        return hook

    handles = [
        module.register_forward_pre_hook(record(name.removesuffix(".tin")))  # type: ignore[arg-type]
        for name, module in model.named_modules()
        if isinstance(module, TemporalInterlace)
    ]
    training = model.training
    try:
        model.eval()(frames)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return found


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
