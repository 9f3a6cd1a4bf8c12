"""What goes along with weights from one kind of file into another: the run they come from, and what others wrote beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tin.checkpoints.averages import ENVELOPES
from tin.checkpoints.convert_names import Target

RUN_KEYS = (
    "recipe",
    "label_names",
    "progress",
    "lists",
    "seed",
    "world_size",
    "global_batch",
    "versions",
    "git",
)
"""What a checkpoint of tin-cli train says about its run, beside what is needed to go on with it."""
CARRIED = "tin_video"
"""The key under which other programs' files keep what they have no place for, so that it comes back."""
_TRAINING = (
    "amp",
    "ema",
    "ema_state_dict",
    "format",
    "loader",
    "lr_scheduler",
    "message_hub",
    "optimizer",
    "param_schedulers",
    "rng",
    "scaler",
    "scheduler",
    "version",
)
"""What only serves to go on with training: it is about tensors by their place or name, and is left out."""


@dataclass
class Beside:
    """What stands in a file beside its weights, as far as it is plain values (what JSON holds).

    Attributes:
        arch: of `build_model`, where the file or its names say it.
        run: by RUN_KEYS, of a run of tin-cli train.
        source: what kind of file `others` comes from; None without.
        others: what another program wrote there.
        bare_head: see `convert_names.names_in`.
        left_out: what does not go along, by key.
    """

    arch: str | None = None
    run: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    others: dict[str, Any] = field(default_factory=dict)
    bare_head: bool = False
    left_out: list[str] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        """What goes along, in words for a report."""
        meta = self.others.get("meta")
        inner = [f"meta.{key}" for key in meta] if isinstance(meta, dict) else []
        return [*self.run, *inner, *(key for key in self.others if key != "meta" or not inner)]


def read_beside(state: Mapping[str, Any], scheme: Target, *, bare_head: bool = False) -> Beside:
    """Collect from a file what can go along.

    Args:
        state: of `load_state`.
        scheme: what kind of file it is.
        bare_head: see `Beside`.
    """
    found = Beside(bare_head=bare_head)
    carried = _carried(state)
    ours = isinstance(state.get("recipe"), Mapping)
    plain: dict[str, Any] = {}
    inner = any(isinstance(state.get(key), Mapping) for key in ENVELOPES)
    for key, value in state.items():
        if not inner and isinstance(value, Tensor):
            continue
        if key in _TRAINING:
            found.left_out.append(str(key))
        elif key not in (*ENVELOPES, CARRIED):
            kept = _plain(value, str(key), found.left_out)
            if kept is not _LOST:
                plain[key] = kept
    if carried is not None:
        found.run = carried_run(state)
        found.arch = _arch(found.run) or _text(carried.get("arch"))
        origin = carried.get("origin")
    else:
        found.run = {key: plain.pop(key) for key in RUN_KEYS if ours and key in plain}
        found.arch = _arch(found.run) or (_text(plain.pop("arch", None)) if scheme == "tin" else None)
        origin = plain.pop("origin", None) if scheme == "tin" else None
        if origin is None and plain:
            origin = {"source": scheme, "others": plain, "bare_head": bare_head}
    if isinstance(origin, Mapping):
        found.source, found.others = _text(origin.get("source")), dict(_mapping(origin.get("others")))
        found.bare_head = bool(origin.get("bare_head"))
    if _mapping(_mapping(found.run.get("recipe")).get("model")).get("dropout") == 0:
        found.bare_head = True
    return found


def carried_run(state: Mapping[str, Any]) -> dict[str, Any]:
    """What a conversion kept of a run of tin-cli train, by RUN_KEYS; empty where there is nothing.

    Args:
        state: of `load_state`.
    """
    run = _mapping(_mapping(_carried(state)).get("run"))
    return {key: run[key] for key in RUN_KEYS if key in run} if isinstance(run.get("recipe"), Mapping) else {}


def envelope(target: Target, weights: Mapping[str, Any], beside: Beside) -> dict[str, Any]:
    """The content of a file of that kind; for safetensors `state_dict` and `metadata`, texts by name."""
    restored = beside.others if beside.source == target else {}
    if target == "torchvision":
        return dict(weights)
    if target == "tin":
        origin = _origin(beside)
        arch = {"arch": beside.arch} if beside.arch and not beside.run.get("recipe") else {}
        return {"state_dict": dict(weights), **arch, **beside.run, **({"origin": origin} if origin else {})}
    carried = _to_carry(beside, target)
    if target == "safetensors":
        texts = {"format": "pt"} | {key: str(text) for key, text in _mapping(restored.get("metadata")).items()}
        return {
            "state_dict": dict(weights),
            "metadata": texts | {name: json.dumps(value) for name, value in carried.items()},
        }
    if target == "mmaction2":
        return restored | {"meta": dict(_mapping(restored.get("meta"))) | carried, "state_dict": dict(weights)}
    progress = _mapping(beside.run.get("progress"))
    best = _mapping(progress.get("best")).get("top1_acc")
    own = {
        "epoch": progress.get("epoch", 0),
        "arch": f"resnet{(beside.arch or '').partition('resnet')[2]}",
        "best_prec1": 100.0 * best if isinstance(best, float) else 0.0,
    }
    return own | restored | {"state_dict": dict(weights)} | carried


def _origin(beside: Beside) -> dict[str, Any]:
    if not beside.source:
        return {}
    return {"source": beside.source, "others": beside.others, "bare_head": beside.bare_head}


def _to_carry(beside: Beside, target: Target) -> dict[str, Any]:
    """One entry, or none where the file itself says everything."""
    names_tell = target != "safetensors" or not (beside.arch or "").startswith(("tsm", "tsn"))
    if beside.source == target and not beside.run and names_tell:
        return {}
    return {CARRIED: {"arch": beside.arch, "run": beside.run, "origin": _origin(beside)}}


def _carried(state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What an earlier conversion put under CARRIED."""
    for place in (state, state.get("meta"), state.get("metadata")):
        value = _mapping(place).get(CARRIED)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                continue
        if isinstance(value, Mapping):
            return value
    return None


def _arch(run: Mapping[str, Any]) -> str | None:
    return _text(_mapping(_mapping(run.get("recipe")).get("model")).get("arch"))


def _mapping(value: Any) -> Mapping[str, Any]:
    """Files hold what their writers like."""
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


_LOST = object()


def _plain(value: Any, where: str, lost: list[str]) -> Any:
    """What JSON can hold of a value; the keys of what it cannot go to `lost`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple):
        kept = [_plain(item, f"{where}[{i}]", lost) for i, item in enumerate(value)]
        return [item for item in kept if item is not _LOST]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        items = {key: _plain(item, f"{where}.{key}", lost) for key, item in value.items() if key != CARRIED}
        return {key: item for key, item in items.items() if item is not _LOST}
    lost.append(where)
    return _LOST
