"""What setup.py builds: every instruction set gives the same bits, and without a compiler the op still works, and says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY
from tin import ops

RESULTS = """
import sys, torch
torch.manual_seed(0)
from tests.op_cases import ALL_TYPES, CASES, FORMATS, LARGE, gradients
from tin import ops
results = []
for case in (*CASES, *LARGE):
    for dtype in ALL_TYPES if case in CASES else [torch.float32, torch.bfloat16, torch.float16]:
        for memory_format in FORMATS:
            inputs = case.tensors(dtype, memory_format)
            arguments = (case.segments, case.group_size)
            grad = inputs[0].flip(0).contiguous(memory_format=memory_format)
            results += [ops.temporal_interlace(*inputs, *arguments)]
            results += gradients(ops.temporal_interlace, inputs, grad, *arguments)
for dtype in ALL_TYPES:  # what residual blocks use beside the op
    for channels, groups, size in ((72, 2, 8), (64, 4, 4), (272, 4, 16), (72, 2, 12)):
        fold, seeds = groups * size, range(3)
        grad, passed, x = (torch.randn(16, channels, 9, 7, generator=torch.Generator().manual_seed(s)) for s in seeds)
        grad, passed, x = (t.to(dtype).contiguous(memory_format=torch.channels_last) for t in (grad, passed, x))
        offset = torch.rand(2, groups, generator=torch.Generator().manual_seed(3)) * 4 - 2
        offset[0, 0] = 1.0  # a frame that the sums read and the gradient does not
        weight = torch.rand(2, 8, groups, generator=torch.Generator().manual_seed(4))
        offset, weight = (t.to(torch.promote_types(dtype, torch.float32)) for t in (offset, weight))
        kept, means = torch.ops.tin.take_fold(x, fold)
        signs = torch.ops.tin.add_relu_signs_(x, passed, kept)
        for stride in (1, 2):
            thin = passed[:, :, ::stride, ::stride]
            for chosen in (None, signs):
                results += torch.ops.tin.split_backward(grad, kept, offset, weight, 8, size, thin, stride, chosen)
                torch.ops.tin.spread_means_(results[-3], means, chosen)
        for keep in (True, False):
            results += [torch.ops.tin.temporal_interlace_(x, offset, weight, 8, size, keep)]
        results += [kept, means, signs, x.clone(), torch.ops.tin.add_relu_backward(grad, signs)]
        norm = [torch.rand(channels, generator=torch.Generator().manual_seed(s)).to(offset.dtype) for s in range(4)]
        results += torch.ops.tin.add_relu_pool_(x, passed, kept, True, 24)
        for taken in (None, kept):
            made = torch.ops.tin.batch_norm_relu(grad, passed, taken, *norm, 0.1, 1e-5, 24)
            results += [*made, *torch.ops.tin.batch_norm_backward(x, made[1], grad, norm[0], made[2], made[3])]
        results += [torch.ops.tin.norm_add_relu_pool_(x, passed, *norm, 1e-5, None, 16), x.clone()]
        torch.ops.tin.norm_relu_(x, *norm, 1e-5)
        results += [x]
torch.save([ops.backend().simd, results], sys.argv[1])
"""


def run_python(
    code: str, *arguments: str, cwd: Path = REPOSITORY, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(cwd), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=True
    )


@pytest.mark.slow
@pytest.mark.skipif(ops.backend().simd in (None, "generic"), reason="there is one instruction set only")
def test_every_instruction_set_gives_the_same_bits(tmp_path: Path) -> None:
    found = {}
    for level in ("generic", "avx2", "avx512"):
        run_python(RESULTS, str(tmp_path / level), TIN_SIMD=level)
        name, found[level] = torch.load(tmp_path / level)
        assert name == level or ops.backend().simd == "avx2"
    for level in ("avx2", "avx512"):
        for ours, expected in zip(found[level], found["generic"], strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)


FALLBACK = """
import warnings, torch
from tin import ops
found = ops.backend()
assert (found.cpu, found.simd) == ("reference", None), found
x, offset, weight = torch.randn(8, 16, 3, 3), torch.rand(2, 2).requires_grad_(), torch.ones(2, 4, 2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    out = ops.temporal_interlace(x, offset, weight, 4)
    out.square().sum().backward()
    again = ops.temporal_interlace(x, offset, weight, 4)
messages = [str(warning.message) for warning in caught]
assert len(messages) == 1 and "PyTorch reference on cpu" in messages[0], messages
expected = ops.temporal_interlace_reference(x, offset, weight, 4)
torch.testing.assert_close(out, expected)
assert torch.equal(out, again)
torch.testing.assert_close(offset.grad, torch.autograd.grad(expected.square().sum(), offset)[0])
torch.library.opcheck(torch.ops.tin.temporal_interlace.default, (x, offset, weight, 4))
print(found.cpu_reason)
"""


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["/nonexistent/c++", "false"])
def test_without_a_compiler_the_op_works_and_warns_once(tmp_path: Path, compiler: str) -> None:
    """One that is not there, and one that fails."""
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "README.md").write_text("")
    for name in ("tin", "csrc"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("lib", "__pycache__"))
    build = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", "wheel"],
        cwd=tmp_path,
        env={**os.environ, "CXX": compiler, "TIN_CUDA": "0"},
        capture_output=True,
        text=True,
    )
    assert build.returncode == 0, build.stderr
    assert build.stderr.count("WARNING: the CPU kernels were not built") == 1
    (wheel,) = (tmp_path / "wheel").iterdir()
    assert "-py3-none-" in wheel.name
    shutil.unpack_archive(wheel, tmp_path / "installed", format="zip")
    assert not list((tmp_path / "installed").rglob("*.so"))
    assert "no libtin_cpu.so" in run_python(FALLBACK, cwd=tmp_path / "installed").stdout


def test_libraries_need_neither_a_python_nor_cuda_libraries() -> None:
    libraries = sorted((REPOSITORY / "tin" / "lib").glob("*.so"))
    if not libraries:
        pytest.skip("no compiled kernels here")
    if not shutil.which("readelf"):
        pytest.skip("no readelf")
    for library in libraries:
        dynamic = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
        needed = [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line]
        assert "libtorch_cpu.so" in needed
        assert not [name for name in needed if "python" in name or "cuda" in name or "cudart" in name]
