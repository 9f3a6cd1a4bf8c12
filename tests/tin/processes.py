"""Real processes of one run over gloo, and what each of them found."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from tin.distributed import World, process_group


def run_ranks(work: Callable[..., Any], size: int, folder: Path, *args: Any) -> list[Any]:
    """`work(world, *args)` on `size` ranks; its returned values, by rank. `work` is a function of a module."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    mp.spawn(_rank, (work, size, str(folder), port, args), nprocs=size)  # type: ignore[no-untyped-call]
    return [pickle.loads((folder / f"rank{rank}").read_bytes()) for rank in range(size)]


def _rank(rank: int, work: Callable[..., Any], size: int, folder: str, port: int, args: tuple[Any, ...]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(size))
    torch.set_num_threads(1)
    world = World(rank, rank, size)
    with process_group(world, torch.device("cpu"), timeout_s=60):
        found = work(world, *args)
    Path(folder, f"rank{rank}").write_bytes(pickle.dumps(found))
