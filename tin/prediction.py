"""What a network takes videos for: each video's best classes, as soon as its batch is through."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tin.errors import TinError


@dataclass(frozen=True, slots=True)
class Prediction:
    """The best classes of one video, or why there are none."""

    id: int
    """Its position in the loader's list."""
    classes: tuple[int, ...] = ()
    """Best first, of equal scores the lower one; none where there is an error."""
    scores: tuple[float, ...] = ()
    """Of these classes, 0…1."""
    labels: tuple[str, ...] | None = None
    """Names of these classes; None where `predict` was given no names, or there is an error."""
    error: str | None = None
    """Why there is no prediction; None where there is one."""


def predict(
    model: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[Any],
    labels: Sequence[str] | None = None,
    top_k: int = 5,
    *,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[Prediction]:
    """One prediction for each video of a loader, in its order, as soon as its batch is through.

    A video's score is the mean over its views of softmax in float32, as `tin.evaluation.evaluate` has it by default. A video
    that the loader leaves out, because it cannot be read, comes in its place, with the reason as `error`.

    Args:
        model: frames (N·V·T, 3, H, W) → logits (N·V, classes): a module, which is put into evaluation mode and left in it, or
            a `tin.inference.PreparedModel`.
        batches: a `pipelines.Loader` with training=False and world_size 1 on the model's device; or any iterable of objects with
            `frames` (N·V·T, 3, H, W) of a floating type, `ids` (N,) integers and `num_views` V. What it has as `failures`, with
            `id` and `reason`, are videos that were left out.
        labels: names of all classes, in the order of their numbers.
        top_k: classes of each video, at least 1; all of them where the model has fewer.
        autocast: makes the context of the forward pass, as `lambda: torch.autocast("cuda", torch.float16)`.

    Raises:
        TinError: top_k is below 1; there are more or fewer labels than the model has classes.
        Exception: what the loader or the model raises.
    """
    if top_k < 1:
        raise TinError(f"top_k must be at least 1; got {top_k}")
    return _predictions(model, batches, labels, top_k, autocast)


@torch.inference_mode()
def _predictions(
    model: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[Any],
    labels: Sequence[str] | None,
    top_k: int,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Iterator[Prediction]:
    if isinstance(model, nn.Module):
        model.eval()
    told: set[int] = set()
    for batch in batches:
        with autocast():
            logits = model(batch.frames)
        if labels is not None and len(labels) != logits.shape[-1]:
            raise TinError(
                f"{len(labels)} labels for {logits.shape[-1]} classes: give the name of each class, in order"
            )
        scores = logits.float().unflatten(0, (len(batch.ids), batch.num_views)).softmax(-1).mean(1)
        best, classes = scores.sort(dim=-1, descending=True, stable=True)
        left_out = _left_out(batches, told)  # also further ahead, where the loader has been already
        rows = zip(batch.ids.tolist(), scores.isfinite().all(-1).tolist(), classes.tolist(), best.tolist(), strict=True)
        for id, finite, numbers, values in rows:
            while left_out and left_out[0].id < id:
                told.add(left_out[0].id)
                yield left_out.popleft()
            told.add(id)
            yield (
                _prediction(id, numbers[:top_k], values[:top_k], labels)
                if finite
                else Prediction(id, error=_NOT_FINITE)
            )
    yield from _left_out(batches, told)


_NOT_FINITE = "the network's scores are not finite"


def _prediction(id: int, classes: Sequence[int], scores: Sequence[float], labels: Sequence[str] | None) -> Prediction:
    names = None if labels is None else tuple(labels[number] for number in classes)
    return Prediction(id, tuple(classes), tuple(scores), names)


def _left_out(batches: Iterable[Any], told: set[int]) -> deque[Prediction]:
    """The videos that the loader has given up so far, but those that were told, in list order."""
    found = {failure.id: failure.reason for failure in getattr(batches, "failures", ()) if failure.id not in told}
    return deque(Prediction(id, error=found[id]) for id in sorted(found))
