"""torchvision's ResNet with a temporal module before each block's first convolution, averaged over a clip's frames."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from tin.eager import watched
from tin.errors import TinError, unknown_name
from tin.joins import Relay, join
from tin.models.interlace import TIN_SHIFT_DIV, TSM_SHIFT_DIV, NoInterlace, TemporalInterlace, TemporalShift
from tin.norms import rectified
from tin.residual import Branches

ARCHITECTURES = tuple(f"{kind}_resnet{depth}" for kind in ("tin", "tsm", "tsn") for depth in (18, 34, 50, 101))


def build_model(
    arch: str,
    num_classes: int,
    num_segments: int = 8,
    dropout: float = 0.5,
    shift_div: int | None = None,
) -> TemporalResNet:
    """Build a network for clips of `num_segments` frames, randomly initialised.

    Args:
        arch: `{tin,tsm,tsn}_resnet{18,34,50,101}`: TIN learns its shifts, TSM shifts by one frame, TSN not at all.
        num_classes: size of the logits.
        num_segments: T, the frames of a clip.
        dropout: probability before the classifier (the recipes use 0.8 for Something-Something, 0.5 for Kinetics).
        shift_div: one channel in `shift_div` is shifted (TSM: each way). None: 4 for TIN, 8 for TSM, as in the papers.

    Returns:
        A module with forward(frames (N·T, 3, H, W), any memory format) -> logits (N, num_classes), at least float32.
        Parameter names are torchvision's, plus `layerL.B.tin.*` for TIN.

    Raises:
        TinError: a name or a number that cannot be, with the valid ones.
    """
    if arch not in ARCHITECTURES:
        raise unknown_name("architecture", arch, ARCHITECTURES)
    return TemporalResNet(arch, num_classes, num_segments, dropout, shift_div)


class TemporalResNet(ResNet):
    """A ResNet over frames whose residual branches may look at neighbouring frames; use `build_model`.

    Attributes:
        arch, num_classes, num_segments, shift_div (None for TSN): as given, or the default that was filled in.
    """

    def __init__(self, arch: str, num_classes: int, num_segments: int, dropout: float, shift_div: int | None) -> None:
        _check(arch, num_classes, num_segments, dropout, shift_div)
        kind, _, depth = arch.partition("_resnet")
        block, blocks = _LAYOUT[int(depth)]
        super().__init__(block, list(blocks), num_classes=num_classes)
        self.arch = arch
        self.num_classes = num_classes
        self.num_segments = num_segments
        self.shift_div = shift_div if shift_div is not None else _DEFAULT_SHIFT_DIV[kind]
        for name in ("layer1", "layer2", "layer3", "layer4"):
            setattr(self, name, Stage(*getattr(self, name)))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.fc.weight, std=0.001)
        nn.init.zeros_(self.fc.bias)
        self._insert_temporal_modules(kind)

    def forward(self, frames: Tensor) -> Tensor:
        """Logits (N, num_classes) of clips given as frames (N·T, 3, H, W), clip by clip in time order.

        Raises:
            TinError: the frames have another rank, not three channels, or are no whole number of clips.
        """
        if frames.dim() != 4 or frames.shape[1] != 3:
            raise TinError(f"frames must be (clips · {self.num_segments}, 3, height, width); got {tuple(frames.shape)}")
        if frames.shape[0] == 0 or frames.shape[0] % self.num_segments:
            raise TinError(
                f"{frames.shape[0]} frames are no whole number of clips of {self.num_segments}: "
                f"give a multiple of num_segments, or build the model with the loader's num_segments"
            )
        x = self.maxpool(rectified(self.conv1, self.bn1, self.relu, frames))
        given = Relay() if _is_fresh(self.maxpool) else None
        x = _in_turn((self.layer1, self.layer2, self.layer3, self.layer4), x, given)
        x = torch.flatten(self.avgpool(x), 1)
        logits = self.fc(self.dropout(x))
        logits = logits.view(-1, self.num_segments, self.num_classes)
        # The mean is worth its float32: in bfloat16 close classes would tie.
        return logits.mean(dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))

    def _insert_temporal_modules(self, kind: str) -> None:
        if kind == "tsn":
            return
        shift_div = self.shift_div
        assert shift_div is not None
        # TSM's authors shift every second block of every stage once layer3 has 23 blocks or more (ResNet-101), and
        # MMAction2 after them: published weights are trained so. TIN interlaces every block at any depth.
        step = 2 if kind == "tsm" and len(self.layer3) >= 23 else 1
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in list(stage)[::step]:
                channels = block.conv1.in_channels
                block.tin = (
                    TemporalInterlace(channels, self.num_segments, shift_div)
                    if kind == "tin"
                    else TemporalShift(channels, self.num_segments, shift_div)
                )


class TemporalBasicBlock(BasicBlock):
    """torchvision's BasicBlock (ResNet-18, -34) whose residual branch starts with the child `tin`."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.tin: nn.Module = NoInterlace()

    def forward(self, x: Tensor, given: Relay | None = None, asked: Relay | None = None) -> Tensor:
        """`given`: from the block before, which nobody else stands behind; `asked`: to the next."""
        branch, identity, fold = _branches(self, x, given)
        branch = rectified(self.conv1, self.bn1, self.relu, branch)
        return join(self.conv2, self.bn2, branch, identity, fold, asked)


