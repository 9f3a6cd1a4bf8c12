"""A training process that writes down which clips every step took: started by tests with torchrun, stopped at a step on request.

Usage: train_recording_ids.py LIST WORK_DIR BATCH_SIZE STOP_AT, where STOP_AT is a global step or 0.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import tin
from pipelines import ClipSpec, Loader, VideoIndex, VideoList
from tin.distributed import process_group, world_from_environment
from tin.recipes import from_dict
from tin.train import Interrupted, Trainer, load_for_resume


class Recording:
    """A loader whose batches are written down as the trainer takes them: one line `epoch ids…` a step and rank."""

    def __init__(self, loader: Loader, file: Path, stop_at: int, steps: int) -> None:
        self._loader, self._file, self._stop_at, self._steps = loader, file, stop_at, steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self._loader:
            with self._file.open("a") as file:
                file.write(" ".join(map(str, (self._loader.epoch, *batch.ids.tolist()))) + "\n")
            self._steps += 1
            if self._steps == self._stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


def main(list_file: str, folder: str, batch_size: int, stop_at: int) -> None:
    torch.set_num_threads(1)
    recipe = from_dict({
        "name": "ids", "dataset": "memory",
        "model": {"arch": "tsn_resnet18", "num_classes": 2, "num_segments": 1},
        "data": {"input_size": 32, "short_side": 32}, "optim": {"lr": 0.001}, "schedule": {"epochs": 3},
        "train": {"batch_size": batch_size, "amp": "off", "log_every": 1000},
    })  # fmt: skip
    world, work_dir = world_from_environment(), Path(folder)
    videos = VideoList.read(list_file)
    spec = ClipSpec(num_segments=1, input_size=32, short_side=32)
    with process_group(world, torch.device("cpu")):
        loader = Loader(
            videos, VideoIndex.build(videos, workers=0), spec, batch_size=batch_size, training=True, seed=4,
            rank=world.rank, world_size=world.size, num_workers=0,
        )  # fmt: skip
        found = load_for_resume(work_dir, world, print)
        steps = found[0]["progress"]["global_step"] if found else 0
        recording = Recording(loader, work_dir / f"ids-{world.rank}-of-{world.size}-from-{steps}.txt", stop_at, steps)
        trainer = Trainer(tin.build_model("tsn_resnet18", 2, 1), recipe, recording, work_dir, world=world)
        if found:
            trainer.resume(*found)
        with suppress(Interrupted):
            trainer.fit()
        loader.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
