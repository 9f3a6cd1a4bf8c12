"""The processes of a run: who this one is, how they meet, and what they exchange."""

from __future__ import annotations

import os
import pickle
import re
import socket
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from tin import interfaces, slurm
from tin.errors import LostPeers, PeerError, TinError

T = TypeVar("T")
_OF_GLOO = re.compile(r"gloo|Connection closed by peer|Connection reset by peer", re.IGNORECASE)
_MEETING = timedelta(minutes=15)  # to wait for rank 0 to be there at all: hosts may start minutes apart
_patience = timedelta(hours=1)  # of the process group at this time, for groups made later
_side_groups: list[dist.ProcessGroup] = []


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
    """Who this process is: by RANK, LOCAL_RANK and WORLD_SIZE, as `--nproc-per-node` and torchrun set them, else as a task of srun,
    else the only one.

    Raises:
        TinError: a variable is missing beside the others, is no number, or they contradict each other.
    """
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    if not any(name in os.environ for name in names):
        return World(*slurm.task()) if slurm.in_step() else World()
    given = ", ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ)
    remedy = "start the run with --nproc-per-node, torchrun or srun, which set all of them, or unset them"
    try:
        size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
        local_rank = int(os.environ["LOCAL_RANK"] if size > 1 else os.environ.get("LOCAL_RANK", "0"))
    except KeyError as missing:
        raise TinError(f"{given} is set but {missing.args[0]} is not: {remedy}") from None
    except ValueError:
        raise TinError(f"{given}: these must be whole numbers; {remedy}") from None
    if not 0 <= rank < size or local_rank < 0:
        raise TinError(f"{given}: ranks go from 0 to WORLD_SIZE - 1; {remedy}")
    missing_names = [name for name in ("MASTER_ADDR", "MASTER_PORT") if size > 1 and not os.environ.get(name)]
    if missing_names:
        raise TinError(f"{given} is set but {' and '.join(missing_names)}, where the processes meet, is not: {remedy}")
    return World(rank, local_rank, size)


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
    alone = slurm.in_step() and torch.cuda.device_count() == 1  # srun --gpus-per-task shows each task its own GPU alone
    index = device.index if device.index is not None else 0 if alone else world.local_rank
    if index >= torch.cuda.device_count():
        raise TinError(f"--device cuda:{index}: this machine has {torch.cuda.device_count()} GPU(s)")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


