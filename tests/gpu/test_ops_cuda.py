"""The op on a GPU: the same values and gradients as on the CPU, on any stream, in graphs, without ever waiting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from tests.op_cases import ALL_TYPES, CASES, FORMATS, HALF_TYPES, Case, gradients, tolerance
from tin import ops
from tin.ops import temporal_interlace, temporal_interlace_reference

pytestmark = pytest.mark.gpu

SMALL = Case(4, 16, 2, 3, 5, (0.3, -1.6, 1.4))
LAYER = Case(8, 256, 16, 56, 56, (0.4, -1.3, -0.4, 1.3))


@pytest.fixture(autouse=True)
def native_kernels() -> None:
    assert ops.backend().cuda == "native", ops.backend().cuda_reason


@contextmanager
def no_waiting() -> Iterator[None]:
    """Any call that makes the host wait for the GPU raises."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", ALL_TYPES, ids=str)
@pytest.mark.parametrize("case", [*CASES, Case(8, 64, 4, 56, 56, (0.4, -1.3, -0.4, 1.3), clips=1)], ids=str)
def test_values_gradients_and_format_match_the_reference(
    case: Case, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    inputs = case.tensors(dtype, memory_format, "cuda")
    arguments = (case.segments, case.group_size)
    out = temporal_interlace(*inputs, *arguments)
    torch.testing.assert_close(out, temporal_interlace_reference(*inputs, *arguments), **tolerance(dtype))
    assert out.stride() == inputs[0].stride()
    grad = torch.randn_like(out)
    found = gradients(temporal_interlace, inputs, grad, *arguments)
    x, offset, weight = (tensor.double() for tensor in inputs)
    exact = gradients(temporal_interlace_reference, (x, offset, weight), grad.double(), *arguments)
    torch.testing.assert_close(found[0], exact[0].to(dtype), **tolerance(dtype))
    assert found[0].is_contiguous(memory_format=memory_format)
    limits = tolerance(inputs[1].dtype)
    limits["atol"] *= max(1.0, (case.group_size * case.height * case.width * case.segments) ** 0.5 / 4)
    for ours, expected in zip(found[1:], exact[1:], strict=True):
        torch.testing.assert_close(ours, expected.to(ours.dtype), **limits)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_strict_gradcheck(memory_format: torch.memory_format) -> None:
    inputs = tuple(tensor.requires_grad_() for tensor in SMALL.tensors(torch.float64, memory_format, "cuda"))
    assert torch.autograd.gradcheck(lambda *a: temporal_interlace(*a, SMALL.segments, SMALL.group_size), inputs)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_opcheck(memory_format: torch.memory_format) -> None:
    x, offset, weight = (t.requires_grad_() for t in SMALL.tensors(torch.float32, memory_format, "cuda"))
    torch.library.opcheck(
        torch.ops.tin.temporal_interlace.default, (x, offset, weight, SMALL.segments, SMALL.group_size)
    )
    plain = [t.detach() for t in (torch.randn_like(x), x, offset, weight)]
    torch.library.opcheck(
        torch.ops.tin.temporal_interlace_backward.default,
        (*plain, SMALL.segments, True, True, True, SMALL.group_size),
    )


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_every_half_number_passes_a_shift_unchanged(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32, device="cuda").to(torch.int16).view(dtype)
    x = every.reshape(1, 1, 256, 256)
    out = temporal_interlace(x, torch.zeros(1, 1, device="cuda"), torch.ones(1, 1, 1, device="cuda"), 1, 1)
    assert torch.equal(out.isnan(), x.isnan())
    assert torch.equal(out.view(torch.int16)[~x.isnan()], x.view(torch.int16)[~x.isnan()])


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_nan_offset_and_bad_numbers_behave_as_on_the_cpu(memory_format: torch.memory_format) -> None:
    x, offset, weight = Case(8, 64, 4, 5, 5, (0.4, 1.0, -0.4, 0.0)).tensors(torch.float32, memory_format)
    offset[0, 2] = float("nan")
    x[3, :, 2, 2] = float("inf")
    x[9, :, 1, 1] = float("nan")
    grad = torch.randn_like(x)
    on_cpu = [
        temporal_interlace(x, offset, weight, 8, 4),
        *gradients(temporal_interlace, (x, offset, weight), grad, 8, 4),
    ]
    inputs = (x.cuda(), offset.cuda(), weight.cuda())
    on_gpu = [temporal_interlace(*inputs, 8, 4), *gradients(temporal_interlace, inputs, grad.cuda(), 8, 4)]
    for ours, expected in zip(on_gpu, on_cpu, strict=True):
        torch.testing.assert_close(ours.cpu(), expected, equal_nan=True, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_same_bits_every_time(memory_format: torch.memory_format) -> None:
    inputs = LAYER.tensors(torch.float16, memory_format, "cuda")
    grad = torch.randn_like(inputs[0])
    first = gradients(temporal_interlace, inputs, grad, 8, 16)
    for _ in range(5):
        again = gradients(temporal_interlace, inputs, grad, 8, 16)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def _step(inputs: list[Tensor]) -> list[Tensor]:
    out = temporal_interlace(*inputs, LAYER.segments, LAYER.group_size)
    return [out, *torch.autograd.grad(out, inputs, torch.ones_like(out))]


@pytest.mark.parametrize("parameters", [torch.float32, torch.float16], ids=str)
def test_never_waits(parameters: torch.dtype) -> None:
    inputs = [
        t.requires_grad_() for t in LAYER.tensors(torch.float16, torch.channels_last, "cuda", parameters=parameters)
    ]
    with no_waiting():
        _step(inputs)


def test_autocast_never_waits_and_keeps_half() -> None:
    x, offset, weight = LAYER.tensors(torch.float16, torch.channels_last, "cuda", parameters=torch.float16)
    with no_waiting(), torch.autocast("cuda", dtype=torch.float16):
        out = torch.ops.tin.temporal_interlace(x, offset, weight, LAYER.segments, LAYER.group_size)
    assert out.dtype == torch.float16
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_runs_on_the_current_stream() -> None:
    """On the default stream it would read the input before the long wait that makes it."""
    x, offset, weight = SMALL.tensors(torch.float32, torch.channels_last, "cuda")
    expected = temporal_interlace(x, offset, weight, SMALL.segments, SMALL.group_size)
    late = torch.zeros_like(x)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        late.copy_(x)
        out = temporal_interlace(late, offset, weight, SMALL.segments, SMALL.group_size)
    stream.synchronize()
    assert torch.equal(out, expected)


def test_is_captured_in_a_cuda_graph() -> None:
    inputs = [t.requires_grad_() for t in LAYER.tensors(torch.float16, torch.channels_last, "cuda")]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        _step(inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = _step(inputs)
    with torch.no_grad():
        inputs[0].mul_(-0.5)
        inputs[1].add_(0.25)
    graph.replay()
    for ours, expected in zip(captured, _step(inputs), strict=True):
        assert torch.equal(ours, expected)


def test_runs_on_the_device_of_its_input() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    inputs = SMALL.tensors(torch.float32, torch.channels_last, "cuda:1")
    with torch.cuda.device(0):
        out = temporal_interlace(*inputs, SMALL.segments, SMALL.group_size)
        assert torch.cuda.current_device() == 0
    expected = temporal_interlace_reference(*inputs, SMALL.segments, SMALL.group_size)
    torch.testing.assert_close(out, expected)


def test_more_than_two_to_the_thirty_one_elements() -> None:
    if torch.cuda.get_device_properties(0).total_memory < 24 * 2**30:
        pytest.skip("needs 16 GiB of GPU memory")
    x = torch.zeros(8, 64, 2100, 2100, dtype=torch.float16, device="cuda").contiguous(memory_format=torch.channels_last)
    x[-1, :, -1, -1] = 3
    offset, weight = torch.tensor([[0.0, -1.0]], device="cuda"), torch.ones(1, 8, 2, device="cuda")
    assert x.numel() > 2**31
    out = temporal_interlace(x, offset, weight, 8)
    assert out[-1, :, -1, -1].tolist() == [3.0] * 8 + [0.0] * 8 + [3.0] * 48
    assert out[-2, :, -1, -1].tolist() == [0.0] * 8 + [3.0] * 8 + [0.0] * 48


def test_compiles_as_one_graph() -> None:
    inputs = [t.requires_grad_() for t in LAYER.tensors(torch.float16, torch.channels_last, "cuda")]
    function = torch.compile(lambda x, o, w: temporal_interlace(x * 2, o, w, 8, 16).relu(), fullgraph=True)
    out = function(*inputs)
    torch.testing.assert_close(out, temporal_interlace(inputs[0] * 2, *inputs[1:], 8, 16).relu())
    assert all(grad is not None for grad in torch.autograd.grad(out.float().sum(), inputs))
