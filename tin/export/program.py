"""A network as a torch.export program, which all formats are made from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tin.inference import folded_copy
from tin.models import TemporalResNet

INPUT, OUTPUT, CLIPS = "frames", "logits", "clips"
"""Of every file: its input, its output, and the first dimension of both."""


def capture(
    network: TemporalResNet, size: tuple[int, int], dtype: torch.dtype, layout: torch.memory_format
) -> ExportedProgram:
    """The program frames (N, T, 3, H, W) float32 -> logits (N, num_classes) float32 for any N, with batch norms folded.

    Args:
        network: in evaluation mode, of `tin.build_model`; left as it is. The program is for its device.
        size: H and W, which are fixed.
        dtype: what convolutions and classifier compute in; offsets, gains and the mean over frames are float32.
        layout: of frames and weights inside, whatever that of the input is.

    Raises:
        TinError: as `tin.inference.folded_copy`.
    """
    folded = folded_copy(network, dtype).to(memory_format=layout)
    device = next(network.parameters()).device
    # 2 clips: of 1, torch.export would take for granted that it is always 1
    example = torch.zeros(2, network.num_segments, 3, *size, device=device)
    with torch.no_grad():
        return torch.export.export(
            _OfClips(folded, dtype, layout).eval(), (example,), dynamic_shapes={INPUT: {0: Dim(CLIPS)}}
        )


class _OfClips(nn.Module):
    """Clips have a dimension of their own: so that the first dimension of input and output is the batch, and any size of it right."""

    def __init__(self, network: TemporalResNet, dtype: torch.dtype, layout: torch.memory_format) -> None:
        super().__init__()
        self.network, self.dtype, self.layout = network, dtype, layout

    def forward(self, frames: Tensor) -> Tensor:
        flat = frames.flatten(0, 1).to(self.dtype).contiguous(memory_format=self.layout)
        logits: Tensor = self.network(flat)
        return logits