@contextmanager
def process_group(world: World, device: torch.device, timeout_s: float = 3600) -> Iterator[None]:
    """Join the processes of the run (NCCL on GPUs, gloo on CPUs) and leave again at the end; nothing for a single process.

    Args:
        world: of `world_from_environment`.
        device: of this process (`resolve_device`).
        timeout_s: how long one may wait for another, seconds. Generous, because rank 0 may be probing a large list while the others wait;
            `shrink_timeout` makes it short once all are training.

    Raises:
        LostPeers: the others cannot be met, or are lost while the context lasts.
    """
    if world.size == 1 or dist.is_initialized():
        yield
        return
    host, port = _meeting_point()
    _choose_interface(world, host)
    method = "env://" if "MASTER_ADDR" in os.environ else f"tcp://{host}:{port}"
    global _patience
    timeout = _patience = timedelta(seconds=timeout_s)
    try:
        store, rank, size = next(dist.rendezvous(method, world.rank, world.size, timeout=min(timeout, _MEETING)))
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and os.environ.get("GROUP_WORLD_SIZE") == "1":
            # torchrun keeps one store over all starts, where a process would find the addresses of those that are gone. (With
            # several hosts their counts of restarts may differ; see docs/cluster.md.)
            store = dist.PrefixStore(f"start_{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", store=store, rank=rank, world_size=size, timeout=timeout,
            device_id=device if device.type == "cuda" else None,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:  # torch's own errors of networks and stores among them
        raise LostPeers(
            f"{_name(world)} could not meet the others at {host}:{port} (MASTER_ADDR, MASTER_PORT): {_reason(error)}"
        ) from error
    lost = False
    try:
        with connection_errors_named(world):
            yield
    except LostPeers:
        lost = True
        raise
    finally:
        _side_groups.clear()
        if not (lost and device.type == "cuda"):  # NCCL would wait for what can no longer end
            dist.destroy_process_group()


def side_group(world: World) -> dist.ProcessGroup | None:
    """A further group of all ranks, on gloo, for small messages beside the gradients; all ranks must ask for it. None for a single
    process. It ends with the process group."""
    if world.size == 1:
        return None
    group = dist.new_group(backend="gloo", timeout=_patience)
    assert isinstance(group, dist.ProcessGroup)
    _side_groups.append(group)
    return group


def shrink_timeout(world: World, seconds: float) -> None:
    """From now on no operation waits longer than this for another rank, so that a hang ends in an error. To be called after the
    first step, which may take long: compilers, cuDNN's choices, the first reads of cold files."""
    if world.size == 1:
        return
    global _patience
    _patience = timedelta(seconds=seconds)
    # set_timeout is newer than the oldest PyTorch we support
    set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
    for group in (None, *_side_groups):
        set_timeout(_patience, group)


@contextmanager
def connection_errors_named(world: World) -> Iterator[None]:
    """Turn what gloo, NCCL and the store raise when another rank is gone into one error that says so.

    Raises:
        LostPeers: naming this rank, its host, and what was seen.
    """
    try:
        yield
    except RuntimeError as error:  # dist.DistError is one
        if not isinstance(error, dist.DistError) and not _OF_GLOO.search(str(error)):
            raise
        raise LostPeers(
            f"{_name(world)} lost its connection to the others ({_reason(error)}): one of them ended, hangs or cannot be reached, and "
            f"its own message says why; --resume goes on from the last checkpoint"
        ) from error


def restarted(world: World) -> bool:
    """Whether these processes replace earlier ones of the same run: the elastic agent of any host has started them again, after a
    failure or because hosts came or went. Such a run must go on from its checkpoint. To be called by all ranks."""
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" or "TIN_STARTED_AGAIN" in os.environ
    return any(gather_objects(again, world))


def check_equal_weights(model: nn.Module, world: World) -> None:
    """Compare parameters and buffers of all ranks, bit by bit, by a sum for each tensor. All ranks must call it; it waits for the
    device. Cost: one pass over the weights and a message of 8 bytes a tensor.

    Raises:
        TinError: on every rank, naming the ranks that differ from rank 0 and the first tensor in which they do.
    """
    if world.size == 1:
        return
    state = model.state_dict()
    own = torch.stack([_bit_sum(tensor) for tensor in state.values()]).cpu().numpy()
    sums = gather_objects(own, world)
    different = [rank for rank in range(world.size) if (sums[rank] != sums[0]).any()]
    if different:
        first = next(name for name, *values in zip(state, *sums, strict=True) if len(set(values)) > 1)
        raise TinError(
            f"the weights of rank{'s' if len(different) > 1 else ''} {', '.join(map(str, different))} are not those of rank 0, first in "
            f"'{first}': a damaged GPU or memory, or a change of the model on some ranks alone; --resume goes on from the last checkpoint"
        )


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


def _meeting_point() -> tuple[str, int | str]:
    """Where rank 0 waits for the others."""
    if "MASTER_ADDR" in os.environ:
        return os.environ["MASTER_ADDR"], os.environ.get("MASTER_PORT", "?")
    point = slurm.meeting_point()
    if point is None:
        raise TinError(
            "MASTER_ADDR and MASTER_PORT are not set: they say where the processes meet; set them for every process"
        )
    return point[0], int(os.environ.get("MASTER_PORT", point[1]))


def _choose_interface(world: World, host: str) -> None:
    """Let gloo use the interface that leads to rank 0. Left alone it takes the one that this host's name stands for, which on many
    machines is the loopback."""
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    several_hosts = int(os.environ.get("LOCAL_WORLD_SIZE", world.size)) < world.size or slurm.num_hosts() > 1
    with suppress(OSError):  # init_process_group says what is wrong with the name
        interface = interfaces.interface_of(interfaces.address_towards(host, outside=several_hosts))
        if interface:
            os.environ["GLOO_SOCKET_IFNAME"] = interface


def _name(world: World) -> str:
    return f"rank {world.rank} on {socket.gethostname()}"


def _reason(error: BaseException) -> str:
    """The first sentence of an error, without the place in the source code that gloo puts before it."""
    text = re.sub(r"\[\S*\.(cc|cpp|h):\d+\]\s*", "", str(error)).strip() or type(error).__name__
    return re.split(r"\.\s|\n", text)[0].rstrip(".")[:200]


def _bit_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor's bits read as integers, 0-dim int64: equal tensors have equal sums, and unequal ones hardly ever."""
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(integers[tensor.element_size()]).sum(dtype=torch.int64)


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
