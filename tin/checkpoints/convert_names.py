"""Our names of weights in the words of others: `names.plain_name` read backwards, for one network and one naming at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, get_args

Target = Literal["tin", "mmaction2", "tin-original", "torchvision", "safetensors"]
"""What a file can be written as. `tin-original` is the naming of the authors' TIN repository, and of TSM's for a TSM."""
TARGETS: tuple[Target, ...] = get_args(Target)
Kind = Literal["tin", "tsm", "tsn"]
KINDS: tuple[Kind, ...] = get_args(Kind)

NEEDS_KIND: tuple[Target, ...] = ("mmaction2", "tin-original")
"""Namings in which the first convolution of a block is called by what stands before it."""

_B = r"^(layer[1-4]\.\d+)"
_MMACTION2: tuple[tuple[str, str], ...] = (
    (rf"{_B}\.tin\.offset\.(conv|fc1|fc2)\.", r"backbone.\1.conv1.conv.net1.offset_net.\2."),
    (rf"{_B}\.tin\.gain\.conv\.", r"backbone.\1.conv1.conv.net1.weight_net.conv."),
    (rf"{_B}\.conv1\.", r"backbone.\1.conv1.conv.{net}"),
    (rf"{_B}\.conv([23])\.", r"backbone.\1.conv\2.conv."),
    (rf"{_B}\.bn([123])\.", r"backbone.\1.conv\2.bn."),
    (rf"{_B}\.downsample\.0\.", r"backbone.\1.downsample.conv."),
    (rf"{_B}\.downsample\.1\.", r"backbone.\1.downsample.bn."),
    (r"^conv1\.", "backbone.conv1.conv."),
    (r"^bn1\.", "backbone.conv1.bn."),
    (r"^fc\.", "cls_head.fc_cls."),
)
_AUTHORS: tuple[tuple[str, str], ...] = (
    (rf"{_B}\.tin\.offset\.conv\.", r"module.base_model.\1.conv1.net1.biasnet.net.conv."),
    (rf"{_B}\.tin\.offset\.fc1\.", r"module.base_model.\1.conv1.net1.biasnet.net.fc."),
    (rf"{_B}\.tin\.offset\.fc2\.", r"module.base_model.\1.conv1.net1.biasnet.net.lastlayer."),
    (rf"{_B}\.tin\.gain\.conv\.", r"module.base_model.\1.conv1.net1.weightnet.net.lastlayer."),
    (rf"{_B}\.conv1\.", r"module.base_model.\1.conv1.{net}"),
    (r"^(?!fc\.)", "module.base_model."),
    (r"^fc\.", "module.new_fc."),
)
_NET: dict[Kind, str] = {"tin": "net2.", "tsm": "net.", "tsn": ""}


def names_in(target: Target, names: Iterable[str], kind: Kind | None, *, bare_head: bool = False) -> dict[str, str]:
    """What a naming calls the weights of a network, by our names, in their order.

    Args:
        target: the naming.
        names: all of a network's, ours.
        kind: of the network; None is enough for namings outside NEEDS_KIND.
        bare_head: for the authors', that the classifier is the network's own, as where dropout was 0, and not a layer after it.
    """
    names = list(names)
    if target not in NEEDS_KIND:
        return {name: name for name in names}
    assert kind is not None
    rows = _MMACTION2 if target == "mmaction2" else _AUTHORS
    # TSM shifts every second block of every stage where layer3 has 23 blocks or more, both authors' and MMAction2's.
    step = 2 if kind == "tsm" and any(name.startswith("layer3.22.") for name in names) else 1
    renamed = {}
    for name in names:
        if bare_head and target == "tin-original" and name.startswith("fc."):
            renamed[name] = f"module.base_model.{name}"
            continue
        block = re.match(r"layer\d\.(\d+)\.", name)
        net = _NET[kind] if block and int(block[1]) % step == 0 else ""
        renamed[name] = _renamed(name, rows, net)
    return renamed


def _renamed(name: str, rows: tuple[tuple[str, str], ...], net: str) -> str:
    for pattern, replacement in rows:
        new, count = re.subn(pattern, replacement.replace("{net}", net), name, count=1)
        if count:
            return new
    raise ValueError(f"{name} is no name of a weight here")
