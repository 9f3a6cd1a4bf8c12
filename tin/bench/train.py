"""Training from files: the loader alone, the model alone, both together, and which of them is the limit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from tin.bench.timing import Rounds, ratios, row, synchronize
from tin.bench.usage import processor_seconds
from tin.distributed import World
from tin.errors import TinError
from tin.recipes import Recipe
from tin.train.step import TrainStep

LEAD = 8
"""Steps on a GPU before the clock starts: the loader is then as far ahead as it stays."""
WARMUP = 4
STRETCH = 5.0
"""Seconds that the model alone computes in a stretch, unless its steps are given; a stretch has at least four steps."""
NEGLIGIBLE_LR = 1e-6
"""Weights stay where they are, so that random labels lead to no infinities, which would change the speed."""
SHORT_OF_LIMIT = 0.95
"""Part of the limit under which the verdict says what is known about the rest."""


class EpochLoader(Protocol):
    """What is asked of a loader (`pipelines.Loader` is one): batches with `frames`, `labels` and `ids`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...

    def set_epoch(self, epoch: int, start_step: int) -> None: ...

    def stats(self) -> Any:
        """With `frames_used`, and `frames_decoded` for them (0 where the decoder does not tell), since the loader was made."""


@dataclass(frozen=True)
class Batch:
    """What a step takes."""

    frames: torch.Tensor
    labels: torch.Tensor


@dataclass(frozen=True)
class Part:
    """A timed stretch.

    Attributes:
        clips: that went through.
        seconds: that they took.
        cpu_seconds: processor time meanwhile, of this process and all that it started.
        waited: seconds that the consumer stood still for a batch.
    """

    clips: int
    seconds: float
    cpu_seconds: float
    waited: float = 0.0

    @property
    def rate(self) -> float:
        """Clips a second."""
        return self.clips / self.seconds