class TemporalBottleneck(Bottleneck):
    """torchvision's Bottleneck (ResNet-50, -101) whose residual branch starts with the child `tin`."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.tin: nn.Module = NoInterlace()

    def forward(self, x: Tensor, given: Relay | None = None, asked: Relay | None = None) -> Tensor:
        """`given`: from the block before, which nobody else stands behind; `asked`: to the next."""
        branch, identity, fold = _branches(self, x, given)
        branch = rectified(self.conv1, self.bn1, self.relu, branch)
        branch = rectified(self.conv2, self.bn2, self.relu, branch)
        return join(self.conv3, self.bn3, branch, identity, fold, asked)


class Stage(nn.Sequential):
    """The blocks of one resolution."""

    def forward(self, x: Tensor, given: Relay | None = None, asked: Relay | None = None) -> Tensor:
        """As a block's."""
        return _in_turn(self, x, given, asked)


def _in_turn(parts: Iterable[nn.Module], x: Tensor, given: Relay | None, asked: Relay | None = None) -> Tensor:
    """Stages, or a stage's blocks, one after another. What one gives to the next is theirs alone, unless somebody watches."""
    parts = list(parts)
    for part, following in zip_longest(parts, parts[1:]):
        if _hands_over(part):
            relay = asked if following is None else Relay(_asked_by(following))
            x = part(x, given, relay)
            given = relay
        else:
            x, given = part(x), None
    return x


def _asked_by(part: nn.Module) -> int:
    """Of how many channels a stage or block wants the means (`Relay.fold`)."""
    if isinstance(part, Stage):
        return _asked_by(part[0]) if len(part) > 0 and not watched(part) else 0
    if not isinstance(part, TemporalBasicBlock | TemporalBottleneck) or watched(part):
        return 0
    return part.tin.fold if isinstance(part.tin, TemporalInterlace) else 0


def _hands_over(part: nn.Module) -> bool:
    """Whether a stage or block keeps nothing of what it takes and makes, and nobody else does. One that is wrapped (to compute
    it again in the backward pass, say) may."""
    if watched(part):
        return False
    if isinstance(part, Stage):
        return len(part) > 0 and _hands_over(part[-1])
    return isinstance(part, TemporalBasicBlock | TemporalBottleneck)


def _is_fresh(maxpool: nn.Module) -> bool:
    """Whether nobody else has what the stem gives to the first block."""
    return type(maxpool) is nn.MaxPool2d and not watched(maxpool)


def _branches(block: TemporalBasicBlock | TemporalBottleneck, x: Tensor, given: Relay | None) -> Branches:
    """What the temporal module gives to the convolutions, and the shortcut."""
    shortcut = block.downsample
    if shortcut is None:
        found: Branches = block.tin(x, given)
        return found
    if isinstance(block.tin, NoInterlace) or watched(*shortcut.modules()):
        given = None
    if given is not None and not torch.is_grad_enabled():
        identity = shortcut(x)  # first: x may be overwritten after it
        return Branches(block.tin(x, given, None).branch, identity)
    if given is not None and _picks_pixels(shortcut):
        # What its convolution keeps for the backward pass are the pixels that it reads, so that x may be overwritten.
        branch, identity, _ = block.tin(x, given, shortcut[0].stride[0])
        return Branches(branch, shortcut[1](nn.functional.conv2d(identity, shortcut[0].weight, shortcut[0].bias)))
    branch, identity, _ = block.tin(x)  # the shortcut's convolution keeps x
    return Branches(branch, shortcut(identity))


def _picks_pixels(shortcut: nn.Module) -> bool:
    """Whether it is torchvision's: a convolution that reads every second pixel alone, and a norm."""
    if type(shortcut) is not nn.Sequential or len(shortcut) != 2 or type(shortcut[0]) is not nn.Conv2d:
        return False
    convolution = shortcut[0]
    return (
        convolution.kernel_size == (1, 1)
        and convolution.stride[0] == convolution.stride[1] > 1
        and convolution.padding == (0, 0)
        and convolution.groups == 1
    )


_LAYOUT = {
    18: (TemporalBasicBlock, (2, 2, 2, 2)),
    34: (TemporalBasicBlock, (3, 4, 6, 3)),
    50: (TemporalBottleneck, (3, 4, 6, 3)),
    101: (TemporalBottleneck, (3, 4, 23, 3)),
}
_DEFAULT_SHIFT_DIV: dict[str, int | None] = {"tin": TIN_SHIFT_DIV, "tsm": TSM_SHIFT_DIV, "tsn": None}


def _check(arch: str, num_classes: int, num_segments: int, dropout: float, shift_div: int | None) -> None:
    """Refuse numbers that no network can have."""
    if num_classes < 1:
        raise TinError(f"num_classes must be at least 1; got {num_classes}")
    if num_segments < 1:
        raise TinError(f"num_segments must be at least 1; got {num_segments}")
    if not 0 <= dropout < 1:
        raise TinError(f"dropout must be at least 0 and less than 1; got {dropout}")
    if shift_div is not None and arch.startswith("tsn"):
        raise TinError(f"{arch} shifts nothing: leave shift_div out, or choose a tin or tsm architecture")
    if shift_div is not None and shift_div < 1:
        raise TinError(f"shift_div must be at least 1; got {shift_div}")
