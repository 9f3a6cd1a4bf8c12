"""The two temporal modules that a residual block may call before its first convolution: TIN's and TSM's."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tin.errors import TinError
from tin.ops import temporal_interlace

TIN_SHIFT_DIV = 4
TSM_SHIFT_DIV = 8


class TemporalInterlace(nn.Module):
    """Shifts groups of channels in time by offsets that two small networks read from the clip itself.

    The first `fold = channels // shift_div` channels are cut in four equal groups, shifted by (o0, o1, -o0, -o1) frames
    and scaled by (g0, g1, g0, g1); the others pass unchanged. Temporal Interlacing Network (AAAI 2020,
    arXiv 2001.06499) section 3; formulas and initialisation as in the authors' code and MMAction2.

    Args:
        channels: C of the input.
        num_segments: T, the frames of a clip.
        shift_div: C // shift_div channels are shifted.

    Raises:
        TinError: C // shift_div is not a positive multiple of four.
    """

    def __init__(self, channels: int, num_segments: int, shift_div: int = TIN_SHIFT_DIV) -> None:
        super().__init__()
        fold = channels // shift_div
        if fold == 0 or fold % 4:
            raise TinError(
                f"shift_div {shift_div} leaves {fold} of {channels} channels to shift, and TIN cuts them in four equal "
                f"groups: choose a shift_div that makes {channels} // shift_div a multiple of 4 (the paper's is 4)"
            )
        self.num_segments = num_segments
        self.fold = fold
        self.offset = OffsetNet(fold, num_segments)
        self.gain = GainNet(fold)

    def forward(self, x: Tensor) -> Tensor:
        """(N·T, C, H, W) -> the same shape, dtype and memory format."""
        x, descriptor = pass_and_pool(x, self.fold)
        offset, gain = self._offsets_and_gains(descriptor)
        offset = torch.cat([offset, -offset], dim=1)
        gain = torch.cat([gain, gain], dim=2)
        return temporal_interlace(x, offset, gain, self.num_segments, group_size=self.fold // 4)

    def offsets_and_gains(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the networks say for this clip: offsets (N, 2) in frames and gains (N, T, 2).

        Computed in float32 at least, also under autocast: rounded to half precision, a pooled mean loses the small
        differences between frames that the offsets are read from.
        """
        return self._offsets_and_gains(pass_and_pool(x, self.fold)[1])

    def _offsets_and_gains(self, descriptor: Tensor) -> tuple[Tensor, Tensor]:
        with _without_autocast(descriptor.device.type):
            # A model that was cast whole to half precision has half-precision weights here too.
            windows = _windows(descriptor.view(-1, self.num_segments, self.fold).to(self.gain.conv.weight.dtype))
            # Both convolutions read the same windows: one product for the three of their output channels.
            kernels = torch.cat([self.offset.conv.weight, self.gain.conv.weight])
            biases = torch.cat([_bias(self.offset.conv), _bias(self.gain.conv)])
            channels = torch.nn.functional.linear(windows, kernels.transpose(1, 2).flatten(1), biases)
            offset, gain = self.offset(channels[..., 0]), self.gain(channels[..., 1:])
            return offset.to(descriptor.dtype), gain.to(descriptor.dtype)

    def extra_repr(self) -> str:
        return f"num_segments={self.num_segments}, fold={self.fold}"


