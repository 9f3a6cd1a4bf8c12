"""Run a model over a loader and bring every video's score together, each exactly once, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tin.distributed import World, check_failures, gather_objects, raise_together
from tin.errors import TinError


@dataclass(frozen=True)
class Failed:
    """A video that could not be scored."""

    id: int
    name: str
    reason: str


@dataclass(frozen=True)
class Scores:
    """What a test gives, in list order."""

    ids: NDArray[np.int64]
    """(videos,) positions in the list, ascending."""
    scores: NDArray[np.float32]
    """(videos, classes) mean over the views."""
    labels: NDArray[np.int64]
    """(videos,), −1 where the list has none."""
    failures: tuple[Failed, ...]
    expected: int
    """Videos in the list."""

    @property
    def labelled(self) -> bool:
        """Whether every scored video has a label."""
        return len(self.labels) > 0 and bool((self.labels >= 0).all())


@torch.inference_mode()
def evaluate(
    model: Callable[[torch.Tensor], torch.Tensor],
    loader: Iterable[Any],
    expected: int,
    *,
    average: Literal["prob", "score"] = "prob",
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    world: World | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Scores:
    """Score every video of a loader.

    A video's score is the mean over its views of softmax (`average="prob"`) or of logits (`"score"`), in float32.

    Args:
        model: frames (N·T, 3, H, W) → logits (N, classes): a module, put into evaluation mode for the run and back, or a
            `tin.inference.PreparedModel`.
        loader: batches with `frames`, `labels`, `ids`, `num_views`; `loader.failures` afterwards (see docs/architecture.md).
        expected: videos in the whole list.
        autocast: makes the context of the forward pass.
        world: processes that share the list; every rank gets the whole result.
        on_batch: called with the number of videos of each batch of this process.

    Raises:
        TinError: a video was scored twice or not at all without being reported as failed; PeerError: another rank failed.
        Exception: what the loader or the model raises, and `loader.check_failures` about the failures of all ranks.
    """
    module = model if isinstance(model, nn.Module) else nn.Identity()
    was_training = module.training
    module.eval()
    ids: list[NDArray[np.int64]] = []
    scores: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    world, problem = world or World(), None
    try:
        for batch in loader:
            if not len(batch.ids):
                continue
            with autocast():
                logits = model(batch.frames)
            views = logits.float().unflatten(0, (len(batch.ids), batch.num_views))
            scores.append((views.softmax(-1) if average == "prob" else views).mean(1))
            labels.append(batch.labels)
            ids.append(np.asarray(batch.ids, dtype=np.int64))
            if on_batch:
                on_batch(len(batch.ids))
    except Exception as error:  # the other ranks would wait for this one below
        problem = error
    finally:
        module.train(was_training)
    raise_together(problem, world)
    own = (
        np.concatenate(ids) if ids else np.empty(0, np.int64),
        torch.cat(scores).cpu().numpy() if scores else None,
        torch.cat(labels).cpu().numpy() if labels else np.empty(0, np.int64),
        tuple(Failed(int(f.id), str(f.name), str(f.reason)) for f in getattr(loader, "failures", ())),
    )
    parts = gather_objects(own, world)
    check_failures(loader, [failure for part in parts for failure in part[3]], world)
    return _merge(parts, expected)


def _merge(parts: list[Any], expected: int) -> Scores:
    filled = [part for part in parts if part[1] is not None]
    failures = {failure.id: failure for part in parts for failure in part[3]}
    ids = np.concatenate([part[0] for part in parts])
    counts = np.bincount(ids, minlength=expected)
    if len(counts) > expected or (counts > 1).any():
        raise TinError(
            f"video {int(counts.argmax())} of the list was scored more than once: the loader's shards overlap"
        )
    missing = [i for i in np.flatnonzero(counts == 0) if int(i) not in failures]
    both = [i for i in failures if counts[i]]
    if missing or both:
        raise TinError(
            f"{len(missing)} videos were neither scored nor reported as failed (first: {missing[:3]}), "
            f"{len(both)} were both: the loader lost count"
        )
    order = np.argsort(ids)
    scores = np.concatenate([part[1] for part in filled]) if filled else np.empty((0, 0), np.float32)
    labels = np.concatenate([part[2] for part in parts]).astype(np.int64)
    return Scores(ids[order], scores[order], labels[order], tuple(failures[i] for i in sorted(failures)), expected)
