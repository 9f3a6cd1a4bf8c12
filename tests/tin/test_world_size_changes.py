"""A run that goes on with another number of processes takes the very next clips of the same order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.order import epoch_order
from tests.conftest import REPOSITORY

VIDEOS, EPOCHS = 23, 3


def run(list_file: Path, work_dir: Path, processes: int, batch_size: int, stop_at: int) -> None:
    script = [
        str(REPOSITORY / "tests/tin/train_recording_ids.py"),
        str(list_file),
        str(work_dir),
        str(batch_size),
        str(stop_at),
    ]
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *script],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}, cwd=REPOSITORY, capture_output=True,
        text=True, check=False, timeout=170,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def taken(work_dir: Path, processes: int, first_step: int) -> list[tuple[int, list[int]]]:
    """(epoch, ids of all ranks) of each step of a part of the run."""
    parts = [
        [[int(word) for word in line.split()] for line in file.read_text().splitlines()]
        for file in (work_dir / f"ids-{rank}-of-{processes}-from-{first_step}.txt" for rank in range(processes))
    ]
    assert len({len(part) for part in parts}) == 1
    return [(lines[0][0], [number for line in lines for number in line[1:]]) for lines in zip(*parts, strict=True)]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_then_one_then_two_keep_the_order_of_samples(real_videos: Path, tmp_path: Path) -> None:
    sources = sorted((real_videos / "fights").glob("*/*.mp4"))[:VIDEOS]
    list_file = tmp_path / "train.txt"
    list_file.write_text("".join(f"{source} {number % 2}\n" for number, source in enumerate(sources)))
    assert len(sources) == VIDEOS
    # Global batches of 4, 3 and 4, stopped within epochs: places that the next batch size does not divide.
    run(list_file, tmp_path, 2, 2, stop_at=3)
    run(list_file, tmp_path, 1, 3, stop_at=8)
    run(list_file, tmp_path, 2, 2, stop_at=0)
    files = sorted(path.name for path in tmp_path.glob("ids-*"))
    firsts = sorted({int(name.removesuffix(".txt").rpartition("-")[2]) for name in files})
    assert firsts[0] == 0
    assert len(firsts) == 3
    steps = [
        step for first, processes in zip(firsts, (2, 1, 2), strict=True) for step in taken(tmp_path, processes, first)
    ]
    for epoch in range(EPOCHS):
        seen = [number for at, ids in steps if at == epoch for number in ids]
        expected = epoch_order(VIDEOS, 1, 1, training=True, seed=4, epoch=epoch)
        assert seen == expected[: len(seen)].tolist(), f"epoch {epoch}"
        assert VIDEOS - len(seen) < 4  # nothing is lost but the tail that fills no batch
