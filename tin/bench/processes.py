"""Training steps in one process after another on this machine: clips a second, efficiency, and what the exchange of gradients costs."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from tin.allocator import keep_freed_memory
from tin.bench.scaling import Bucket, Cluster, Link, Step, gradient_buckets, predict, settled_bytes
from tin.bench.timing import median_ratio, ratios, row, synchronize
from tin.bench.train import NEGLIGIBLE_LR, Batch
from tin.distributed import World, barrier, process_group, resolve_device, world_from_environment
from tin.errors import TinError
from tin.models import build_model
from tin.recipes import Recipe
from tin.train.step import TrainStep


@dataclass(frozen=True)
class Task:
    """What each process measures.

    Attributes:
        recipe: of network and step; each process takes `batch_size` clips a step.
        device: cpu or cuda.
        threads: of PyTorch in each process; 0 leaves them.
        steps: of a sample.
        runs: samples of each figure.
    """

    recipe: Recipe
    device: str
    threads: int
    steps: int
    runs: int


@dataclass(frozen=True)
class Sample:
    """Seconds a step of one process, one value a round.

    Attributes:
        alone: without any exchange, while the other processes do the same.
        together: as `tin.train` takes it.
        exchange: the gradients' buckets summed over the processes one after the other, and nothing else; empty in one process.
    """

    alone: list[float]
    together: list[float]
    exchange: list[float]


def scaling(
    recipe: Recipe, device: torch.device, counts: Sequence[int], *, steps: int, runs: int, starts: int = 2
) -> dict[str, Any]:
    """Clips a second of 1, 2, … processes on this machine, each with the same batch (weak scaling), on random clips.

    The processes are started by PyTorch's elastic agent and joined as `tin-cli train` joins them; each owns a GPU, or on a CPU an
    equal part of the cores: usable cores / the largest count, also where fewer processes run, so that 1 process leaves cores
    idle and efficiency tells what its peers take from it.

    In turns, all processes at once: steps without any exchange, steps of DDP, the exchange alone. So `efficiency` (clips/s of n /
    n · clips/s of one) has two factors: `machine_efficiency`, what n processes lose by sharing memory and caches, and
    `exchange_efficiency`, what DDP, BatchNorm's statistics and waiting for each other add.

    Args:
        recipe: of network and step.
        device: cpu or cuda; of the latter each process takes its own GPU.
        counts: numbers of processes; 1 comes first.
        steps: of a sample.
        runs: samples of each figure and start.
        starts: times that each number of processes is started, in turning order, so that a machine's mood falls on all alike.

    Returns:
        `settings`; `rows`, in clips/s of all processes together; `model`, what `tin.bench.scaling.predict` says of these processes
        from one's step and the exchange alone, with (`overlap`) and without hiding it behind the backward pass.

    Raises:
        TinError: more processes than GPUs or cores; a process fails.
    """
    cores = len(os.sched_getaffinity(0))
    most = torch.cuda.device_count() if device.type == "cuda" else cores
    if max(counts) > most:
        unit = "GPU(s)" if device.type == "cuda" else "core(s) to use"
        raise TinError(f"{max(counts)} processes: this machine has {most} {unit}, and each process needs its own")
    threads = max(1, cores // max(counts)) if device.type == "cpu" else 0
    task = Task(recipe, device.type, threads, steps, runs)
    samples: dict[int, list[Sample]] = {count: [] for count in counts}
    for turn in range(starts):
        for count in counts if turn % 2 == 0 else reversed(counts):
            samples[count].append(_slowest(start(count, partial(measure, task), threads)))

    batch = recipe.train.batch_size * recipe.train.accumulate
    one = [batch / seconds for seconds in _all(samples[counts[0]], "together")]
    rows, predicted = [], []
    for count in counts:
        together, alone, exchange = (_all(samples[count], what) for what in ("together", "alone", "exchange"))
        rates = [count * batch / seconds for seconds in together]
        rows.append(
            row(
                f"{count} process{'es' if count > 1 else ''}", "clips/s", rates,
                [ratio / count for ratio in ratios(rates, one)], f"{count} × one process",
                processes=count,
                step_ms=1e3 * float(np.median(together)),
                machine_efficiency=float(np.median(_all(samples[counts[0]], "alone")) / np.median(alone)),
                exchange_efficiency=median_ratio(alone, together),
                exchange_ms=1e3 * float(np.median(np.subtract(together, alone))) if count > 1 else 0.0,
                exchange_alone_ms=1e3 * float(np.median(exchange)) if exchange else 0.0,
            )
        )  # fmt: skip
        if count > 1:
            predicted.append(_compare(recipe, count, float(np.median(alone)), float(np.median(exchange)), together))
    settings = {
        "recipe": recipe.name, "arch": recipe.model.arch, "batch_size": batch, "num_segments": recipe.model.num_segments,
        "input_size": recipe.data.input_size, "amp": recipe.train.amp, "grad_compression": recipe.train.grad_compression,
        "device": device.type, "threads_a_process": threads or None, "steps": steps, "runs": runs, "warmup": 2, "starts": starts,
        "backend": "nccl" if device.type == "cuda" else "gloo",
        "gradient_bytes": sum(bucket.bytes for bucket in _buckets(recipe)),
    }  # fmt: skip
    return {"settings": settings, "rows": rows, "model": predicted}


def start(count: int, work: Callable[[], Any], threads: int) -> list[Any]:
    """Run `work` (a picklable call) in `count` new processes of PyTorch's elastic agent, with RANK, WORLD_SIZE and the like set.

    Args:
        threads: OMP_NUM_THREADS of each process; 0 leaves it as it is.

    Returns:
        What each returned, in rank order.

    Raises:
        TinError: one of them fails; it names the first that did and its error.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, run_id=f"tin-bench-{os.getpid()}", rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", max_restarts=0, monitor_interval=0.1, start_method="spawn",
    )  # fmt: skip
    with _environment("OMP_NUM_THREADS", str(threads) if threads else None), _quiet("torch.distributed.elastic"):
        try:
            answers = elastic_launch(config, _call)(work)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            message = failure.message if isinstance(failure.message, str) else failure.message["message"]
            raise TinError(f"process {rank} of {count} failed: {message}") from error
    return [answers[rank] for rank in range(count)]


