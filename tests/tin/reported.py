"""Results as tin-cli test writes them, of scores that are drawn, for the tests of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tin import recipes
from tin.evaluation import Failed, Scores, build_result, write_result


def write_drawn_result(
    path: Path,
    *,
    videos: int = 60,
    classes: int = 6,
    names: Sequence[str] | None = None,
    label_names: Sequence[str] | None = None,
    failed: Sequence[int] = (),
    labelled: bool = True,
    list_name: str = "val.txt",
    checkpoint: Path | None = None,
    **data: Any,
) -> Path:
    """A result of `videos` videos, two thirds of them right; `data` are settings of the recipe."""
    rng = np.random.default_rng(7)
    ids = np.array([number for number in range(videos) if number not in failed], np.int64)
    labels = ids % classes
    logits = rng.normal(size=(len(ids), classes)).astype(np.float32)
    sure = rng.random(len(ids)) < 0.6
    logits[np.arange(len(ids)), np.where(sure, labels, (labels + 1) % classes)] += 4 * rng.random(len(ids), np.float32)
    powers = np.exp(logits)
    scores = Scores(
        ids=ids,
        scores=powers / powers.sum(axis=1, keepdims=True),
        labels=labels if labelled else np.full(len(ids), -1),
        failures=tuple(Failed(number, f"video {number}.mp4", "is empty (0 bytes)") for number in failed),
        expected=videos,
    )
    recipe = recipes.load("tin_motion", [f"data.{key}={value}" for key, value in data.items()])
    content = build_result(
        scores,
        names or [f"video {number}.mp4" for number in range(videos)],
        metrics=("top_k_accuracy", "mean_class_accuracy"),
        list_name=list_name,
        label_names=label_names,
        checkpoint={"path": str(checkpoint or "best.pt"), "sha256": "0" * 64, "weights": "raw"},
        recipe=recipe.model_dump(mode="json"),
        versions={"tin": "0"},
        command=["tin-cli", "test"],
    )
    write_result(path, content)
    return path
