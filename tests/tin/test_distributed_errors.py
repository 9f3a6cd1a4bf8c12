"""What ends one rank ends all, and rank 0 says why."""

from __future__ import annotations

import os
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from pipelines.errors import BadVideosError, Failure
from tests.tin.clips import NUM_SEGMENTS, MemoryLoader
from tin.distributed import World, process_group, raise_together
from tin.evaluation import evaluate


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Limited(MemoryLoader):
    """A loader that allows one failure, as pipelines.Loader does with max_bad."""

    def check_failures(self, others: Any) -> None:
        names = {failure.name for failure in others}
        if len(names) > 1:
            raise ValueError(f"too many: {sorted(names)}")


def model(frames: torch.Tensor) -> torch.Tensor:
    return frames.unflatten(0, (-1, NUM_SEGMENTS)).mean((2, 3, 4))


def breaks_at(rank: int, error: Exception) -> Any:
    def before(epoch: int, step: int) -> None:
        if rank == 1:
            raise error

    return before


def work(rank: int, folder: str) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=Path(folder, "port").read_text(), RANK=str(rank), WORLD_SIZE="2"
    )
    world = World(rank, rank, 2)
    heard = []
    with process_group(world, torch.device("cpu"), timeout_s=60):
        raise_together(None, world)
        bad = BadVideosError("2 of 9", (Failure(3, "a.mp4", "empty"),))
        for error in (bad, Unpicklable(1, 2)):
            loader = MemoryLoader(4, training=False, before_batch=breaks_at(rank, error))
            try:
                evaluate(model, loader, 4, world=world)
            except Exception as raised:
                heard.append((type(raised).__name__, str(raised), getattr(raised, "failures", None)))
        loader = Limited(0, training=False, failures=[Failure(rank, f"{rank}.mp4", "empty")])
        try:
            evaluate(model, loader, 2, world=world)
        except Exception as raised:
            heard.append((type(raised).__name__, str(raised), None))
    Path(folder, str(rank)).write_bytes(pickle.dumps(heard))


@pytest.mark.slow
def test_an_error_of_rank_1_ends_both_and_rank_0_has_it(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(sock.getsockname()[1]))
    mp.spawn(work, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    zero, one = (pickle.loads((tmp_path / str(rank)).read_bytes()) for rank in range(2))
    assert zero == [
        ("BadVideosError", "2 of 9", (Failure(3, "a.mp4", "empty"),)),
        ("TinError", "Unpicklable: 1 and 2", None),
        ("ValueError", "too many: ['0.mp4', '1.mp4']", None),
    ]
    assert one == [("PeerError", text, None) for _, text, _ in zero]


def test_a_single_process_raises_its_own_error_as_it_is() -> None:
    error = Unpicklable(1, 2)
    with pytest.raises(Unpicklable) as raised:
        raise_together(error, World())
    assert raised.value is error
    raise_together(None, World())
