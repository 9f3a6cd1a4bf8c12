"""What training keeps in memory: peaks on a GPU, and what autograd saves for the backward pass on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from tin import ops
from tin.bench.timing import synchronize
from tin.bench.workload import AMP, Workload
from tin.models.interlace import TemporalInterlace
from tin.train.amp import autocast

Call = TypeVar("Call", bound=Callable[[], object])


def with_peak_memory(device: torch.device, make: Callable[[], Call]) -> tuple[float | None, Call]:
    """A call that `make` makes, and, on a GPU, the most memory in MiB that making it and calling it once took."""
    if device.type != "cuda":
        return None, make()
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call = make()
    call()
    synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20, call


def saved_by_network(work: Workload, arch: str) -> int:
    """Bytes kept between forward and backward of a training step on `batch_size` clips, without the parameters."""
    network, frames = work.network(arch).train(), work.frames(work.batch_size)

    def forward() -> None:
        with autocast(AMP[work.dtype], work.device):
            network(frames).sum()

    return saved_bytes(forward, network.parameters())


def saved_by_reference(work: Workload, arch: str) -> int:
    """Bytes that all temporal modules of `arch` would keep with the op's PyTorch reference, their output to conv1 included.

    Without the modules' input, which the block before keeps anyway. Nothing is computed: tensors are on the meta device.
    """
    total = 0
    frames, dtype = work.batch_size * work.num_segments, work.torch_dtype
    for module, (channels, height, width) in work.temporal_layers(arch):
        learned = isinstance(module, TemporalInterlace)
        groups = 4 if learned else 2
        x = torch.empty(frames, channels, height, width, dtype=dtype, device="meta", requires_grad=True)
        offset = torch.empty(work.batch_size, groups, device="meta", requires_grad=learned)
        weight = torch.empty(work.batch_size, work.num_segments, groups, device="meta", requires_grad=learned)
        kernel = torch.empty(1, channels, 1, 1, dtype=dtype, device="meta", requires_grad=True)

        def forward(
            x: Tensor = x,
            offset: Tensor = offset,
            weight: Tensor = weight,
            kernel: Tensor = kernel,
            g: int = module.fold,
        ) -> None:
            group_size = g // 4 if offset.shape[1] == 4 else g
            shifted = ops.temporal_interlace_reference(x, offset, weight, work.num_segments, group_size)
            nn.functional.conv2d(shifted, kernel)

        total += saved_bytes(forward, (x, offset, weight, kernel))
    return total


def saved_bytes(run: Callable[[], object], known: Iterable[Tensor]) -> int:
    """Bytes of the storages that autograd saves while `run` runs, each counted once and whole, but those of `known`."""
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    for tensor in known:
        kept.pop(tensor.untyped_storage()._cdata, None)
    return sum(storage.nbytes() for storage in kept.values())
