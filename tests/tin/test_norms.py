"""Batch norms with the ReLU after them against PyTorch's, in evaluation mode and in training: values, gradients, running estimates."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tin.test_residual import FORMATS, TYPES, clip
from tin import joins, norms, ops
from tin.joins import Relay

pytestmark = pytest.mark.skipif(not ops.has_native("cpu"), reason="the kernels were not built here")

SHAPES = [(4, 64, 7, 5), (3, 24, 9, 9), (2, 2056, 3, 3), (16, 72, 40, 40), (1, 8, 1, 2)]


def batch_norm(channels: int, dtype: torch.dtype = torch.float64) -> nn.BatchNorm2d:
    """Whose weights and estimates are not those of a new one."""
    norm = nn.BatchNorm2d(channels, momentum=0.3).to(torch.promote_types(dtype, torch.float32))
    generator = torch.Generator().manual_seed(channels)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.copy_(torch.rand(channels, generator=generator, dtype=torch.float64) + 0.5)
    return norm


def kind(tensor: Tensor) -> str:
    return type(tensor.grad_fn).__name__


def flows(norm: nn.Module, x: Tensor, identity: Tensor | None, result: Tensor) -> list[Tensor | None]:
    """Everything that comes of a result: itself, the gradients, the running estimates."""
    grad = clip(*x.shape, dtype=x.dtype, seed=5)
    result.backward(grad)
    others = [] if identity is None else [identity.grad]
    return [result, x.grad, *others, *(p.grad for p in norm.parameters()), *norm.buffers()]


def share_of_far(one: Tensor | None, other: Tensor | None, tolerance: float) -> float:
    """Of elements that differ by more. Where a rounded sum is zero and the exact one is not, the gradient passes in one alone."""
    assert one is not None
    assert other is not None
    far = (one.double() - other.double()).abs() > tolerance * (1 + other.abs())
    return far.double().mean().item()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_in_training_a_norm_and_a_relu_are_pytorchs(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    ours = batch_norm(shape[1], dtype)
    theirs = copy.deepcopy(ours)
    x = (2 * clip(*shape) + 3).to(dtype)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = norms.rectified(nn.Identity(), ours, nn.ReLU(inplace=True), a)
    assert kind(found) == "_RectifiedBackward"
    assert torch.equal(a, x)
    tolerance, odd = (1e-9, (0.0, 0.0)) if dtype == torch.float64 else (1e-3, (1e-5, 0.05))
    found, expected = flows(ours, a, None, found), flows(theirs, b, None, torch.relu(theirs(b)))
    for one, other in zip(found, expected, strict=True):
        assert share_of_far(one, other, tolerance) <= odd[one is not None and one.dim() < 4]


@pytest.mark.parametrize("folded", [0, 16])
@pytest.mark.parametrize("pooled", [0, 16])
@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_in_training_a_norm_is_part_of_the_join(shape: tuple[int, ...], pooled: int, folded: int) -> None:
    ours = batch_norm(shape[1])
    theirs = copy.deepcopy(ours)
    x, identity = clip(*shape), clip(*shape, seed=1)
    a, b, c, d = (t.clone().requires_grad_() for t in (x, x, identity, identity))
    fold, given = None, c
    if folded:  # where the identity's first channels have been overwritten
        fold = identity[:, :folded].clone(memory_format=torch.channels_last)
        given = c * (torch.arange(shape[1]) >= folded).double()[:, None, None]
    relay = Relay(pooled)
    found = joins.join(nn.Identity(), ours, a, given, fold, relay)
    assert kind(found) == "_JoinBackward"
    expected = torch.relu(theirs(b) + d)
    assert torch.equal(a, x)
    if pooled:
        torch.testing.assert_close(relay.means, expected[:, :pooled].mean((2, 3)), rtol=1e-12, atol=1e-12)
    else:
        assert relay.means is None
    found, expected = flows(ours, a, None, found), flows(theirs, b, None, expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    assert c.grad is not None
    assert d.grad is not None
    torch.testing.assert_close(c.grad[:, folded:], d.grad[:, folded:], rtol=0, atol=0)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_types_are_normed_in_float32(dtype: torch.dtype, joined: bool) -> None:
    norm, wide = batch_norm(40, dtype), batch_norm(40)
    x, identity = clip(6, 40, 9, 7, dtype=dtype), clip(6, 40, 9, 7, dtype=dtype, seed=1)
    a, b = x.clone().requires_grad_(), x.double().requires_grad_()
    if joined:
        found, exact = joins.join(nn.Identity(), norm, a, identity), torch.relu(wide(b) + identity.double())
    else:
        found, exact = norms.rectified(nn.Identity(), norm, nn.ReLU(), a), torch.relu(wide(b))
    assert found.dtype == dtype
    for one, other in zip(flows(norm, a, None, found), flows(wide, b, None, exact), strict=True):
        assert share_of_far(one, other, 0.02) < (0.01 if one.dim() == 4 else 0.05)


def test_both_pass_a_strict_gradcheck() -> None:
    norm = batch_norm(8)
    x, identity = clip(2, 8, 3, 2).requires_grad_(), clip(2, 8, 3, 2, seed=1).requires_grad_()

    def rectified(x: Tensor, *_: Tensor) -> Tensor:
        return norms.rectified(nn.Identity(), norm, nn.ReLU(), x)

    def joined(x: Tensor, identity: Tensor, *_: Tensor) -> Tensor:
        return joins.join(nn.Identity(), norm, x, identity)

    assert torch.autograd.gradcheck(rectified, (x, norm.weight, norm.bias))
    assert torch.autograd.gradcheck(joined, (x, identity, norm.weight, norm.bias))


def test_a_batch_far_from_zero_keeps_its_digits() -> None:
    """The variance is of distances from the mean, not of a difference of two large sums."""
    x = (1e4 + clip(8, 16, 20, 20)).float()
    ours, exact = batch_norm(16, torch.float32), batch_norm(16)
    theirs = copy.deepcopy(ours)
    expected = torch.relu(exact(x.double()))
    found = norms.rectified(nn.Identity(), ours, nn.ReLU(), x.clone().requires_grad_())
    assert kind(found) == "_RectifiedBackward"
    errors = [(result.double() - expected).abs().max() for result in (found, torch.relu(theirs(x)))]
    assert errors[0] < 1.5 * errors[1]
    torch.testing.assert_close(ours.running_var.double(), exact.running_var, rtol=1e-5, atol=0)  # type: ignore[union-attr]


def test_threads_change_no_bit() -> None:
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            norm, x = batch_norm(64, torch.float32), clip(8, 64, 30, 30, dtype=torch.float32).requires_grad_()
            results.append(flows(norm, x, None, norms.rectified(nn.Identity(), norm, nn.ReLU(), x)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert torch.equal(one, two)  # type: ignore[arg-type]


def test_not_a_number_stays_in_its_channel() -> None:
    x = clip(2, 16, 3, 3)
    x[0, 3, 1, 1] = float("nan")
    x.requires_grad_()
    found = norms.rectified(nn.Identity(), batch_norm(16), nn.ReLU(), x)
    found.sum().backward()
    for tensor in (found, x.grad):
        assert tensor is not None
        lost = tensor.isnan().any(3).any(2).any(0)
        assert lost.tolist() == [channel == 3 for channel in range(16)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", FORMATS, ids=str)
def test_a_norm_is_trained_where_nothing_before_it_is(layout: torch.memory_format, training: bool) -> None:
    """Whether or not the next block asks for means."""
    x, identity = clip(2, 16, 3, 3, layout=layout), clip(2, 16, 3, 3, layout=layout, seed=1)
    flow = clip(2, 16, 3, 3, layout=layout, seed=2)
    for relay in (None, Relay(8)):
        ours = batch_norm(16).train(training)
        theirs = copy.deepcopy(ours)
        joins.join(nn.Identity(), ours, x.clone(), identity, relay=relay).backward(flow)
        torch.relu(theirs(x) + identity).backward(flow)
        norms.rectified(nn.Identity(), ours, nn.ReLU(), x.clone()).backward(flow)
        torch.relu(theirs(x)).backward(flow)
        torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
        torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


def test_frozen_weights_get_no_gradient() -> None:
    norm, x = batch_norm(16), clip(2, 16, 3, 3).requires_grad_()
    norm.requires_grad_(False)
    other, y = copy.deepcopy(norm), x.detach().clone().requires_grad_()
    norms.rectified(nn.Identity(), norm, nn.ReLU(), x).square().sum().backward()
    torch.relu(other(y)).square().sum().backward()
    assert norm.weight.grad is None
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        ({"momentum": None}, (2, 16, 3, 3)),
        ({"track_running_stats": False}, (2, 16, 3, 3)),
        ({"affine": False}, (2, 16, 3, 3)),
        ({}, (2, 12, 3, 3)),
    ],
    ids=str,
)
def test_other_norms_are_pytorchs(change: dict[str, Any], shape: tuple[int, ...]) -> None:
    ours, x = nn.BatchNorm2d(shape[1], **change).double(), clip(*shape).requires_grad_()
    theirs = copy.deepcopy(ours)
    found = norms.rectified(nn.Identity(), ours, nn.ReLU(), x)
    assert kind(found) == "ReluBackward0"
    assert torch.equal(found, torch.relu(theirs(x)))
    assert all(torch.equal(a, b) for a, b in zip(ours.buffers(), theirs.buffers(), strict=True))


def test_contiguous_memory_a_watched_norm_and_synchronised_norms_are_pytorchs() -> None:
    x = clip(2, 16, 3, 3, layout=torch.contiguous_format).requires_grad_()
    assert kind(norms.rectified(nn.Identity(), batch_norm(16), nn.ReLU(), x)) == "ReluBackward0"
    norm, seen = batch_norm(16), []
    norm.register_forward_hook(lambda *_: seen.append(True))
    norms.rectified(nn.Identity(), norm, nn.ReLU(), clip(2, 16, 3, 3).requires_grad_())
    joins.join(nn.Identity(), norm, clip(2, 16, 3, 3).requires_grad_(), clip(2, 16, 3, 3))
    assert len(seen) == 2
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(batch_norm(16))
    assert not norms.takes_batches(synchronised, clip(2, 16, 3, 3))


def test_one_pixel_is_refused_as_pytorch_refuses_it() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norms.rectified(nn.Identity(), batch_norm(16), nn.ReLU(), clip(1, 16, 1, 1).requires_grad_())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": clip(2, 16, 3, 3, layout=torch.contiguous_format)}, "x must be channels_last"),
        ({"x": clip(1, 16, 1, 1)}, "more than one pixel"),
        ({"x": clip(2, 12, 3, 3)}, "multiple of 8 channels"),
        ({"identity": clip(2, 16, 3, 4)}, "branch and identity must be"),
        ({"weight": torch.ones(16)}, "float32, or float64 like x"),
        ({"running_var": torch.ones(8).double()}, r"must be \(C,\) = \(16,\)"),
        ({"pooled": 17}, "pooled from 1 to its channels"),
        ({"pooled": -1}, "pooled"),
    ],
    ids=str,
)
def test_a_batch_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    arguments = {
        "x": clip(2, 16, 3, 3), "identity": None, "fold": None, "momentum": 0.1, "eps": 1e-5, "pooled": 0,
        **{name: torch.ones(16).double() for name in ("weight", "bias", "running_mean", "running_var")},
    }  # fmt: skip
    torch.ops.tin.batch_norm_relu(**arguments)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.tin.batch_norm_relu(**arguments | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad": clip(2, 16, 3, 3, layout=torch.contiguous_format)}, "grad must be laid out as x"),
        ({"signs": torch.zeros(3, dtype=torch.uint8)}, "signs a bit an element"),
        ({"mean": torch.ones(16)}, "float32, or float64 like x"),
    ],
    ids=str,
)
def test_a_gradient_that_does_not_fit_its_norm_is_refused(change: dict[str, Any], message: str) -> None:
    arguments = {
        "grad": clip(2, 16, 3, 3), "signs": None, "x": clip(2, 16, 3, 3),
        **{name: torch.ones(16).double() for name in ("weight", "mean", "invstd")},
    }  # fmt: skip
    torch.ops.tin.batch_norm_backward(**arguments)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.tin.batch_norm_backward(**arguments | change)


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_norm_and_a_relu_are_one_pass_over_what_the_convolution_made(
    dtype: torch.dtype, layout: torch.memory_format
) -> None:
    norm = batch_norm(24, dtype).eval()
    made = clip(2, 24, 3, 5, dtype=dtype, layout=layout)
    made[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    expected = torch.relu(norm(made.to(norm.weight.dtype))).to(dtype)
    with torch.inference_mode():
        found = norms.rectified(nn.Identity(), norm, nn.ReLU(inplace=True), made)
    assert found.data_ptr() == made.data_ptr()
    torch.testing.assert_close(found, expected, equal_nan=True)
