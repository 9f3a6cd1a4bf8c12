"""The op on the CPU: its values, its gradients and its refusals, against the reference and against hand-made answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.op_cases import ALL_TYPES, CASES, FORMATS, HALF_TYPES, LARGE, Case, gradients, tolerance
from tin import ops
from tin.ops import temporal_interlace, temporal_interlace_reference

SMALL = Case(4, 16, 2, 3, 5, (0.3, -1.6, 1.4))


def by_definition(x: Tensor, offset: Tensor, weight: Tensor, segments: int, group_size: int) -> Tensor:
    """sum over s of max(0, 1 - |t - s - offset|) · x[s], written as loops."""
    out = x.clone()
    for n in range(offset.shape[0]):
        for t in range(segments):
            for k in range(offset.shape[1]):
                channels = slice(k * group_size, (k + 1) * group_size)
                value = torch.zeros_like(x[0, channels])
                for s in range(segments):
                    value += max(0.0, 1 - abs(t - s - offset[n, k].item())) * x[n * segments + s, channels]
                out[n * segments + t, channels] = weight[n, t, k] * value
    return out


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_is_the_definition(case: Case) -> None:
    x, offset, weight = case.tensors()
    expected = by_definition(x, offset, weight, case.segments, case.group_size)
    torch.testing.assert_close(
        temporal_interlace_reference(x, offset, weight, case.segments, case.group_size), expected
    )


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", ALL_TYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_gradients_and_format_match_the_reference(
    case: Case, dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    inputs = case.tensors(dtype, memory_format)
    out = temporal_interlace(*inputs, case.segments, case.group_size)
    expected = temporal_interlace_reference(*inputs, case.segments, case.group_size)
    torch.testing.assert_close(out, expected, **tolerance(dtype))
    assert out.is_contiguous(memory_format=memory_format)
    assert out.stride() == inputs[0].stride()

    grad = torch.randn_like(out)
    found = gradients(temporal_interlace, inputs, grad, case.segments, case.group_size)
    wide = tuple(tensor.double() for tensor in inputs)
    # x in float64 decides: the reference in float32 is no better than the kernel
    expected_wide = gradients(
        temporal_interlace_reference,
        wide,
        grad.double(),
        case.segments,
        case.group_size,
    )
    size = case.group_size * case.height * case.width * case.segments
    for ours, exact, like in zip(found, expected_wide, inputs, strict=True):
        limits = tolerance(dtype if ours is found[0] else like.dtype)
        limits["atol"] *= max(1.0, size**0.5 / 4)
        torch.testing.assert_close(ours, exact.to(like.dtype), **limits)
    assert found[0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_large_tensors_match_the_reference(case: Case, dtype: torch.dtype) -> None:
    inputs = case.tensors(dtype, torch.channels_last)
    grad = inputs[0].flip(0).contiguous(memory_format=torch.channels_last)
    found = [temporal_interlace(*inputs, case.segments, case.group_size)]
    found += gradients(temporal_interlace, inputs, grad, case.segments, case.group_size)
    expected = [temporal_interlace_reference(*inputs, case.segments, case.group_size)]
    expected += gradients(temporal_interlace_reference, inputs, grad, case.segments, case.group_size)
    for ours, reference, error in zip(found, expected, (0, 0, 2e-2, 2e-2), strict=True):
        limits = tolerance(dtype)
        torch.testing.assert_close(ours, reference, rtol=limits["rtol"], atol=max(limits["atol"], error))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shape_matches_the_reference(data: st.DataObject) -> None:
    segments = data.draw(st.integers(1, 64), label="segments")
    channels = data.draw(st.integers(1, 40), label="channels")
    groups = data.draw(st.integers(1, channels), label="groups")
    group_size = data.draw(st.integers(1, channels // groups), label="group_size")
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    offsets = data.draw(st.lists(st.floats(-70, 70, width=32), min_size=groups, max_size=groups), label="offsets")
    case = Case(segments, channels, group_size, height, width, tuple(offsets), clips=data.draw(st.integers(0, 2)))
    x, offset, weight = case.tensors(torch.float64, data.draw(st.sampled_from(FORMATS)))
    grad = torch.randn_like(x)
    torch.testing.assert_close(
        temporal_interlace(x, offset, weight, segments, group_size),
        temporal_interlace_reference(x, offset, weight, segments, group_size),
    )
    found = gradients(temporal_interlace, (x, offset, weight), grad, segments, group_size)
    expected = gradients(temporal_interlace_reference, (x, offset, weight), grad, segments, group_size)
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("function", [temporal_interlace, temporal_interlace_reference])
def test_strict_gradcheck(function: Callable[..., Tensor], memory_format: torch.memory_format) -> None:
    inputs = tuple(tensor.requires_grad_() for tensor in SMALL.tensors(torch.float64, memory_format))
    assert torch.autograd.gradcheck(lambda *a: function(*a, SMALL.segments, SMALL.group_size), inputs)


@pytest.mark.parametrize(
    "needed", [(True, False, False), (False, True, False), (False, False, True), (True, True, True)]
)
def test_gradients_only_where_needed(needed: tuple[bool, bool, bool]) -> None:
    inputs = SMALL.tensors()
    every = gradients(temporal_interlace, inputs, torch.ones_like(inputs[0]), SMALL.segments, SMALL.group_size)
    leaves = [tensor.clone().requires_grad_(need) for tensor, need in zip(inputs, needed, strict=True)]
    temporal_interlace(*leaves, SMALL.segments, SMALL.group_size).sum().backward()
    for leaf, need, expected in zip(leaves, needed, every, strict=True):
        assert (leaf.grad is not None) == need
        if leaf.grad is not None:
            torch.testing.assert_close(leaf.grad, expected)


@pytest.mark.parametrize("case", [case for case in CASES if case.clips], ids=str)
def test_gradient_of_x_is_the_adjoint(case: Case) -> None:
    """<A x, y> = <x, Aᵀ y>: it is not, when a backward repeats the forward map instead of transposing it."""
    inputs = case.tensors()
    y = torch.randn_like(inputs[0])
    forward = temporal_interlace(*inputs, case.segments, case.group_size)
    adjoint = gradients(temporal_interlace, inputs, y, case.segments, case.group_size)[0]
    torch.testing.assert_close((forward * y).sum(), (inputs[0] * adjoint).sum(), rtol=1e-12, atol=1e-10)


def test_gradient_at_integer_offsets_is_the_one_from_the_right() -> None:
    case = Case(4, 8, 2, 2, 2, (1.0, 0.0, -1.0))
    x, offset, weight = case.tensors()
    grad = torch.randn_like(x)
    found = gradients(temporal_interlace, (x, offset, weight), grad, 4, 2)[1]
    step = 1e-6
    for n in range(offset.shape[0]):
        for k in range(offset.shape[1]):
            moved = offset.clone()
            moved[n, k] += step
            change = temporal_interlace(x, moved, weight, 4, 2) - temporal_interlace(x, offset, weight, 4, 2)
            torch.testing.assert_close((change * grad).sum() / step, found[n, k], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "check", ["test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"]
)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_opcheck(check: str, memory_format: torch.memory_format) -> None:
    x, offset, weight = (t.requires_grad_() for t in SMALL.tensors(torch.float32, memory_format))
    arguments = (x, offset, weight, SMALL.segments, SMALL.group_size)
    torch.library.opcheck(torch.ops.tin.temporal_interlace.default, arguments, test_utils=check)
    plain = [t.detach() for t in (torch.randn_like(x), x, offset, weight)]
    for needs in ((True, True, True), (True, False, False), (False, True, False)):
        torch.library.opcheck(
            torch.ops.tin.temporal_interlace_backward.default,
            (*plain, SMALL.segments, *needs, SMALL.group_size),
            test_utils=check,
        )


def test_compiles_as_one_graph_with_dynamic_batches() -> None:
    function = torch.compile(
        lambda x, o, w: temporal_interlace(x * 2, o, w, 4, 2).relu(), fullgraph=True, backend="aot_eager", dynamic=True
    )
    for clips in (2, 3):
        inputs = Case(4, 16, 2, 3, 5, (0.3, -1.6, 1.4), clips).tensors()
        leaves = [t.clone().requires_grad_() for t in inputs]
        out = function(*leaves)
        torch.testing.assert_close(out, temporal_interlace_reference(inputs[0] * 2, *inputs[1:], 4, 2).relu())
        out.sum().backward()
        assert all(leaf.grad is not None for leaf in leaves)


def test_twice_differentiating_is_refused_by_name() -> None:
    x, offset, weight = (t.requires_grad_() for t in SMALL.tensors())
    (grad,) = torch.autograd.grad(
        temporal_interlace(x, offset, weight, SMALL.segments, SMALL.group_size).square().sum(), x, create_graph=True
    )
    with pytest.raises(NotImplementedError, match="temporal_interlace_reference"):
        grad.sum().backward()


# ---------------------------------------------------------------------------------------------------------------------
# number types


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_half_types_compute_in_float32(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    """The result is the float32 result, rounded once."""
    case = CASES[3]
    x, offset, weight = case.tensors(dtype, memory_format)
    exact = temporal_interlace(x.float(), offset, weight, case.segments, case.group_size)
    out = temporal_interlace(x, offset, weight, case.segments, case.group_size)
    assert torch.equal(out, exact.to(dtype))
    grad = torch.randn_like(x)
    found = gradients(temporal_interlace, (x, offset, weight), grad, case.segments, case.group_size)
    wide = gradients(temporal_interlace, (x.float(), offset, weight), grad.float(), case.segments, case.group_size)
    assert torch.equal(found[0], wide[0].to(dtype))
    torch.testing.assert_close(found[1], wide[1], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found[2], wide[2], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_every_half_number_passes_a_shift_unchanged(dtype: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    x = every.reshape(1, 1, 256, 256)
    out = temporal_interlace(x, torch.zeros(1, 1), torch.ones(1, 1, 1), 1, 1)
    nan = x.isnan()
    assert torch.equal(out.isnan(), nan)
    assert torch.equal(out.view(torch.int16)[~nan], x.view(torch.int16)[~nan])


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_rounding_to_half_is_pytorchs(dtype: torch.dtype) -> None:
    """Weights put products on, beside and between representable numbers, into subnormals and over the top."""
    x = torch.tensor([1.0, 3.0, -1.0]).to(dtype).reshape(3, 1, 1, 1)
    random = torch.Generator().manual_seed(3)
    mantissas = torch.randint(0, 2**23, (200_000,), generator=random)
    exponents = torch.randint(127 - 28, 127 + 18, (200_000,), generator=random)
    ties = mantissas // 2**12 * 2**12  # just half a step of float16, a whole one of many
    weight = torch.cat([mantissas, ties]) + (torch.cat([exponents, exponents]) << 23)
    weight = weight.to(torch.int32).view(torch.float32)
    clips = weight.numel()
    for value in x:
        out = temporal_interlace(value.expand(clips, 1, 1, 1), torch.zeros(clips, 1), weight.reshape(-1, 1, 1), 1, 1)
        expected = (weight * value.item()).to(dtype)
        assert torch.equal(out.flatten(), expected)


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_offset_and_weight_may_be_half_and_get_half_gradients(dtype: torch.dtype) -> None:
    inputs = SMALL.tensors(dtype, parameters=dtype)
    found = gradients(temporal_interlace, inputs, torch.ones_like(inputs[0]), SMALL.segments, SMALL.group_size)
    assert [grad.dtype for grad in found] == [dtype] * 3


def test_autocast_keeps_x_and_widens_offset_and_weight() -> None:
    x, offset, weight = SMALL.tensors(torch.bfloat16, torch.channels_last, parameters=torch.bfloat16)
    leaves = [t.requires_grad_() for t in (x, offset, weight)]
    for function in (temporal_interlace, torch.compile(temporal_interlace, fullgraph=True, backend="aot_eager")):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = torch.ops.tin.temporal_interlace(x, offset, weight.float(), SMALL.segments, SMALL.group_size)
            assert out.dtype == torch.bfloat16
            assert out.is_contiguous(memory_format=torch.channels_last)
            mixed = function(x, offset, weight, SMALL.segments, SMALL.group_size)
        torch.testing.assert_close(mixed, out, rtol=0, atol=0)
        grads = torch.autograd.grad(mixed.float().sum(), leaves)
        assert [grad.dtype for grad in grads] == [torch.bfloat16] * 3


# ---------------------------------------------------------------------------------------------------------------------
# meaning


def test_is_tsm_with_integer_offsets() -> None:
    """TSM: the first eighth takes the next frame, the second the previous one."""
    x = torch.randn(16, 64, 7, 5).contiguous(memory_format=torch.channels_last)
    out = temporal_interlace(x, torch.tensor([[-1.0, 1.0]] * 2), torch.ones(2, 8, 2), 8)
    clips = x.unflatten(0, (2, 8))
    shifted = clips.clone()
    shifted[:, :, :16] = 0
    shifted[:, :-1, :8] = clips[:, 1:, :8]
    shifted[:, 1:, 8:16] = clips[:, :-1, 8:16]
    assert torch.equal(out, shifted.flatten(0, 1))


@pytest.mark.parametrize("name", ["T8_C64", "T4_C32", "T16_C64"])
def test_reproduces_the_public_implementations_values(golden: Path, name: str) -> None:
    record = torch.load(golden / "tin_module.pt", weights_only=True)[name]
    offset = torch.cat([record["offset"], -record["offset"]], dim=1)
    weight = torch.cat([record["gain"], record["gain"]], dim=2)
    out = temporal_interlace(record["x"], offset, weight, record["T"])
    torch.testing.assert_close(out, record["y"], rtol=1e-12, atol=1e-12)
    # channels past the fold reach x in no other way than through the op
    fold = record["C"] // record["shift_div"]
    grad = gradients(temporal_interlace, (record["x"], offset, weight), record["grad_out"], record["T"])[0]
    assert torch.equal(grad[:, fold:], record["grad_x"][:, fold:])


@pytest.mark.parametrize("function", [temporal_interlace, temporal_interlace_reference])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_nan_offset_spoils_its_group_and_no_other(
    function: Callable[..., Tensor], memory_format: torch.memory_format
) -> None:
    x, offset, weight = CASES[3].tensors(torch.float32, memory_format)
    offset[0, 1] = float("nan")
    out = function(x, offset, weight, 8, 4)
    spoiled = torch.zeros_like(x, dtype=torch.bool)
    spoiled[:8, 4:8] = True
    assert torch.equal(out.isnan(), spoiled)
    if function is temporal_interlace:
        grad_x, grad_offset, grad_weight = gradients(function, (x, offset, weight), torch.ones_like(x), 8, 4)
        assert torch.equal(grad_x.isnan(), spoiled)
        assert grad_weight.isnan().nonzero()[:, [0, 2]].unique(dim=0).tolist() == [[0, 1]]
        expected = gradients(temporal_interlace_reference, (x, offset, weight), torch.ones_like(x), 8, 4)
        torch.testing.assert_close([grad_x, grad_offset, grad_weight], expected, equal_nan=True)


@pytest.mark.parametrize("function", [temporal_interlace, temporal_interlace_reference])
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_numbers_show_where_they_are_read(
    function: Callable[..., Tensor], memory_format: torch.memory_format, bad: float
) -> None:
    """A frame whose coefficient is exactly zero is not read; a weight of zero is a factor like any other."""
    case = Case(4, 8, 1, 3, 3, (0.0, 0.5, -1e-9))
    x, offset, weight = case.tensors(torch.float32, memory_format)
    x[1] = bad
    weight[0, 1] = 0
    out = function(x, offset, weight, 4, 1)
    read = [[1], [1, 2], [1]]  # frames of clip 0 that read frame 1; -1e-9 is -1 + 1 in float32: frame t alone
    for k, frames in enumerate(read):
        assert [t for t in range(8) if not out[t, k].isfinite().all()] == frames
    assert not out[1, 3:].isfinite().any()


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_other_layouts_are_taken(memory_format: torch.memory_format) -> None:
    """Slices, transposes and expanded gradients: right, in a dense format of the kind the input was in."""
    x, offset, weight = SMALL.tensors(torch.float32, memory_format)
    wide = torch.cat([x, x], dim=1).contiguous(memory_format=memory_format)
    for view in (wide[:, :16], wide[:, ::2], x.transpose(2, 3), x[:, :, 1:, ::2], x[:1].expand(8, -1, -1, -1)):
        found = temporal_interlace(view, offset, weight, 4, 2)
        expected = temporal_interlace_reference(view.contiguous(), offset, weight, 4, 2)
        torch.testing.assert_close(found, expected)
        assert found.is_contiguous() or found.is_contiguous(memory_format=torch.channels_last)
        torch.library.opcheck(torch.ops.tin.temporal_interlace.default, (view, offset, weight, 4, 2))
    leaf = x.clone().requires_grad_()
    temporal_interlace(leaf, offset, weight, 4, 2).sum().backward()  # the gradient is an expanded scalar
    expected = gradients(temporal_interlace_reference, (x, offset, weight), torch.ones_like(x), 4, 2)[0]
    torch.testing.assert_close(leaf.grad, expected)


@pytest.mark.parametrize("case", [Case(8, 64, 4, 28, 28, (0.4, -1.3, -0.4, 1.3)), *LARGE[:2]], ids=str)
@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
def test_same_bits_every_time_and_for_any_number_of_threads(memory_format: torch.memory_format, case: Case) -> None:
    arguments = (case.segments, case.group_size)
    inputs = case.tensors(torch.float32, memory_format)
    grad = torch.randn_like(inputs[0])
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 2, 5):
            torch.set_num_threads(threads)
            out = temporal_interlace(*inputs, *arguments)
            results.append([out, *gradients(temporal_interlace, inputs, grad, *arguments)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_input_is_left_alone_and_output_is_new() -> None:
    x, offset, weight = CASES[6].tensors(torch.float32)
    before = x.clone()
    out = temporal_interlace(x, offset, weight, 16, 8)
    out.zero_()
    assert torch.equal(x, before)


# ---------------------------------------------------------------------------------------------------------------------
# refusals

X, OFFSET, WEIGHT = torch.zeros(8, 16, 3, 3), torch.zeros(2, 3), torch.zeros(2, 4, 3)
REFUSALS = [
    ((X[0], OFFSET, WEIGHT, 4), r"x must have shape \(N·T, C, H, W\), got \(16, 3, 3\)"),
    ((X, OFFSET, WEIGHT, 0), "num_segments must be at least 1, got 0"),
    ((X, OFFSET, WEIGHT, 3), "its 8 frames are no multiple of num_segments = 3"),
    ((X, OFFSET[:1], WEIGHT, 4), r"offset must have shape \(N, G\) = \(2, G\), G at least 1, got \(1, 3\)"),
    ((X, OFFSET[0], WEIGHT, 4), r"offset must have shape \(N, G\) = \(2, G\), G at least 1, got \(3,\)"),
    ((X, OFFSET[:, :0], WEIGHT, 4), "G at least 1"),
    ((X, OFFSET, WEIGHT[:, :3], 4), r"weight must have shape \(N, T, G\) = \(2, 4, 3\), got \(2, 3, 3\)"),
    ((X, OFFSET, WEIGHT, 4, 0), "group_size must be from 1 to C // G = 5"),
    ((X, OFFSET, WEIGHT, 4, 6), r"group_size must be from 1 to C // G = 5 \(3 groups, 16 channels\), got 6"),
    ((X[:, :8], OFFSET, WEIGHT, 4), "x has 8 channels: a quarter of them makes no 3 groups; pass group_size"),
    ((X.long(), OFFSET, WEIGHT, 4), "x must be float32, float16, bfloat16 or float64, got torch.int64"),
    ((X, OFFSET.double(), WEIGHT, 4), "offset and weight must have one dtype, got torch.float64 and torch.float32"),
    (
        (X, OFFSET.half(), WEIGHT.half(), 4),
        "offset and weight must be torch.float32 for x of torch.float32, got torch.float16",
    ),
    ((X.half(), OFFSET.double(), WEIGHT.double(), 4), "must be torch.float16 or torch.float32"),
    ((X, OFFSET.to("meta"), WEIGHT, 4), "x, offset and weight must be on one device, got cpu, meta and cpu"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSALS, ids=[message for _, message in REFUSALS])
def test_refuses_by_name(arguments: tuple, message: str) -> None:
    for function in (temporal_interlace, temporal_interlace_reference):
        with pytest.raises((ValueError, TypeError), match=message):
            function(*arguments)


@pytest.mark.parametrize("arguments", [arguments for arguments, _ in REFUSALS[:-1]], ids=[m for _, m in REFUSALS[:-1]])
def test_the_bare_op_refuses_too(arguments: tuple) -> None:
    """torch.ops.tin.temporal_interlace is public as well: no shape may make it read where it should not."""
    with pytest.raises((RuntimeError, ValueError, TypeError), match=r"must|pass group_size"):
        torch.ops.tin.temporal_interlace(*arguments)
    x, offset, weight, *rest = arguments
    with pytest.raises((RuntimeError, ValueError, TypeError), match=r"must|pass group_size"):
        torch.ops.tin.temporal_interlace_backward(x, x, offset, weight, rest[0], True, True, True, *rest[1:])


def test_backward_op_refuses_a_gradient_of_another_shape() -> None:
    with pytest.raises((RuntimeError, ValueError), match="grad must have the shape of x"):
        torch.ops.tin.temporal_interlace_backward(X[:, :13], X, OFFSET, WEIGHT, 4, True, True, True)


# ---------------------------------------------------------------------------------------------------------------------
# what runs


def test_backend_says_what_runs_and_why() -> None:
    found = ops.backend()
    for kind, reason in ((found.cpu, found.cpu_reason), (found.cuda, found.cuda_reason)):
        assert kind in ("native", "reference")
        assert (reason is None) == (kind == "native")
    assert (found.simd is None) == (found.cpu == "reference")
    if found.cpu == "native":
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            temporal_interlace(*SMALL.tensors(), SMALL.segments, SMALL.group_size)
