"""What a network takes videos for: each video's best classes, as soon as its batch is through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Prediction:
    """The best classes of one video."""

    id: int
    """Its position in the loader's list."""
    classes: tuple[int, ...]
    """Best first, of equal scores the lower one; none where the network's scores are not finite."""
    scores: tuple[float, ...]
    """Of these classes, 0…1."""


@torch.inference_mode()
def predict(
    model: Callable[[torch.Tensor], torch.Tensor],
    loader: Iterable[Any],
    k: int,
    *,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[Prediction]:
    """The predictions for the videos of a loader, in its order, a batch at a time.

    A video's score is the mean over its views of softmax in float32, as `tin.evaluation.evaluate` has it by default.

    Args:
        model: frames (N·V·T, 3, H, W) → logits (N·V, classes): a module, which is put into evaluation mode and left in it, or
            a `tin.inference.PreparedModel`.
        loader: batches with `frames`, `ids` and `num_views` (see docs/architecture.md).
        k: classes of each video; fewer where the model has fewer.
        autocast: makes the context of the forward pass.

    Raises:
        Exception: what the loader or the model raises.
    """
    if isinstance(model, nn.Module):
        model.eval()
    for batch in loader:
        with autocast():
            logits = model(batch.frames)
        scores = logits.float().unflatten(0, (len(batch.ids), batch.num_views)).softmax(-1).mean(1)
        best, classes = scores.sort(dim=-1, descending=True, stable=True)
        finite = scores.isfinite().all(-1)
        rows = zip(batch.ids.tolist(), finite.tolist(), classes[:, :k].tolist(), best[:, :k].tolist(), strict=True)
        for id, good, top, values in rows:
            yield Prediction(id, tuple(top) if good else (), tuple(values) if good else ())
