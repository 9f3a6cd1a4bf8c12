"""Where a network starts: published weights, found or fetched, or a file of the user's."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from tin.checkpoints import LoadReport, load_checkpoint
from tin.checkpoints.segments import Segments
from tin.errors import TinError, unknown_name
from tin.models import ARCHITECTURES, TemporalResNet
from tin.zoo import Published, fetch, find, published
from tin.zoo.download import Progress

TSM = "tsm_r50_k400"
"""What `tsm` stands for: MMAction2's TSM-R50 of Kinetics-400, which its TIN recipe for that data set starts from."""


def imagenet(arch: str) -> Path:
    """The file with torchvision's ImageNet weights (V1, as the TIN and TSM recipes have it) for `arch`; see `tin.zoo.fetch`.

    Args:
        arch: an architecture of `build_model`, as `tin_resnet50`.

    Raises:
        TinError: unknown architecture, a damaged file, or no network and no file: says which file to place where.
    """
    if arch not in ARCHITECTURES:
        raise unknown_name("architecture", arch, ARCHITECTURES)
    return fetch(_named("imagenet", arch))


def tsm(arch: str) -> Path:
    """The file with MMAction2's TSM weights of Kinetics-400, as `imagenet`.

    Args:
        arch: an architecture of `build_model`; only ResNet-50 ones have such weights.

    Raises:
        TinError: as `imagenet`, or an architecture of another depth.
    """
    return fetch(_named("tsm", arch))


def load_pretrained(
    model: TemporalResNet,
    source: str | os.PathLike[str],
    *,
    segments: Segments = "refuse",
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> LoadReport:
    """Start `model` from other weights; what it has and they do not (TIN modules, another classifier) stays as initialised.

    Args:
        model: from `build_model`.
        source: "imagenet", "tsm", a name of `tin.zoo.published()`, or the path of a checkpoint in any naming that
            `tin.load_checkpoint` knows (`./NAME` where a file has the name of published weights).
        segments: see `tin.load_checkpoint`.
        progress, say: see `tin.zoo.fetch`.

    Returns:
        What was loaded, what is new, what was dropped. Print it.

    Raises:
        TinError: published weights of another depth, what `tin.zoo.fetch` and `tin.load_checkpoint` raise, or neither a file
            nor a name.
    """
    name = os.fspath(source)
    if name in ("imagenet", "tsm", *published()):
        return load_checkpoint(model, fetch(_named(name, model.arch), progress=progress, say=say), segments=segments)
    if os.sep not in name and not Path(name).exists():
        near = difflib.get_close_matches(name.lower(), ["imagenet", "tsm", *published()], n=1, cutoff=0.6)
        if near:
            raise TinError(
                f"there is no checkpoint {name}, and no published weights of that name: did you mean '{near[0]}'? "
                f"tin-cli zoo list shows them"
            )
    return load_checkpoint(model, name, segments=segments)


def _named(name: str, arch: str) -> Published:
    """The published file that `name` stands for with a network `arch`, which must be of the same depth."""
    kind, _, depth = arch.partition("_resnet")
    if name == "imagenet":
        return find(f"resnet{depth}_imagenet")
    found = find(TSM if name == "tsm" else name)
    if found.depth != int(depth):
        raise TinError(
            f"--pretrained {name}: the published weights are of ResNet-{found.depth}, not {arch}; "
            f"choose {kind}_resnet{found.depth}, or pass a file of your own"
        )
    return found
