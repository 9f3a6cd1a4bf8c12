"""The network alone: inference and training steps of TIN and TSM against the plain ResNet that TSN is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tin.bench.memory import saved_by_network, saved_by_reference, with_peak_memory
from tin.bench.timing import Rounds, median_ratio, ratios, row, time_in_turns
from tin.bench.workload import AMP, Workload
from tin.inference import prepare
from tin.recipes import OptimSettings
from tin.train.amp import autocast
from tin.train.optim import build_optimizer

MIB = 2**20


def inference(work: Workload, rounds: Rounds) -> dict[str, Any]:
    """Inference time of one clip, as it is and prepared by `tin.inference`, and its ratio to the plain ResNet's.

    The protocol of the TIN results table (REFERENCE section 5): batch 1, test-sampled frames already on the device, the
    model's forward alone, without reading or preprocessing, synchronised around each forward.

    Returns:
        `settings` and `rows`: milliseconds of torchvision's ResNet, of the architecture and of TSN, then of these two prepared. A
        prepared network is held against the prepared TSN. `clips_per_second` is the table's videos/s, `torchvision_ratio` the time / that
        of torchvision's ResNet, `eager_ratio` the time / that of the same network as it is.
    """
    frames = work.frames(1)
    archs = list(dict.fromkeys((work.arch, work.plain())))
    theirs = f"{work.torchvision()}, one clip"
    calls: dict[str, Callable[[], object]] = {theirs: _forward(work, work.network(work.torchvision()).eval(), frames)}
    for arch in archs:
        network = work.build(arch).eval()
        calls[f"{arch}, one clip"] = _forward(work, network, frames)
        calls[f"{arch}, one clip, prepared"] = partial(prepare(network, frames, dtype=work.torch_dtype), frames)
    samples = time_in_turns(calls, work.device, rounds)
    rows = [row(theirs, "ms", samples[theirs], ratios(samples[theirs], samples[theirs]), "itself", scale=1e3)]
    for how in ("one clip", "one clip, prepared"):
        for arch in archs:
            timed, yardstick = samples[f"{arch}, {how}"], f"{work.plain()}, {how}"
            line = row(f"{arch}, {how}", "ms", timed, ratios(timed, samples[yardstick]), yardstick, scale=1e3)
            line["clips_per_second"] = 1e3 / line["median"]
            line["torchvision_ratio"] = median_ratio(timed, samples[theirs])
            line["eager_ratio"] = median_ratio(timed, samples[f"{arch}, one clip"])
            rows.append(line)
    return {"settings": {**work.settings(rounds), "batch_size": 1}, "rows": rows}


def model(work: Workload, rounds: Rounds, train_rounds: Rounds) -> dict[str, Any]:
    """Inference of one clip and of a batch and a training step of TIN, TSM, TSN and torchvision's ResNet of one depth, and
    their ratios to TSN's; `torchvision_ratio` is that to torchvision's.

    A training step is forward, loss, backward, norm clipping and SGD, as `tin.train` does it. It has the bytes that
    autograd keeps for its backward pass, those of them that the temporal modules cost (what TSN does not keep), and what
    they would cost with the op's PyTorch reference. On a GPU each line has its peak memory too.

    Returns:
        `settings` and `rows`, in milliseconds a step of the row's `batch_size` clips.
    """
    depth = work.arch.partition("_")[2]
    archs = [*(f"{kind}_{depth}" for kind in ("tin", "tsm", "tsn")), work.torchvision()]
    rows: list[dict[str, Any]] = []
    for what, make, clips, count in (
        ("inference", _inference, 1, rounds),
        ("inference", _inference, work.batch_size, rounds),
        ("training step", _training, work.batch_size, train_rounds),
    ):
        if (what, clips) in [(line["what"], line["batch_size"]) for line in rows]:
            continue  # a batch of one clip is the first line already
        rows += _three(replace(work, batch_size=clips), archs, what, make, count)
    kept = {arch: saved_by_network(work, arch) for arch in archs}
    for line in rows:
        arch = line["arch"]
        if line["what"] != "training step":
            continue
        line["saved_mib"] = kept[arch] / MIB
        if arch != work.torchvision():
            line["temporal_saved_mib"] = (kept[arch] - kept[work.plain()]) / MIB
            line["reference_saved_mib"] = saved_by_reference(work, arch) / MIB
    return {"settings": {**work.settings(rounds), "train_runs": train_rounds.runs}, "rows": rows}


class TrainingStep:
    """One step as `tin.train` takes it: forward, loss, backward, norm clipping, SGD."""

    def __init__(self, work: Workload, network: nn.Module) -> None:
        self.network, self.device, self.amp = network.train(), work.device, AMP[work.dtype]
        # A rate so small that weights on random labels stay where they are: infinities would change the speed.
        self.optimizer = build_optimizer(network, OptimSettings(lr=1e-6), 1e-6)
        self.scaler = torch.amp.GradScaler(work.device.type, enabled=self.amp == "fp16")

    def __call__(self, frames: Tensor, labels: Tensor) -> None:
        with autocast(self.amp, self.device):
            loss = nn.functional.cross_entropy(self.network(frames), labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.network.parameters(), 20.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def _three(
    work: Workload,
    archs: list[str],
    what: str,
    make: Callable[[Workload, str, Tensor], Callable[[], object]],
    rounds: Rounds,
) -> list[dict[str, Any]]:
    """The rows of one kind of step, all architectures timed in turns."""
    frames = work.frames(work.batch_size)
    calls: dict[str, Callable[[], object]] = {}
    memory: dict[str, float | None] = {}
    for arch in archs:
        memory[arch], calls[arch] = with_peak_memory(work.device, partial(make, work, arch, frames))
    samples = time_in_turns(calls, work.device, rounds)
    rows = []
    for arch in archs:
        line = row(
            f"{arch}, {what}, batch {work.batch_size}", "ms", samples[arch],
            ratios(samples[arch], samples[work.plain()]), work.plain(), scale=1e3,
            arch=arch, what=what, batch_size=work.batch_size,
        )  # fmt: skip
        line["torchvision_ratio"] = median_ratio(samples[arch], samples[work.torchvision()])
        line["clips_per_second"] = work.batch_size * 1e3 / line["median"]
        if memory[arch] is not None:
            line["peak_memory_mib"] = memory[arch]
        rows.append(line)
    return rows


def _inference(work: Workload, arch: str, frames: Tensor) -> Callable[[], object]:
    return _forward(work, work.network(arch).eval(), frames)


def _training(work: Workload, arch: str, frames: Tensor) -> Callable[[], object]:
    step = TrainingStep(work, work.network(arch))
    return partial(step, frames, torch.arange(work.batch_size, device=work.device) % work.num_classes)


def _forward(work: Workload, network: nn.Module, frames: Tensor) -> Callable[[], object]:
    def call() -> Tensor:
        with torch.inference_mode(), autocast(AMP[work.dtype], work.device):
            logits: Tensor = network(frames)
        return logits

    return call
