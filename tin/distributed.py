"""The processes of a run: who this one is, how they meet, and what they exchange."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from tin.errors import PeerError, TinError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among those of the run."""

    rank: int = 0
    local_rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


def world_from_environment() -> World:
    """Read RANK, LOCAL_RANK and WORLD_SIZE, as torchrun, srun wrappers and other launchers set them; one process without them.

    Raises:
        TinError: a variable is missing beside the others, or is no number.
    """
    if "WORLD_SIZE" not in os.environ:
        return World()
    try:
        return World(
            rank=int(os.environ["RANK"]),
            local_rank=int(os.environ.get("LOCAL_RANK", "0")),
            size=int(os.environ["WORLD_SIZE"]),
        )
    except KeyError as missing:
        raise TinError(
            f"WORLD_SIZE is set but {missing} is not: start the run with --nproc-per-node or torchrun"
        ) from None
    except ValueError as error:
        raise TinError(f"RANK, LOCAL_RANK and WORLD_SIZE must be whole numbers: {error}") from None


def resolve_device(name: str, world: World) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` to the device of this process (`cuda` takes the local rank).

    Raises:
        TinError: the device does not exist here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise TinError(f"--device {name}: expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise TinError(f"--device {name}: only cpu and cuda are supported")
    if not torch.cuda.is_available():
        raise TinError(f"--device {name}: PyTorch sees no CUDA GPU here; use --device cpu")
    index = world.local_rank if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise TinError(f"--device cuda:{index}: this machine has {torch.cuda.device_count()} GPU(s)")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@contextmanager
def process_group(world: World, device: torch.device, timeout_s: float = 1800) -> Iterator[None]:
    """Join the processes of the run (NCCL on GPUs, gloo on CPUs) and leave again at the end; nothing for a single process."""
    if world.size == 1 or dist.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, timeout=timedelta(seconds=timeout_s), device_id=device if device.type == "cuda" else None
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def gather_objects(value: Any, world: World) -> list[Any]:
    """Every rank's value, in rank order, on every rank."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


def sum_over_ranks(tensor: torch.Tensor, world: World) -> torch.Tensor:
    """Sum a small tensor over the ranks, in place."""
    if world.size > 1:
        dist.all_reduce(tensor)
    return tensor


def main_first(work: Callable[[], T], world: World) -> T:
    """Do something on rank 0, and when it has succeeded, on the others: they find its files there.

    Raises:
        Exception: whatever `work` raises; on the other ranks PeerError when rank 0 failed.
    """
    if world.size == 1:
        return work()
    problem: list[str | None] = [None]
    if world.is_main:
        try:
            return work()
        except BaseException as error:
            problem = [str(error)]
            raise
        finally:
            dist.broadcast_object_list(problem)
    dist.broadcast_object_list(problem)
    if problem[0] is not None:
        raise PeerError(problem[0])
    return work()


def raise_together(error: Exception | None, world: World) -> None:
    """Where all ranks meet: go on when none of them has failed. What a rank alone ran into thus ends all of them, instead of
    leaving the others waiting in their next collective.

    Raises:
        Exception: on rank 0 its own error, else that of the first rank that has one; on the others PeerError.
    """
    if world.size == 1:
        if error is not None:
            raise error
        return
    problems = [problem for problem in gather_objects(_portable(error, world), world) if problem is not None]
    if problems:
        if world.is_main:
            raise error or problems[0]
        raise PeerError(str(problems[0])) from error


def check_failures(loader: Any, failures: Iterable[Any], world: World) -> None:
    """Let a loader that limits its failures (`check_failures` of `pipelines.Loader`) judge those of all ranks.

    Args:
        failures: of all ranks, the same on each, so that all of them stop or none.

    Raises:
        Exception: the loader's; on ranks other than 0 PeerError, because rank 0 says it.
    """
    if not hasattr(loader, "check_failures"):
        return
    try:
        loader.check_failures(failures)
    except Exception as error:
        if world.is_main:
            raise
        raise PeerError(str(error)) from None


def barrier(world: World) -> None:
    """Wait for every rank."""
    if world.size > 1:
        dist.barrier()


def _portable(error: Exception | None, world: World) -> Exception | None:
    """An error that can travel to another rank, with its traceback as a note: the place it comes from stays behind."""
    if error is None:
        return None
    try:
        pickle.loads(pickle.dumps(error))
        portable = error
    except Exception:
        portable = TinError(f"{type(error).__name__}: {error}")
    portable.add_note(f"on rank {world.rank}:\n{''.join(traceback.format_exception(error))}")
    return portable
