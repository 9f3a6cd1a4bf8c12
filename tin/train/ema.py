"""An exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tin.errors import TinError


class Ema:
    """The average of a model's weights over its last steps, which often scores better than the last weights.

    After step n (from 0): average ← d·average + (1 − d)·weight, d = min(decay, (1 + n) / (10 + n)), so that the average leaves the
    starting weights behind in the first steps and then looks back over about 1 / (1 − decay) of them.

    BatchNorm's running mean and variance are averaged with the same decay. They describe the activations that the
    weights of the same steps gave, so the average of the ones goes with the average of the others; the last statistics would
    belong to the last weights. Frozen ones stay what they are, bit for bit. Counters (integers) are the model's own.

    One fused launch a step and one copy of the weights in memory. A step that was left out moved no weights; it counts
    as a step with the same weights again, so that nothing has to wait for the verdict.

    Args:
        model: already on its device; the average starts as its weights.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self._weights: dict[str, Tensor] = {
            name: value for name, value in model.state_dict(keep_vars=True).items() if value.is_floating_point()
        }
        with torch.no_grad():
            self._averages = {name: value.clone() for name, value in self._weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's weights; call after each step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self._averages.values()), list(self._weights.values()), 1.0 - decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the average within, and the weights of before, bit for bit, after it, also after an exception."""
        weights, averages = list(self._weights.values()), list(self._averages.values())
        with torch.no_grad():
            before = [value.clone() for value in weights]
            torch._foreach_copy_(weights, averages)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(weights, before)

    def state_dict(self) -> dict[str, Any]:
        """`updates`, and `averages` under the names of the model's own state; the tensors themselves, not copies."""
        return {"updates": self.updates, "averages": dict(self._averages)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue a saved average; `decay` stays this object's.

        Raises:
            TinError: it is the average of another model.
        """
        saved: Mapping[str, Tensor] = state["averages"]
        for name in self._averages.keys() ^ saved.keys():
            where = "the checkpoint" if name in self._averages else "this model"
            raise TinError(f"the saved average (EMA) is of another model: {where} has no '{name}'")
        for name, average in self._averages.items():
            if average.shape != saved[name].shape:
                raise TinError(
                    f"the saved average (EMA) is of another model: '{name}' is {tuple(saved[name].shape)} in the "
                    f"checkpoint and {tuple(average.shape)} here"
                )
        for name, average in self._averages.items():
            average.copy_(saved[name])
        self.updates = int(state["updates"])
