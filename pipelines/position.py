"""Where a loader stands, as a few plain numbers, and whether they are of the order that another loader has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pipelines.annotations import VideoList
from pipelines.errors import DataError

_VERSION = 1
_WHAT = {
    "list": "of another list (or its lines, labels or their order have changed)",
    "seed": "of another seed",
    "training": "of the other mode, training or testing",
    "global_batch": "of another global batch (batch_size × world_size), and with repeats a batch belongs together",
    "repeats": "of another number of repeats",
    "class_balanced": "of another class balance",
}


def list_digest(video_list: VideoList) -> str:
    """Changes with the paths, labels or order of a list, not with the root that its paths are relative to."""
    digest = hashlib.sha256()
    for entry in video_list.entries:
        digest.update(f"{entry.id}\n{entry.label}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def pack(order: Mapping[str, Any], epoch: int, sample: int) -> dict[str, Any]:
    """The state of a loader: `order` says what decides the sequence of samples; `sample` of them, over all ranks, are done."""
    return {"version": _VERSION, **order, "epoch": epoch, "sample": sample}


def unpack(state: Mapping[str, Any], order: Mapping[str, Any]) -> tuple[int, int]:
    """(epoch, sample) of a state, for a loader with the order `order`.

    The global batch decides the sequence of samples only where each holds its videos several times; elsewhere, and at the start
    of an epoch, it may be another.

    Raises:
        DataError: it is no state of a loader, or of another order; the message says which part differs.
    """
    missing = [key for key in ("version", *order, "epoch", "sample") if key not in state]
    if missing or state["version"] != _VERSION:
        raise DataError(f"this is no state of a loader: {', '.join(missing) or 'its version'} is not as it should be")
    epoch, sample = int(state["epoch"]), int(state["sample"])
    free = {"global_batch"} if order["repeats"] == 1 or sample == 0 else set()
    for key, ours in order.items():
        if key not in free and state[key] != ours:
            values = "" if key == "list" else f": {key} {state[key]!r}, here {ours!r}"
            raise DataError(
                f"the loader's state is {_WHAT[key]}{values}. Go on with the same, or start the epoch anew with set_epoch"
            )
    return epoch, sample
