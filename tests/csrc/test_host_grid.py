"""The CUDA kernels' threads, walked on the CPU by host_grid.cpp: what a machine without a GPU can prove of them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.conftest import REPOSITORY
from tests.op_cases import ALL_TYPES, CASES, FORMATS, Case, gradients, tolerance
from tin.ops import temporal_interlace_reference

NAMES = {torch.float32: "float32", torch.float64: "float64", torch.float16: "float16", torch.bfloat16: "bfloat16"}
GUARD = 64  # elements of NaN before and after every tensor: reading one shows in the result, writing one is looked for

# cases for the paths that CASES does not reach: several tiles of a row, many rows, halves of vectors, long planes
MORE = (
    Case(2, 2560, 160, 1, 2, (0.5, -0.5, 1.25, -1.25), clips=1),
    Case(2, 2564, 3, 3, 1, (0.5, -0.5), clips=1),
    Case(3, 16, 4, 23, 29, (0.25, -1.25), clips=1),
    Case(2, 8, 1, 91, 93, (0.25,), clips=1),
    Case(2, 4, 2, 100, 100, (0.25, -0.75), clips=1),
)


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = tmp_path_factory.mktemp("host_grid") / "host_grid.so"
    source = Path(__file__).with_name("host_grid.cpp")
    flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]
    checks = ["-fsanitize=undefined", "-fno-sanitize-recover", "-static-libubsan"]
    subprocess.run([compiler, *flags, *checks, "-I", REPOSITORY / "csrc", source, "-o", library], check=True)
    return ctypes.CDLL(str(library))


class Guarded:
    """Memory for a tensor between guards; `shift` elements off a 16-byte boundary."""

    def __init__(self, like: Tensor, fill: bool, shift: int = 0) -> None:
        self.first, self.count = GUARD + shift, like.numel()
        self.memory = torch.full((like.numel() + 2 * GUARD + shift,), float("nan"), dtype=like.dtype)
        self.tensor = self.memory[self.first : self.first + self.count].as_strided(
            like.shape, like.stride(), storage_offset=self.first
        )
        if fill:
            self.tensor.copy_(like)

    def pointer(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.memory.data_ptr() + self.first * self.memory.element_size())

    def check_guards(self) -> None:
        assert self.memory[: self.first].isnan().all()
        assert self.memory[self.first + self.count :].isnan().all()


def parameters(case: Case, memory_format: torch.memory_format) -> ctypes.Array[ctypes.c_int64]:
    """struct Params of csrc/interlace.h."""
    pixels, groups = case.height * case.width, len(case.offsets)
    frame = case.channels * pixels
    last = memory_format == torch.channels_last
    layout = (pixels, case.channels, case.group_size) if last else (1, frame, case.group_size * pixels)
    return (ctypes.c_int64 * 7)(case.clips, case.segments, groups, *layout, frame)


def walk(library: ctypes.CDLL, case: Case, dtype: torch.dtype, memory_format: torch.memory_format, shift: int) -> int:
    """Compares both passes with the reference; returns what shape of access the grid chose, 100·V + S."""
    x, offset, weight = case.tensors(dtype, memory_format)
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    grad = grad.contiguous(memory_format=memory_format)
    p = parameters(case, memory_format)
    inputs = [Guarded(tensor, fill=True, shift=shift) for tensor in (x, grad)]
    small = [Guarded(tensor, fill=True) for tensor in (offset, weight)]
    out, grad_x = (Guarded(x, fill=False, shift=shift) for _ in range(2))
    grad_offset, grad_weight = (Guarded(tensor, fill=False) for tensor in (offset, weight))

    forward: Callable[..., int] = getattr(library, f"forward_{NAMES[dtype]}")
    access = forward(p, inputs[0].pointer(), *(t.pointer() for t in small), out.pointer())
    backward = getattr(library, f"backward_{NAMES[dtype]}")
    pointers = [t.pointer() for t in (inputs[1], inputs[0], *small, grad_x, grad_offset, grad_weight)]
    whole = [ctypes.c_int64(value) for value in (p[4], p[6])]  # x's row and frame
    backward(p, *pointers, None, *whole)
    for guarded in (*inputs, *small, out, grad_x, grad_offset, grad_weight):
        guarded.check_guards()

    arguments = (case.segments, case.group_size)
    expected = temporal_interlace_reference(x, offset, weight, *arguments)
    torch.testing.assert_close(out.tensor, expected, **tolerance(dtype))
    exact = gradients(
        temporal_interlace_reference, (x.double(), offset.double(), weight.double()), grad.double(), *arguments
    )
    torch.testing.assert_close(grad_x.tensor, exact[0].to(dtype), **tolerance(dtype))
    size = case.group_size * case.height * case.width * case.segments
    limits = tolerance(offset.dtype)
    limits["atol"] *= max(1.0, size**0.5 / 4)
    torch.testing.assert_close(grad_offset.tensor, exact[1].to(offset.dtype), **limits)
    torch.testing.assert_close(grad_weight.tensor, exact[2].to(offset.dtype), **limits)

    alone = Guarded(x, fill=False, shift=shift)  # the input's gradient without the others, which takes other kernels
    backward(p, inputs[1].pointer(), None, *(t.pointer() for t in small), alone.pointer(), None, None, None, *whole)
    assert torch.equal(alone.tensor, grad_x.tensor)
    again = [Guarded(tensor, fill=False) for tensor in (offset, weight)]  # and the others without it
    backward(p, *pointers[:4], None, *(t.pointer() for t in again), None, *whole)
    assert torch.equal(again[0].tensor, grad_offset.tensor)
    assert torch.equal(again[1].tensor, grad_weight.tensor)

    # the groups of x alone, and the gradient of another reader of x
    fold = case.group_size * len(case.offsets)
    kept = Guarded(x[:, :fold].clone(memory_format=memory_format), fill=True, shift=shift)
    passed = Guarded(torch.randn(x.shape).to(dtype).contiguous(memory_format=memory_format), fill=True, shift=shift)
    summed = Guarded(x, fill=False, shift=shift)
    narrow = (fold if p[3] > 1 else p[4], fold * case.height * case.width)
    backward(
        p, inputs[1].pointer(), kept.pointer(), *(t.pointer() for t in small), summed.pointer(),
        *(t.pointer() for t in again), passed.pointer(), *(ctypes.c_int64(value) for value in narrow),
    )  # fmt: skip
    torch.testing.assert_close(summed.tensor, (exact[0] + passed.tensor.double()).to(dtype), **tolerance(dtype))
    assert torch.equal(again[0].tensor, grad_offset.tensor)
    assert torch.equal(again[1].tensor, grad_weight.tensor)
    for guarded in (kept, passed, summed, *again):
        guarded.check_guards()
    return access


@pytest.mark.slow
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", ALL_TYPES, ids=str)
def test_walked_kernels_match_the_reference(
    walker: ctypes.CDLL, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    accesses = {walk(walker, case, dtype, memory_format, shift=0) for case in (*CASES, *MORE)}
    full = 16 // dtype.itemsize
    expected = {101, full * 101}
    if memory_format == torch.channels_last and full > 2:
        expected.add(full * 100 + full // 2)
    assert accesses == expected  # the cases reach every shape of access there is


@pytest.mark.slow
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_memory_off_the_16_byte_grid_is_read_element_by_element(
    walker: ctypes.CDLL, memory_format: torch.memory_format
) -> None:
    assert walk(walker, CASES[4], torch.float32, memory_format, shift=1) == 101


@pytest.mark.slow
def test_any_shape_matches_the_reference(walker: ctypes.CDLL) -> None:
    @settings(max_examples=80, deadline=None, database=None)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        group_size = data.draw(st.integers(1, 12))
        groups = data.draw(st.integers(1, 6))
        channels = group_size * groups + data.draw(st.integers(0, 40))
        offsets = data.draw(st.lists(st.floats(-20, 20, width=32), min_size=groups, max_size=groups))
        case = Case(
            data.draw(st.integers(1, 16)),
            channels,
            group_size,
            data.draw(st.integers(1, 9)),
            data.draw(st.integers(1, 9)),
            tuple(offsets),
            clips=1,
        )
        walk(walker, case, data.draw(st.sampled_from(ALL_TYPES)), data.draw(st.sampled_from(FORMATS)), shift=0)

    check()


@pytest.mark.parametrize("count", [1, 7, 8, 250, 4096])
@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("dtype", ALL_TYPES, ids=str)
def test_walked_joins_match_pytorch(walker: ctypes.CDLL, dtype: torch.dtype, shift: int, count: int) -> None:
    branch, identity, grad = (Guarded(torch.randn(count).to(dtype), fill=True, shift=shift) for _ in range(3))
    signs = torch.zeros((count + 7) // 8, dtype=torch.uint8)
    expected = torch.relu(branch.tensor + identity.tensor)
    size = ctypes.c_int64(count)
    getattr(walker, f"join_{NAMES[dtype]}")(
        branch.pointer(), identity.pointer(), ctypes.c_void_p(signs.data_ptr()), size
    )
    assert torch.equal(branch.tensor, expected)
    out = Guarded(grad.tensor, fill=False, shift=shift)
    getattr(walker, f"join_backward_{NAMES[dtype]}")(
        grad.pointer(), ctypes.c_void_p(signs.data_ptr()), out.pointer(), size
    )
    assert torch.equal(out.tensor, torch.where(expected > 0, grad.tensor, 0))
    for guarded in (branch, identity, grad, out):
        guarded.check_guards()


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", ALL_TYPES, ids=str)
def test_walked_joins_with_a_norm_match_pytorch(
    walker: ctypes.CDLL, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    shape, wide = (3, 10, 5, 3), torch.promote_types(dtype, torch.float32)
    x, identity = (torch.randn(shape).to(dtype).contiguous(memory_format=memory_format) for _ in range(2))
    mean, var, weight, bias = (torch.rand(10, dtype=wide) + 0.5 for _ in range(4))
    normed = torch.nn.functional.batch_norm(x.to(wide), mean, var, weight, bias, eps=1e-5)
    expected = torch.relu(normed + identity).to(dtype)
    branch = Guarded(x, fill=True)
    inner = 1 if memory_format == torch.channels_last else 15
    getattr(walker, f"norm_join_{NAMES[dtype]}")(
        branch.pointer(), Guarded(identity, fill=True).pointer(),
        *(ctypes.c_void_p(v.data_ptr()) for v in (mean, var, weight, bias)),
        ctypes.c_double(1e-5), *(ctypes.c_int64(v) for v in (10, inner, x.numel())),
    )  # fmt: skip
    torch.testing.assert_close(branch.tensor, expected, **tolerance(dtype))
    branch.check_guards()


@pytest.mark.parametrize(("clips", "segments", "fold"), [(1, 1, 4), (3, 8, 16), (2, 64, 12), (5, 3, 520)])
def test_walked_networks_match_the_cpu_kernels(walker: ctypes.CDLL, clips: int, segments: int, fold: int) -> None:
    T, F = segments, fold
    shapes = ((1, F, 3), (1,), (2, F, 3), (2,), (T, T), (T,), (2, T), (2,))
    weights = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    means = torch.randn(clips * T, F, dtype=torch.float64)
    expected = torch.ops.tin.interlace_nets(means, weights, T)
    sizes = [ctypes.c_int64(value) for value in (clips, T, F)]

    def pointers(tensors: list[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
        return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))

    def each(tensors: list[Tensor]) -> list[ctypes.c_void_p]:
        return [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]

    found = [torch.full_like(tensor, float("nan")) for tensor in expected]
    walker.nets_float64(*sizes, *each([means]), pointers(weights), *each(found))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)

    flows = [torch.randn_like(tensor) for tensor in expected[:2]]
    grads = torch.ops.tin.interlace_nets_backward(means, weights, *expected, *flows, T)
    walked = [torch.full_like(tensor, float("nan")) for tensor in grads]
    walker.nets_backward_float64(
        *sizes, *each([means]), pointers(weights), *each([*expected, *flows]), *each(walked[:1]),
        pointers(walked[1:]),
    )  # fmt: skip
    for ours, theirs in zip(walked, grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["interlace_cuda.cu", "residual_cuda.cu"])
def test_cuda_sources_compile(tmp_path: Path, name: str) -> None:
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")
    flags = ["-std=c++20", "-O3", "-Xptxas=-v", "-Werror=all-warnings", "-gencode=arch=compute_80,code=sm_80"]
    source = REPOSITORY / "csrc" / name
    result = subprocess.run([nvcc, *flags, "-c", source, "-o", tmp_path / "kernels.o"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    spills = [line.strip() for line in result.stderr.splitlines() if "spill stores" in line]
    assert spills
    assert all("0 bytes spill stores, 0 bytes spill loads" in line for line in spills)
