"""The two temporal modules that a residual block may call before its first convolution: TIN's and TSM's."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from tin.eager import watched
from tin.errors import TinError
from tin.joins import Relay
from tin.residual import Branches, pixels, pooled, split, split_by_nets

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

    def forward(self, x: Tensor, given: Relay | None = None, stride: int | None = 1) -> Branches:
        """(N·T, C, H, W) -> what the residual branch takes, of the same shape, dtype and memory format, and what the identity
        takes.

        Args:
            given: by the join that made x. Nobody else will read x then, so its memory may be used (`tin.residual.split`), unless
                somebody watches this module.
            stride: the identity is wanted at every `stride`-th pixel alone; None: not at all.
        """
        owned = given is not None and not watched(self)
        weights = self._weights()
        if weights is not None:
            means = given.means if given is not None else None
            both = split_by_nets(x, self.fold, weights, self.num_segments, owned, stride, means)
            if both is not None:
                return both
        offset, gain = self.offsets_and_gains(x)
        offset, gain = torch.cat([offset, -offset], dim=1), torch.cat([gain, gain], dim=2)
        return split(x, offset, gain, self.num_segments, self.fold, owned, stride)

    def offsets_and_gains(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the networks say for this clip: offsets (N, 2) in frames and gains (N, T, 2).

        Computed in float32 at least, also under autocast.
        """
        descriptor = pooled(x[:, : self.fold])
        with _without_autocast(descriptor.device.type):
            # A model that was cast whole to half precision has half-precision weights here too.
            windows = _windows(descriptor.view(-1, self.num_segments, self.fold).to(self.gain.conv.weight.dtype))
            # Both convolutions read the same windows: one product for the three of their output channels.
            kernels = torch.cat([self.offset.conv.weight, self.gain.conv.weight])
            biases = torch.cat([_bias(self.offset.conv), _bias(self.gain.conv)])
            channels = torch.nn.functional.linear(windows, kernels.transpose(1, 2).flatten(1), biases)
            offset, gain = self.offset(channels[..., 0]), self.gain(channels[..., 1:])
            return offset.to(descriptor.dtype), gain.to(descriptor.dtype)

    def _weights(self) -> list[Tensor] | None:
        """The networks' for the kernels; None where somebody watches them, or has put other layers in their place."""
        # Their dictionaries: each attribute of a Module costs a microsecond or more, and this runs in every block.
        offset, gain = self._modules["offset"], self._modules["gain"]
        assert offset is not None
        assert gain is not None
        inner = offset._modules
        layers: list[nn.Module] = []
        weights: list[Tensor] = []
        for layer in (inner["conv"], gain._modules["conv"], inner["fc1"], inner["fc2"]):
            if type(layer) is not nn.Conv1d and type(layer) is not nn.Linear:
                return None
            layers.append(layer)
            weights += [p for p in layer._parameters.values() if p is not None]
        return weights if len(weights) == 8 and not watched(offset, gain, *layers) else None

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

    def forward(self, x: Tensor, given: Relay | None = None, stride: int | None = 1) -> Branches:
        """As `TemporalInterlace.forward`."""
        clips = x.shape[0] // self.num_segments
        offset = self.offset.expand(clips, -1)
        gain = self.gain.expand(clips, self.num_segments, -1)
        owned = given is not None and not watched(self)
        return split(x, offset, gain, self.num_segments, 2 * self.fold, owned, stride)

    def extra_repr(self) -> str:
        return f"num_segments={self.num_segments}, fold={self.fold}"


class NoInterlace(nn.Module):
    """The plain ResNet's: both branches take x. No parameters."""

    def forward(self, x: Tensor, given: Relay | None = None, stride: int | None = 1) -> Branches:
        return Branches(x, pixels(x, stride or 1))


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Autocast off, on devices that have it; the meta device, on which layers are counted, has not."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _windows(descriptor: Tensor) -> Tensor:
    """(N, T, fold) -> (N, T, 3·fold): each frame between its neighbours, zeros outside. A product with it is a convolution of
    kernel 3, without the tens of microseconds that a convolution this small costs to set up, forward and backward."""
    padded = torch.nn.functional.pad(descriptor, (0, 0, 1, 1))
    return torch.cat([padded[:, :-2], descriptor, padded[:, 2:]], dim=2)


def _bias(layer: nn.Conv1d | nn.Linear) -> Tensor:
    assert layer.bias is not None
    return layer.bias
