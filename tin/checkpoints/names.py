"""One table of the names that others give to our weights: MMAction2, the authors of TIN and TSM, torchvision."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tin.checkpoints.refusal import shown
from tin.errors import TinError

WRAPPERS = ("module.", "_orig_mod.", "base_model.", "backbone.")
"""Prefixes of DistributedDataParallel, torch.compile, the authors' repositories and MMAction2. They say nothing."""

_B = r"^(layer[1-4]\.\d+)"
_TIN = rf"{_B}\.conv1(?:\.conv)?\.net1"

RENAMES: tuple[tuple[str, str], ...] = (
    # MMAction2 TIN; then the authors' TIN
    (rf"{_TIN}\.offset_net\.(conv|fc1|fc2)\.", r"\1.tin.offset.\2."),
    (rf"{_TIN}\.weight_net\.conv\.", r"\1.tin.gain.conv."),
    (rf"{_TIN}\.biasnet\.net\.conv\.", r"\1.tin.offset.conv."),
    (rf"{_TIN}\.biasnet\.net\.fc\.", r"\1.tin.offset.fc1."),
    (rf"{_TIN}\.biasnet\.net\.lastlayer\.", r"\1.tin.offset.fc2."),
    (rf"{_TIN}\.weightnet\.net\.lastlayer\.", r"\1.tin.gain.conv."),
    # the convolution behind the shift: `net2` in TIN, `net` in TSM, of MMAction2 (in `conv1.conv`) and of the authors
    (rf"{_B}\.conv1(?:\.conv)?\.(?:net|net2)\.", r"\1.conv1."),
    # MMAction2's ConvModule: a convolution and its norm under one name
    (rf"{_B}\.downsample\.conv\.", r"\1.downsample.0."),
    (rf"{_B}\.downsample\.bn\.", r"\1.downsample.1."),
    (rf"{_B}\.conv([123])\.conv\.", r"\1.conv\2."),
    (rf"{_B}\.conv([123])\.bn\.", r"\1.bn\2."),
    (r"^conv1\.conv\.", "conv1."),
    (r"^conv1\.bn\.", "bn1."),
    # classifiers
    (r"^cls_head\.fc_cls\.", "fc."),
    (r"^new_fc\.", "fc."),
)
"""(pattern, replacement), tried in this order on a name without its wrappers; the first that fits is applied."""

_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in RENAMES]


def plain_name(name: str) -> str:
    """Our name for another system's: torchvision's ResNet names, `layerL.B.tin.…` and `fc.…`.

    A name that fits no row comes back without its wrappers; whether the model has it is for the caller to see.
    """
    name = _without(WRAPPERS, name)
    for pattern, replacement in _COMPILED:
        renamed, count = pattern.subn(replacement, name)
        if count:
            return renamed
    return name


def plain_names(names: Iterable[str], path: Path) -> dict[str, str]:
    """A file's names by ours.

    Raises:
        TinError: two of them mean the same weight.
    """
    found: dict[str, str] = {}
    for name in names:
        plain = plain_name(name)
        if plain in found:
            raise TinError(
                f"{path} holds {shown(plain)} twice, as {shown(found[plain])} and as {shown(name)}: keep one of them"
            )
        found[plain] = name
    return found


def naming_scheme(names: Iterable[str]) -> str:
    """Whose names these are, in words for a report."""
    names = [_without(("module.", "_orig_mod."), name) for name in names]
    temporal = "TIN" if any(".net1." in name for name in names) else ""
    if any(name.startswith(("backbone.", "cls_head.")) for name in names):
        return f"MMAction2 {temporal or ('TSM' if any('.conv.net.' in name for name in names) else 'TSN')}"
    if any(name.startswith("base_model.") for name in names):
        if temporal:
            return "the TIN authors' repository"
        return "the TSM repository" if any(".net." in name for name in names) else "the TSN repository"
    return "plain"


def _without(prefixes: tuple[str, ...], name: str) -> str:
    """The name behind any number of them; in one pass, since names come from files."""
    at = 0
    while prefix := next((prefix for prefix in prefixes if name.startswith(prefix, at)), ""):
        at += len(prefix)
    return name[at:]
