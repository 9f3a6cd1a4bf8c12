"""Which weights of a file are meant, where it has two sets of them: the optimiser's, and their moving averages (EMA)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from tin.checkpoints.refusal import shown
from tin.errors import TinError

ENVELOPES = ("model", "state_dict")
"""Keys under which training programs put the weights: MMAction2's, the authors' and ours are `state_dict`."""

Weights = Literal["auto", "ema", "raw"]
"""Which weights of a file that has their moving averages (EMA) too: the averages where there are any, those, or the others."""


def find_weights(state: Mapping[str, Any], path: Path, wanted: Weights) -> tuple[dict[str, Tensor], bool]:
    """The weights by the file's names, and whether they are averages.

    Averages are found where this project, MMEngine (MMAction2 1.x) and MMCV (MMAction2 0.x) put them. Both of the latter save
    the averages under the weights' own names and the optimiser's weights elsewhere, so that their files test as they should.

    Args:
        state: from `load_state`.
        path: for messages.

    Raises:
        TinError: there are no weights, or no averages where they are wanted.
    """
    held = next((state[key] for key in ENVELOPES if isinstance(state.get(key), Mapping)), state)
    weights = _tensors(held)
    if not weights:
        found = ", ".join(shown(key) for key in list(state)[:6]) or "nothing"
        raise TinError(
            f"{path} holds no weights: expected tensors, or a dict of them under {' or '.join(ENVELOPES)}; found {found}"
        )
    for sets in (_ours, _of_mmengine, _of_mmcv):
        if found_sets := sets(state, weights):
            averages, raw = found_sets
            return (raw, False) if wanted == "raw" else (averages, True)
    if wanted == "ema":
        raise TinError(f'{path} holds no averaged (EMA) weights: it was trained without them; load it with "raw"')
    return weights, False


_Sets = tuple[dict[str, Tensor], dict[str, Tensor]]
"""The averages, and the optimiser's weights."""


def _ours(state: Mapping[str, Any], weights: dict[str, Tensor]) -> _Sets | None:
    ema = state.get("ema")
    averages = ema.get("averages") if isinstance(ema, Mapping) else None
    if not isinstance(averages, Mapping):
        return None
    return weights | _tensors(averages), weights  # what is not averaged, as counters, is the network's own


def _of_mmengine(state: Mapping[str, Any], weights: dict[str, Tensor]) -> _Sets | None:
    """EMAHook exchanges the two while it saves: `ema_state_dict`, of an averaged model with the network as `module`, has the
    optimiser's."""
    other = state.get("ema_state_dict")
    if not isinstance(other, Mapping) or "steps" not in other:
        return None
    raw = {name: value for name, value in _tensors(other).items() if name.startswith("module.")}
    return (weights, raw) if raw else None


def _of_mmcv(state: Mapping[str, Any], weights: dict[str, Tensor]) -> _Sets | None:
    """EMAHook keeps the other set in buffers `ema_` + the parameter's name with underscores, and exchanges the two at the end
    of every epoch, before the checkpoint, and back at the beginning of the next."""
    twins = {name: f"ema_{name.replace('.', '_')}" for name in weights}
    twins = {name: twin for name, twin in twins.items() if twin in weights}
    if not twins:
        return None
    averages = {name: value for name, value in weights.items() if name not in set(twins.values())}
    return averages, averages | {name: weights[twin] for name, twin in twins.items()}


def _tensors(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, Tensor)}