def train(
    loader: EpochLoader,
    model: nn.Module,
    recipe: Recipe,
    *,
    device: torch.device,
    rounds: Rounds,
    steps: int | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Clips a second of training from files, of its two halves alone, and its ratio to what they allow.

    A round, in turning order: `loader alone`, the last `steps` batches of an epoch and nobody who computes; `model alone`, as many
    steps of `tin.train.TrainStep` on one random batch of the same shape, type and memory format that stays on the device;
    `end to end`, that step on those batches. Threads, processes and their settings are the same in all three.

    On a GPU decoding and network have processors of their own, and the limit is the slower of the two; the clock starts LEAD
    steps into the stream. On a CPU they share the cores, and the times of a clip add up: 1 / (1/loader + 1/model). There a
    batch that was made before the clock started would be a gift, and one that is made and not used a loss, so a stretch
    goes from the first demand, with nothing made ahead, to the last step, with nothing left over: the work of its clips, all
    of it and no other. Before the first round a few steps warm up processes, files, kernels and memory.

    Args:
        loader: training batches.
        model: on the CPU or already on the device. Its weights hardly change.
        recipe: of the step.
        device: where the model computes and the loader's batches are.
        rounds: `runs` is used.
        steps: of a stretch, fewer where an epoch is shorter; None for what takes the model alone STRETCH seconds.
        workers: decoding processes of the loader, for the advice.

    Returns:
        `settings`; `rows`, in clips a second, with `cpu_seconds_per_clip` and, end to end, `data_wait`, the part of the time that the
        step waited for a batch; `verdict`, which says in words what the limit is (`words`) and in a word (`limit`: loader, model or both).

    Raises:
        TinError: the loader gives no batch.
    """
    step = TrainStep(model, recipe, lr=NEGLIGIBLE_LR, steps_per_epoch=len(loader), device=device, world=World(), seed=0)
    on_cpu = device.type == "cpu"

    def take(batch: Any) -> None:
        step(batch, position=0.0, global_step=0)

    def stream(epoch: int, count: int) -> Iterator[Any]:
        loader.set_epoch(epoch, start_step=len(loader) - count)
        return iter(loader)

    synthetic: Batch | None = None
    for batch in stream(0, min(WARMUP, len(loader))):
        take(batch)
        synthetic = synthetic or Batch(torch.randn_like(batch.frames), batch.labels.clone())
    if synthetic is None:
        raise TinError("the loader gave no batch: the list holds no readable video")
    _timed([synthetic], 0, device, take)
    once = _timed([synthetic] * 2, 0, device, take).seconds / 2
    steps = min(steps or max(4, round(STRETCH / once)), len(loader))
    lead = 0 if on_cpu else min(LEAD, len(loader) - steps)

    parts: dict[str, list[Part]] = {"loader alone": [], "model alone": [], "end to end": []}
    for turn in range(rounds.runs):
        calls: dict[str, Callable[[], Part]] = {
            "loader alone": lambda: _timed(stream(turn, lead + steps), lead, device, None),  # noqa: B023
            "model alone": lambda: _timed([synthetic] * steps, 0, device, take),
            "end to end": lambda: _timed(stream(turn, lead + steps), lead, device, take),  # noqa: B023
        }
        for name in calls if turn % 2 == 0 else reversed(calls):
            parts[name].append(calls[name]())

    rates = {name: [part.rate for part in some] for name, some in parts.items()}
    limits = [limit(*pair, on_cpu=on_cpu) for pair in zip(rates["loader alone"], rates["model alone"], strict=True)]
    what = "1 / (1/loader + 1/model)" if on_cpu else "the slower of loader and model"
    rows = [
        row(
            name,
            "clips/s",
            rates[name],
            ratios(rates[name], limits),
            what,
            cpu_seconds_per_clip=_cpu(parts[name]),
        )
        for name in ("end to end", "loader alone", "model alone")
    ]
    rows[0]["data_wait"] = float(np.median([part.waited / part.seconds for part in parts["end to end"]]))
    stats = loader.stats()
    decoded = stats.frames_decoded / stats.frames_used if stats.frames_decoded else None
    frames = synthetic.frames
    settings = {
        "recipe": recipe.name, "arch": recipe.model.arch, "batch_size": len(synthetic.labels), "num_segments": recipe.model.num_segments,
        "input_size": recipe.data.input_size, "frames": list(frames.shape), "dtype": str(frames.dtype).removeprefix("torch."),
        "layout": "channels_last" if frames.is_contiguous(memory_format=torch.channels_last) else "contiguous",
        "amp": recipe.train.amp, "device": str(device), "steps": steps, "steps_before_the_clock": lead, "warmup": WARMUP,
        "runs": rounds.runs, "workers": workers, "frames_decoded_per_used": decoded,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"), "measured": _MEASURED["cpu" if on_cpu else "cuda"],
    }  # fmt: skip
    return {
        "settings": settings,
        "rows": rows,
        "verdict": verdict(rows, on_cpu=on_cpu, decoded=decoded, workers=workers),
    }


def limit(loader: float, model: float, *, on_cpu: bool) -> float:
    """Clips a second that loader and model allow together, from those of each alone."""
    return 1 / (1 / loader + 1 / model) if on_cpu else min(loader, model)


def verdict(
    rows: Iterable[dict[str, Any]], *, on_cpu: bool, decoded: float | None, workers: int | None
) -> dict[str, str]:
    """What holds training up, and what would help.

    Args:
        rows: of `train`.
        on_cpu: loader and model share the cores.
        decoded: frames decoded for each frame used; None where the decoder does not tell.
        workers: decoding processes.
    """
    by_name = {line["name"]: line for line in rows}
    together, loader, model = (by_name[name] for name in ("end to end", "loader alone", "model alone"))
    reading, computing = loader["median"], model["median"]
    share = computing / (reading + computing)  # of a clip's time on shared cores that goes into reading it
    near = 0.9 < reading / computing < 1.1
    slower = "both" if near else "loader" if reading < computing else "model"
    rates = f"{reading:.4g} clips/s of the loader alone, {computing:.4g} of the model alone"
    words = f"loader and model are about as fast: {rates}." if near else f"the {slower} is the limit: {rates}."
    if on_cpu:
        words += f" They share the cores: {share:.0%} of a clip's time is reading, {1 - share:.0%} computing."
    if slower == "model":
        gain = f"at most {1 / (1 - share) - 1:.0%}" if on_cpu else "nothing"
        words += f" Faster reading would gain {gain}."
    else:
        words += "" if on_cpu else f" The step waits for data {together['data_wait']:.0%} of the time."
        words += f" {_faster_reading(decoded, workers, on_cpu)}"
    ratio = together["ratio"]
    words += f" End to end reaches {ratio:.3f} of the limit."
    if on_cpu and ratio < SHORT_OF_LIMIT:
        alone = loader["cpu_seconds_per_clip"] + model["cpu_seconds_per_clip"]
        used = together["cpu_seconds_per_clip"]
        busy = used * together["median"] / len(os.sched_getaffinity(0))
        words += f" A clip takes {used / alone:.2f} times the processor time of both alone, and the cores are {busy:.0%} busy."
    return {"limit": slower, "words": words}


_MEASURED = {
    "cpu": "the last `steps` batches of an epoch, another epoch each round, from the first demand with nothing made ahead to the end "
    "of the last step; decoding processes run already; threads, processes and cores are the same alone and together",
    "cuda": "the last `steps` batches of an epoch, another epoch each round, timed from `steps_before_the_clock` batches into the "
    "stream to the end of the last step on the device",
}


def _timed(batches: Iterable[Any], lead: int, device: torch.device, use: Callable[[Any], None] | None) -> Part:
    """Time a stream after its first `lead` batches; `use` is called with every one."""
    stream = iter(batches)
    for batch in islice(stream, lead):
        if use is not None:
            use(batch)
    synchronize(device)
    clips, waited = 0, 0.0
    used = processor_seconds()
    asked = start = time.perf_counter()
    for batch in stream:
        waited += time.perf_counter() - asked
        clips += len(batch.labels)
        if use is not None:
            use(batch)
        asked = time.perf_counter()
    synchronize(device)
    end = time.perf_counter()
    return Part(clips, end - start, processor_seconds() - used, waited)


def _cpu(parts: Iterable[Part]) -> float:
    return float(np.median([part.cpu_seconds / part.clips for part in parts]))


def _faster_reading(decoded: float | None, workers: int | None, on_cpu: bool) -> str:
    cores = len(os.sched_getaffinity(0))
    ways = []
    if decoded is None or decoded > 2:
        many = f"{decoded:.1f} frames are decoded for each one used; " if decoded else ""
        ways.append(f"{many}copies made by 'tin-cli data transcode LIST OUT --gop 8' need fewer")
    if workers is not None and workers < cores:
        ways.append(f"more --workers use more cores (now {workers} of {cores})")
    if not ways:
        ways.append("every core reads already and hardly a frame is decoded in vain, so it takes more or faster cores")
    joined = "; ".join(ways)
    return f"{joined[0].upper()}{joined[1:]}."
