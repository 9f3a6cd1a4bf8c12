"""The network alone: inference and training steps of TIN and TSM against the plain ResNet that TSN is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tin.bench.timing import Rounds, median_ratio, row, synchronize, time_in_turns
from tin.models import build_model
from tin.recipes import OptimSettings
from tin.train.amp import autocast
from tin.train.optim import build_optimizer

AMP = {"float32": "off", "float16": "fp16", "bfloat16": "bf16"}
"""Mixed precision by the type that convolutions compute in."""


@dataclass(frozen=True)
class Workload:
    """What is computed: clips of `num_segments` random frames of input_size², channels_last, on one device.

    Attributes:
        arch: an architecture of `build_model`.
        batch_size: clips a step. `inference` always takes one.
        dtype: float32; or float16 or bfloat16, under autocast.
    """

    arch: str = "tin_resnet50"
    batch_size: int = 1
    num_segments: int = 8
    input_size: int = 224
    dtype: str = "float32"
    device: torch.device = torch.device("cpu")  # noqa: RUF009
    num_classes: int = 400

    def settings(self, rounds: Rounds) -> dict[str, Any]:
        """For the result file."""
        return {**asdict(self), "device": str(self.device), **asdict(rounds)}

    def plain(self) -> str:
        """The architecture of the same depth without any temporal operation."""
        return f"tsn_{self.arch.partition('_')[2]}"

    def build(self, arch: str) -> nn.Module:
        """The network on its device, channels_last, randomly initialised."""
        model = build_model(arch, self.num_classes, self.num_segments)
        return model.to(self.device, memory_format=torch.channels_last)

    def frames(self, clips: int) -> Tensor:
        """(clips · T, 3, S, S) of noise, in the type that the loader would hand over."""
        shape = (clips * self.num_segments, 3, self.input_size, self.input_size)
        frames = torch.randn(shape, device=self.device, dtype=getattr(torch, self.dtype))
        return frames.contiguous(memory_format=torch.channels_last)


def inference(work: Workload, rounds: Rounds) -> dict[str, Any]:
    """Inference time of one clip, and its ratio to the plain ResNet's.

    The protocol of the TIN results table (REFERENCE section 5): batch 1, test-sampled frames already on the device, the
    model's forward alone, without reading or preprocessing, synchronised around each forward.

    Returns:
        `settings` and `rows`: milliseconds of the architecture and of TSN.
    """
    frames = work.frames(1)
    archs = list(dict.fromkeys((work.arch, work.plain())))
    calls = {arch: _forward(work, work.build(arch), frames) for arch in archs}
    samples = time_in_turns(calls, work.device, rounds)
    plain = samples[work.plain()]
    rows = [
        row(f"{arch}, one clip", "ms", samples[arch], median_ratio(samples[arch], plain), work.plain(), scale=1e3)
        for arch in archs
    ]
    return {"settings": {**work.settings(rounds), "batch_size": 1}, "rows": rows}


def model(work: Workload, rounds: Rounds, train_rounds: Rounds) -> dict[str, Any]:
    """Time of inference and of a training step of TIN, TSM and TSN of one depth, and their ratios to TSN's.

    A training step is forward, loss, backward, norm clipping and SGD, as `tin.train` does it. On a GPU each line has its
    peak memory in MiB too.

    Returns:
        `settings` and `rows`, in milliseconds a step of `batch_size` clips.
    """
    depth = work.arch.partition("_")[2]
    archs = [f"{kind}_{depth}" for kind in ("tin", "tsm", "tsn")]
    frames = work.frames(work.batch_size)
    labels = torch.arange(work.batch_size, device=work.device) % work.num_classes
    rows = []
    for what, make, count in (("inference", _forward, rounds), ("training step", _training, train_rounds)):
        calls: dict[str, Callable[[], object]] = {}
        memory: dict[str, float | None] = {}
        for arch in archs:
            memory[arch], calls[arch] = _with_peak_memory(work, arch, make, frames, labels)
        samples = time_in_turns(calls, work.device, count)
        for arch in archs:
            ratio = median_ratio(samples[arch], samples[work.plain()])
            line = row(f"{arch}, {what}", "ms", samples[arch], ratio, work.plain(), scale=1e3)
            line["clips_per_second"] = work.batch_size * 1e3 / line["median"]
            if memory[arch] is not None:
                line["peak_memory_mib"] = memory[arch]
            rows.append(line)
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


def _forward(work: Workload, network: nn.Module, frames: Tensor, labels: Tensor | None = None) -> Callable[[], object]:
    network.eval()

    def call() -> Tensor:
        with torch.inference_mode(), autocast(AMP[work.dtype], work.device):
            logits: Tensor = network(frames)
        return logits

    return call


def _training(work: Workload, network: nn.Module, frames: Tensor, labels: Tensor) -> Callable[[], object]:
    step = TrainingStep(work, network)
    return lambda: step(frames, labels)


def _with_peak_memory(
    work: Workload,
    arch: str,
    make: Callable[[Workload, nn.Module, Tensor, Tensor], Callable[[], object]],
    frames: Tensor,
    labels: Tensor,
) -> tuple[float | None, Callable[[], object]]:
    """A call for `arch`, and, on a GPU, the most memory in MiB that the network and one call took."""
    if work.device.type != "cuda":
        return None, make(work, work.build(arch), frames, labels)
    synchronize(work.device)
    torch.cuda.reset_peak_memory_stats(work.device)
    before = torch.cuda.memory_allocated(work.device)
    call = make(work, work.build(arch), frames, labels)
    call()
    synchronize(work.device)
    return (torch.cuda.max_memory_allocated(work.device) - before) / 2**20, call