def measure(task: Task) -> Sample:
    """What one process measures, in step with the others."""
    world = world_from_environment()
    device = resolve_device(task.device, world)
    if device.type == "cpu":
        keep_freed_memory()
    if task.threads:
        torch.set_num_threads(task.threads)
    torch.backends.cudnn.benchmark = True
    with process_group(world, device):
        batch = _random_batch(task.recipe, device)
        calls = {"alone": _steps(task, World(), device, batch)}
        if world.size > 1:
            calls["together"] = _steps(task, world, device, batch)
            calls["exchange"] = _exchange(task, device)
        for call in calls.values():
            for _ in range(2):
                call()
        seconds: dict[str, list[float]] = {"alone": [], "together": [], "exchange": []}
        for turn in range(task.runs):
            for name in calls if turn % 2 == 0 else reversed(calls):
                seconds[name].append(_sample(calls[name], task.steps, device, world))
    if world.size == 1:
        seconds["together"] = seconds["alone"]
    return Sample(**seconds)


def _call(work: Callable[[], Any]) -> Any:
    return work()


def _steps(task: Task, world: World, device: torch.device, batch: Batch) -> Callable[[], object]:
    torch.manual_seed(0)
    model = build_model(**task.recipe.model.model_dump(exclude={"pretrained"}))
    step = TrainStep(model, task.recipe, lr=NEGLIGIBLE_LR, steps_per_epoch=1000, device=device, world=world, seed=0)
    return partial(step, batch, position=0.0, global_step=0)


def _exchange(task: Task, device: torch.device) -> Callable[[], object]:
    half = task.recipe.train.grad_compression == "bf16"
    kind = torch.bfloat16 if half else torch.float32
    tensors = [
        torch.ones(int(bucket.bytes) // kind.itemsize, dtype=kind, device=device) for bucket in _buckets(task.recipe)
    ]

    def call() -> None:
        for tensor in tensors:
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)  # as many bytes as a sum, which would grow to infinity

    return call


def _sample(call: Callable[[], object], steps: int, device: torch.device, world: World) -> float:
    """Seconds a call, all processes starting together."""
    synchronize(device)
    barrier(world)
    start = time.perf_counter()
    for _ in range(steps):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / steps


def _random_batch(recipe: Recipe, device: torch.device) -> Batch:
    clips, size = recipe.train.batch_size * recipe.train.accumulate, recipe.data.input_size
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}
    kind = half.get(recipe.train.amp, torch.float32) if device.type == "cuda" else torch.float32
    frames = torch.randn(clips * recipe.model.num_segments, 3, size, size, device=device, dtype=kind)
    labels = torch.arange(clips, device=device) % recipe.model.num_classes
    return Batch(frames.contiguous(memory_format=torch.channels_last), labels)


def _slowest(samples: Sequence[Sample]) -> Sample:
    """A step of all is done when the slowest process has done its own."""

    def last(name: str) -> list[float]:
        return [max(values) for values in zip(*(getattr(sample, name) for sample in samples), strict=True)]

    return Sample(last("alone"), last("together"), last("exchange"))


def _all(samples: Sequence[Sample], name: str) -> list[float]:
    return [value for sample in samples for value in getattr(sample, name)]


def _buckets(recipe: Recipe) -> list[Bucket]:
    model = build_model(**recipe.model.model_dump(exclude={"pretrained"}))
    return gradient_buckets(model, recipe.data.input_size, 2 if recipe.train.grad_compression == "bf16" else 4)


def _compare(recipe: Recipe, count: int, alone: float, exchange: float, together: Sequence[float]) -> dict[str, Any]:
    """The model of `tin.bench.scaling` beside what was measured: its link is what the exchange alone ran at."""
    buckets = _buckets(recipe)
    size = sum(bucket.bytes for bucket in buckets)
    gigabits = 2 * (count - 1) / count * size * 8 / exchange / 1e9
    cluster = Cluster(Link("as measured", gigabits, 0.0, reach=1.0), gpus_per_node=count)
    model = build_model(**recipe.model.model_dump(exclude={"pretrained"}))
    step = Step(alone, buckets, settled_bytes(model), jitter=0.0)
    hidden, added = (predict(replace(step, overlap=overlap), count, cluster) for overlap in (True, False))
    return {
        "processes": count,
        "link_gigabits": gigabits,
        "measured_step_ms": 1e3 * float(np.median(together)),
        "predicted_step_ms": {"overlap": 1e3 * hidden.step, "no_overlap": 1e3 * added.step},
    }


@contextlib.contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        if value is not None:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before


@contextlib.contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """What the agent has to say of a failed process is in the error."""
    chosen = logging.getLogger(logger)
    before = chosen.level
    chosen.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        chosen.setLevel(before)
