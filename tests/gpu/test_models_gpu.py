"""The networks on a GPU: the CPU's numbers, no waiting for the device, half precision, whole-graph compilation."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

import tin
from tin.bench import inference, model, op
from tin.bench.timing import Rounds
from tin.bench.workload import Workload

pytestmark = pytest.mark.gpu


def built(kind: str, segments: int = 4) -> torch.nn.Module:
    torch.manual_seed(0)
    network = tin.build_model(f"{kind}_resnet18", 7, num_segments=segments, dropout=0.0)
    return network.to("cuda", memory_format=torch.channels_last)


@pytest.fixture
def frames() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(8, 3, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", ["tin", "tsm"])
def test_float64_equals_the_cpu(kind: str, frames: torch.Tensor) -> None:
    network = built(kind).double().eval()
    with torch.no_grad():
        on_gpu = network(frames.double()).cpu()
        on_cpu = network.cpu()(frames.double().cpu())
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_trains_and_keeps_offsets_in_float32(dtype: torch.dtype, frames: torch.Tensor) -> None:
    network = built("tin").train()
    seen: list[torch.dtype] = []
    network.layer3[1].tin.offset.register_forward_hook(lambda m, args, out: seen.append(out.dtype))  # type: ignore[index, union-attr]
    with torch.autocast("cuda", dtype=dtype):
        loss = cross_entropy(network(frames), torch.tensor([1, 2], device="cuda"))
    loss.backward()
    assert seen == [torch.float32]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("kind", ["tin", "tsm", "tsn"])
def test_a_training_step_never_waits_for_the_device(kind: str, frames: torch.Tensor) -> None:
    network = built(kind).train()
    labels = torch.tensor([1, 2], device="cuda")
    cross_entropy(network(frames), labels).backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        cross_entropy(network(frames), labels).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow
def test_it_compiles_whole(frames: torch.Tensor) -> None:
    network = built("tin").eval()
    with torch.no_grad():
        expected = network(frames)
        torch.testing.assert_close(torch.compile(network, fullgraph=True)(frames), expected, rtol=1e-2, atol=1e-3)


def test_a_cuda_graph_replays_it(frames: torch.Tensor) -> None:
    network = built("tin").eval()
    with torch.no_grad():
        for _ in range(3):
            network(frames)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = network(frames)
        frames.copy_(torch.randn_like(frames))
        graph.replay()
        torch.testing.assert_close(out, network(frames), rtol=1e-3, atol=1e-4)


def test_benchmarks_say_how_much_memory_was_used() -> None:
    work = Workload("tin_resnet18", 2, 4, 64, "float16", torch.device("cuda"))
    rounds = Rounds(2, 3)
    lines = model(work, rounds, rounds)["rows"]
    assert all(line["peak_memory_mib"] > 1 for line in lines)
    assert lines[6]["peak_memory_mib"] > lines[3]["peak_memory_mib"]
    assert len(inference(work, rounds)["rows"]) == 4
    assert len(op(work, rounds, skip_compiled="not here")["rows"]) == 8
