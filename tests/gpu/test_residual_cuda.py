"""The splits, joins and small networks of csrc/ on a GPU, against PyTorch's operators and the CPU kernels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import tin
from tin import joins, ops
from tin.models.interlace import TemporalInterlace, TemporalShift

pytestmark = pytest.mark.gpu

FORMATS = [torch.channels_last, torch.contiguous_format]


def clip(*shape: int, dtype: torch.dtype, layout: torch.memory_format, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype).cuda().contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(2, 10, 7, 5), (16, 64, 28, 28)], ids=str)
def test_joins_are_pytorchs_addition_and_relu(
    shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    a, b, flow = (clip(*shape, dtype=dtype, layout=layout, seed=s) for s in (1, 2, 3))
    ours, theirs = ([t.clone().requires_grad_() for t in (a, b)] for _ in range(2))
    joined, expected = (
        joins.join(nn.Identity(), nn.Identity(), ours[0] * 1, ours[1]),
        torch.relu(theirs[0] * 1 + theirs[1]),
    )
    assert torch.equal(joined, expected)
    joined.backward(flow)
    expected.backward(flow)
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x.grad, y.grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_norm_in_evaluation_mode_is_part_of_the_join(dtype: torch.dtype, layout: torch.memory_format) -> None:
    norm = nn.BatchNorm2d(24).eval().cuda()
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        assert tensor is not None
        tensor.data.uniform_(0.5, 1.5)
    branch, identity = (clip(4, 24, 9, 5, dtype=dtype, layout=layout, seed=s) for s in (1, 2))
    with torch.inference_mode():
        expected = torch.relu(norm(branch.float()) + identity).to(dtype)
        torch.testing.assert_close(joins.join(nn.Identity(), norm, branch, identity), expected)


@pytest.mark.parametrize("segments", [1, 8, 64, 65])
@pytest.mark.parametrize("kind", ["tin", "tsm"])
def test_splits_match_the_cpu_in_value_and_every_gradient(kind: str, segments: int) -> None:
    torch.manual_seed(0)
    module = (TemporalInterlace(64, segments) if kind == "tin" else TemporalShift(64, segments)).double()
    twin = copy.deepcopy(module).cuda()
    x = torch.randn(2 * segments, 64, 5, 3, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    y = x.detach().cuda().requires_grad_()
    flows = torch.randn_like(x), torch.randn_like(x)
    expected, found = module(x)[:2], twin(y)[:2]
    torch.autograd.backward(expected, flows)
    torch.autograd.backward(found, [flow.cuda() for flow in flows])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(y.grad.cpu(), x.grad, rtol=1e-10, atol=1e-12)  # type: ignore[union-attr]
    for ours, theirs in zip(twin.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.cpu(), theirs.grad, rtol=1e-9, atol=1e-11)  # type: ignore[union-attr]


def test_a_training_step_gives_the_same_bits_twice() -> None:
    assert ops.has_native("cuda")
    torch.manual_seed(0)
    model = tin.build_model("tin_resnet50", 7, dropout=0.0).cuda().to(memory_format=torch.channels_last)
    frames = clip(16, 3, 64, 64, dtype=torch.float32, layout=torch.channels_last, seed=1)
    results = []
    for _ in range(2):
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
            model(frames).square().sum().backward()
        results.append([p.grad.clone() for name, p in model.named_parameters() if ".tin." in name])  # type: ignore[union-attr]
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)
