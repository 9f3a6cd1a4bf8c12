"""Whether an exported file says what the network says."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tin.errors import TinError
from tin.models import TemporalResNet

BATCHES = (1, 3, 8)
"""Clips at a time: one, and numbers that no kernel is made for or that all are."""
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2}
"""Largest difference of a logit, as a part of the largest logit; in float32 also the largest difference itself, so that networks
with logits of any size are held to what float32 can do."""

Run = Callable[[Tensor], Tensor]
"""frames (N, T, 3, H, W) float32 on the CPU -> logits (N, num_classes) on the CPU."""


def check_parity(run: Run, network: TemporalResNet, size: tuple[int, int], dtype: torch.dtype) -> float:
    """The largest difference between the logits of an exported file and of the eager network in float32.

    Batches of 1, 3 and 8 clips, made so that frames differ in their means and offsets with them.

    Args:
        run: the file.
        network: what was exported, in evaluation mode.
        size: H and W.
        dtype: what the file computes in.

    Raises:
        TinError: the difference is more than TOLERANCE allows, or a logit is not finite.
    """
    device = next(network.parameters()).device
    worst = 0.0
    for clips in BATCHES:
        frames = _frames(clips, network.num_segments, size)
        flat = frames.flatten(0, 1).to(device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected = network(flat).float().cpu()
        actual = run(frames)
        if actual.shape != expected.shape:
            raise TinError(
                f"the exported file gives logits of shape {tuple(actual.shape)}, the network {tuple(expected.shape)}"
            )
        difference, largest = (actual - expected).abs().max().item(), expected.abs().max().item()
        limit = TOLERANCE[dtype] * (largest if dtype != torch.float32 else min(1.0, largest))
        if not math.isfinite(difference) or difference > limit:
            raise TinError(
                f"the exported file differs from the network: by {difference:.3g} in logits of up to {largest:.3g} at {clips} clips, "
                f"where {limit:.3g} is allowed; no file was written"
            )
        worst = max(worst, difference)
    return worst


def _frames(clips: int, num_segments: int, size: tuple[int, int]) -> Tensor:
    """Always the same (N, T, 3, H, W): patches of light and dark that change from frame to frame, and noise."""
    draw = torch.Generator().manual_seed(clips)
    coarse = torch.randn(clips * num_segments, 3, 4, 4, generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    frames = smooth + 0.3 * torch.randn(smooth.shape, generator=draw)
    return frames.unflatten(0, (clips, num_segments))