class OffsetNet(nn.Module):
    """What its convolution makes of the descriptor (N, T) -> two offsets (N, 2) in frames, each in (-2, 2); they start near 0.5.

    The convolution itself is done by TemporalInterlace, with GainNet's in one product.
    """

    def __init__(self, fold: int, num_segments: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(fold, 1, kernel_size=3, padding=1)
        self.fc1 = nn.Linear(num_segments, num_segments)
        self.fc2 = nn.Linear(num_segments, 2)
        # The authors' value: sigmoid(0.5108) = 0.625 makes half a frame, so both neighbours learn from the first step.
        nn.init.constant_(self.fc2.bias, 0.5108)

    def forward(self, channel: Tensor) -> Tensor:
        hidden = torch.relu(self.fc1(channel))
        return 4 * (torch.sigmoid(self.fc2(hidden)) - 0.5)


class GainNet(nn.Module):
    """What its convolution makes of the descriptor (N, T, 2) -> two gains a frame, each in (0, 2); they start near 1."""

    def __init__(self, fold: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(fold, 2, kernel_size=3, padding=1)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)

    def forward(self, channels: Tensor) -> Tensor:
        return 2 * torch.sigmoid(channels)


class TemporalShift(nn.Module):
    """Takes C // shift_div channels from the next frame and the following C // shift_div from the previous one.

    Frames outside the clip read as zero. TSM (ICCV 2019, arXiv 1811.08383): TIN's operation with the constant offsets
    (-1, +1) and gain 1. No parameters.

    Args:
        channels: C of the input.
        num_segments: T, the frames of a clip.
        shift_div: C // shift_div channels are shifted each way.

    Raises:
        TinError: there are fewer than two groups of C // shift_div channels.
    """

    offset: Tensor
    gain: Tensor

    def __init__(self, channels: int, num_segments: int, shift_div: int = TSM_SHIFT_DIV) -> None:
        super().__init__()
        fold = channels // shift_div
        if fold == 0 or 2 * fold > channels:
            raise TinError(
                f"shift_div {shift_div} does not leave two groups of {channels} channels to shift; "
                f"choose one from 2 to {channels} (the paper's is 8)"
            )
        self.num_segments = num_segments
        self.fold = fold
        # Constants, not state: they follow the module to its device, and checkpoints keep torchvision's names alone.
        self.register_buffer("offset", torch.tensor([[-1.0, 1.0]]), persistent=False)
        self.register_buffer("gain", torch.ones(1, 1, 2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N·T, C, H, W) -> the same shape, dtype and memory format."""
        clips = x.shape[0] // self.num_segments
        offset = self.offset.expand(clips, -1)
        gain = self.gain.expand(clips, self.num_segments, -1)
        return temporal_interlace(x, offset, gain, self.num_segments, group_size=self.fold)

    def extra_repr(self) -> str:
        return f"num_segments={self.num_segments}, fold={self.fold}"


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Autocast off, on devices that have it; the meta device, on which layers are counted, has not."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def pass_and_pool(x: Tensor, fold: int) -> tuple[Tensor, Tensor]:
    """x itself, and the mean over H and W of its first `fold` channels, in float32 at least: (N·T, fold).

    Read x from here on through the first result: the gradient of the mean is then added, in place, to the one that comes
    back through it. Left to autograd, the mean of a slice costs a zeroed tensor of x's size and an addition of two.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        passed, pooled = _PassAndPool.apply(x, fold)
        return passed, pooled
    return x, _pool(x, fold)


class _PassAndPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, fold: int) -> tuple[Tensor, Tensor]:
        ctx.fold, ctx.pixels = fold, x.shape[2] * x.shape[3]
        return x.view_as(x), _pool(x, fold)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, pooled_grad: Tensor) -> tuple[Tensor, None]:
        # `grad` is fresh from the one op that reads `passed`; nobody else sees it.
        grad[:, : ctx.fold] += (pooled_grad / ctx.pixels).to(grad.dtype)[:, :, None, None]
        return grad, None


def _pool(x: Tensor, fold: int) -> Tensor:
    return x[:, :fold].mean(dim=(2, 3), dtype=torch.promote_types(x.dtype, torch.float32))


def _windows(descriptor: Tensor) -> Tensor:
    """(N, T, fold) -> (N, T, 3·fold): each frame between its neighbours, zeros outside. A product with it is a convolution of
    kernel 3, without the tens of microseconds that a convolution this small costs to set up, forward and backward."""
    padded = torch.nn.functional.pad(descriptor, (0, 0, 1, 1))
    return torch.cat([padded[:, :-2], descriptor, padded[:, 2:]], dim=2)


def _bias(conv: nn.Conv1d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
