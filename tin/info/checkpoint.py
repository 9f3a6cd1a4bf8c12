"""What a checkpoint file is: whose, of which network, how far trained, made by what."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tin.checkpoints import load_state
from tin.checkpoints.averages import ENVELOPES
from tin.checkpoints.names import naming_scheme, plain_name
from tin.errors import TinError
from tin.evaluation import file_sha256
from tin.train.state import FORMAT

_DEPTHS: dict[tuple[tuple[int, ...], bool], int] = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}
"""By the blocks of each stage, and whether they are bottlenecks."""

_OF_RUN = ("progress", "recipe", "label_names", "lists", "seed", "world_size", "global_batch", "versions", "git")


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """What is known about a file of weights; any that `tin.load_checkpoint` takes, and others by their names.

    Nothing but tensors and plain values is unpickled.

    Returns:
        Always `path`, `bytes`, `sha256`. Of a file that cannot be read, or only by running its code, further `unreadable`: the reason.
        Else `kind` (words), `names` (whose naming of the weights, in words), `network` (`arch` and its numbers, as far as names and shapes
        tell; None where the weights are of no ResNet), `weights` (`tensors`, `parameters`, `bytes`, `dtypes`), `ema` (`updates`, `tensors`;
        None without averages), and what the file says beside its weights: of a checkpoint of tin-cli `version`, `optimizer` (whether it
        has its state) and the keys of `tin.train.state.snapshot`; of others `beside`, its short plain values by key.

    Raises:
        TinError: there is no such file.
    """
    if not path.is_file():
        raise TinError(f"there is no checkpoint {path}: check the path")
    facts: dict[str, Any] = {"path": str(path), "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    try:
        state = load_state(path)
    except TinError as error:
        return facts | {"unreadable": str(error)}
    held = next((state[key] for key in ENVELOPES if isinstance(state.get(key), Mapping)), state)
    weights = {str(name): value for name, value in held.items() if isinstance(value, Tensor)}
    if not weights:
        return facts | {
            "unreadable": f"holds no weights; its keys are {', '.join(map(str, list(state)[:8])) or 'none'}"
        }
    ours = state.get("format") == FORMAT and isinstance(state.get("recipe"), Mapping)
    network = _network(weights)
    facts |= {
        "kind": "training checkpoint of tin-cli" if ours else "weights",
        "names": "tin-cli" if ours else _whose(weights, network),
        "network": network,
        "weights": _sizes(weights),
        "ema": _ema(state.get("ema")),
    }
    if ours:
        if network is not None:  # names alone do not tell a TSM from a TSN
            network["arch"] = state["recipe"]["model"]["arch"]
        facts |= {"version": state.get("version"), "optimizer": bool(state.get("optimizer"))}
        return facts | {key: state.get(key) for key in _OF_RUN}
    return facts | {"beside": {} if held is state else _plain_values(state)}


def _whose(weights: Mapping[str, Tensor], network: Mapping[str, Any] | None) -> str:
    scheme = naming_scheme(weights)
    if scheme != "plain":
        return scheme
    if network is None:
        return "unknown"
    return "tin-cli" if str(network["arch"]).startswith("tin") else "torchvision"


def _network(weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    plain = {plain_name(name): value.shape for name, value in weights.items()}
    blocks = {tuple(name.split(".")[:2]) for name in plain if name.startswith("layer")}
    stages = tuple(sum(stage == f"layer{number}" for stage, _ in blocks) for number in (1, 2, 3, 4))
    depth = _DEPTHS.get((stages, "layer1.0.conv3.weight" in plain))
    if depth is None:
        return None
    scheme = naming_scheme(weights)
    if any(".tin." in name for name in plain):
        kind = "tin"
    elif "TSM" in scheme or "TSN" in scheme:
        kind = "tsm" if "TSM" in scheme else "tsn"
    else:  # the shift has no weights, and plain names do not tell where one is
        kind = "tsm or tsn"
    offset, fc = plain.get("layer1.0.tin.offset.fc1.weight"), plain.get("fc.weight")
    return {
        "arch": " or ".join(f"{word}_resnet{depth}" for word in kind.split(" or ")),
        "num_classes": fc[0] if fc else None,
        "num_segments": offset[1] if offset else None,
    }


def _sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    learned = {name: value for name, value in weights.items() if not _is_statistic(name)}
    return {
        "tensors": len(weights),
        "parameters": sum(value.numel() for value in learned.values()),
        "bytes": sum(value.numel() * value.element_size() for value in weights.values()),
        "dtypes": dict(Counter(str(value.dtype).removeprefix("torch.") for value in weights.values())),
    }


def _is_statistic(name: str) -> bool:
    """Of a batch norm: kept with the weights, but not learned."""
    return name.endswith((".running_mean", ".running_var", ".num_batches_tracked"))


def _ema(ema: Any) -> dict[str, int] | None:
    if not isinstance(ema, Mapping) or not isinstance(ema.get("averages"), Mapping):
        return None
    return {"updates": ema.get("updates", 0), "tensors": len(ema["averages"])}


def _plain_values(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Short values of a foreign file by their keys, those of one level of dicts too, such as MMAction2's `meta`."""
    plain: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            value = str(value)
        if isinstance(value, bool | int | float | None) or (isinstance(value, str) and len(value) <= 200):
            plain[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping) and not prefix and key not in (*ENVELOPES, "optimizer"):
            plain |= _plain_values(value, f"{key}.")
    return plain
