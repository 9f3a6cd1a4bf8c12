"""Training from files on a GPU against the slower of loader and model: the part of `benchmarks.gpu` that trains."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_data import kinetics, listed
from pipelines import ClipSpec, Loader, VideoIndex
from tin import bench, build_model, recipes
from tin.bench.timing import Rounds
from tin.bench.train import LEAD


def train(device: torch.device, runs: int, steps: int, *overrides: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and result of `tin.bench.train` for the Kinetics recipe in bfloat16, from untouched videos and from short groups of pictures.

    Args:
        device: trains and decodes.
        runs: samples of each figure.
        steps: of a sample.
        overrides: of the recipe's fields; 32 clips a step and no pretrained weights without them.
    """
    recipe = recipes.load("k400", ["train.amp=bf16", "train.batch_size=32", "model.pretrained=none", *overrides])
    data = recipe.data
    spec = ClipSpec(num_segments=recipe.model.num_segments, input_size=data.input_size, short_side=data.short_side)
    cores = min(16, len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as temporary:
        for name, paths in kinetics(Path(temporary), cores).items():
            videos = listed(Path(temporary), paths, recipe.train.batch_size * (LEAD + steps))
            loader = Loader(
                videos, VideoIndex.build(videos), spec, batch_size=recipe.train.batch_size, training=True, device=device,
                dtype="bfloat16" if device.type == "cuda" else "float32", num_workers=cores,
            )  # fmt: skip
            with loader:
                model = build_model(**recipe.model.model_dump(exclude={"pretrained"}))
                yield (
                    name,
                    bench.train(
                        loader, model, recipe, device=device, rounds=Rounds(0, runs), steps=steps, workers=cores
                    ),
                )
