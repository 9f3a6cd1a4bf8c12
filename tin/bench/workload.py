"""What a benchmark computes on: the network and its frames, chosen once for all rows of a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from tin.bench.timing import Rounds
from tin.models import TemporalResNet, build_model
from tin.models.interlace import TemporalInterlace, TemporalShift

AMP = {"float32": "off", "float16": "fp16", "bfloat16": "bf16"}
"""Mixed precision by the type that convolutions compute in."""


@dataclass(frozen=True)
class Workload:
    """What is computed: clips of `num_segments` random frames of input_size², channels_last, on one device.

    Attributes:
        arch: an architecture of `build_model`.
        batch_size: clips a step. `inference` always takes one.
        dtype: float32; or float16 or bfloat16, under autocast.
    """

    arch: str = "tin_resnet50"
    batch_size: int = 1
    num_segments: int = 8
    input_size: int = 224
    dtype: str = "float32"
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    num_classes: int = 400

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as PyTorch has it."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def settings(self, rounds: Rounds) -> dict[str, Any]:
        """For the result file."""
        return {**asdict(self), "device": str(self.device), **asdict(rounds)}

    def plain(self) -> str:
        """The architecture of the same depth without any temporal operation."""
        return f"tsn_{self.arch.partition('_')[2]}"

    def torchvision(self) -> str:
        """torchvision's own ResNet of this depth, by the name that `network` knows: what a user would have without this package."""
        return f"torchvision {self.arch.partition('_')[2]}"

    def build(self, arch: str) -> TemporalResNet:
        """The network on its device, channels_last, randomly initialised."""
        model = build_model(arch, self.num_classes, self.num_segments)
        return model.to(self.device, memory_format=torch.channels_last)

    def network(self, name: str) -> nn.Module:
        """`build(name)`, or for `torchvision()` that ResNet over all frames, its logits averaged over a clip's."""
        if name != self.torchvision():
            return self.build(name)
        resnet = getattr(torchvision.models, name.rpartition(" ")[2])(num_classes=self.num_classes)
        return _OverFrames(resnet, self.num_segments).to(self.device).to(memory_format=torch.channels_last)

    def frames(self, clips: int) -> Tensor:
        """(clips · T, 3, S, S) of noise, in the type that the loader would hand over."""
        shape = (clips * self.num_segments, 3, self.input_size, self.input_size)
        frames = torch.randn(shape, device=self.device, dtype=self.torch_dtype)
        return frames.contiguous(memory_format=torch.channels_last)

    def temporal_layers(self, arch: str) -> list[tuple[TemporalInterlace | TemporalShift, tuple[int, int, int]]]:
        """The temporal modules of `arch` on the meta device and the (C, H, W) that each sees, in the order of the network."""
        layers: list[tuple[TemporalInterlace | TemporalShift, tuple[int, int, int]]] = []

        def note(block: nn.Module, args: tuple[Tensor]) -> None:
            assert isinstance(block.tin, TemporalInterlace | TemporalShift)
            _, channels, height, width = args[0].shape
            layers.append((block.tin, (channels, height, width)))

        with torch.device("meta"), torch.no_grad():
            network = build_model(arch, 1, self.num_segments).eval()
            for module in network.modules():
                if isinstance(getattr(module, "tin", None), TemporalInterlace | TemporalShift):
                    module.register_forward_pre_hook(note)  # of the block: its input is what the module shifts
            network(torch.empty(self.num_segments, 3, self.input_size, self.input_size))
        return layers


class _OverFrames(nn.Module):
    def __init__(self, resnet: nn.Module, num_segments: int) -> None:
        super().__init__()
        self.resnet, self.num_segments = resnet, num_segments

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.resnet(frames)
        return logits.unflatten(0, (-1, self.num_segments)).mean(dim=1)
