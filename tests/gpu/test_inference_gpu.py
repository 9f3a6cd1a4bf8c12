"""The prepared model on a GPU: CUDA graphs that give the eager model's numbers at every shape, and never wait."""

from __future__ import annotations

import pytest
import torch

from tests.tin.networks import trained_looking
from tin import inference
from tin.errors import TinError
from tin.inference import PreparedModel, prepare

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def frames() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(8, 3, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", ["tin", "tsm", "tsn"])
@pytest.mark.parametrize("depth", [18, 50])
def test_float32_equals_the_eager_model_on_other_frames_too(kind: str, depth: int, frames: torch.Tensor) -> None:
    model = trained_looking(f"{kind}_resnet{depth}").cuda()
    prepared = prepare(model, torch.zeros_like(frames))
    for given in (frames, -frames, frames.contiguous()):
        with torch.no_grad():
            expected = model(given)
        torch.testing.assert_close(prepared(given), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.005)])
def test_half_types_are_as_close_as_their_digits(dtype: torch.dtype, tolerance: float, frames: torch.Tensor) -> None:
    model = trained_looking("tin_resnet50").cuda()
    with torch.no_grad():
        expected = model(frames)
    prepared = prepare(model, frames, dtype=dtype)
    for given in (frames, frames.to(dtype)):
        logits = prepared(given)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def test_shapes_come_and_go_and_each_keeps_its_numbers(frames: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "MAX_GRAPHS", 2)
    model = trained_looking("tin_resnet18").cuda()
    prepared = prepare(model, frames)
    shapes = [frames, frames[:4], frames[:, :, :48], frames, frames[:4], frames[:4, :, :48]]
    with torch.no_grad():
        for given in shapes:
            torch.testing.assert_close(prepared(given), model(given), rtol=1e-4, atol=1e-4)
    assert set(prepared._graphs) == {frames[:4].shape, frames[:4, :, :48].shape}


def test_a_result_outlives_the_next_call(frames: torch.Tensor) -> None:
    prepared = prepare(trained_looking("tin_resnet18").cuda(), frames)
    first = prepared(frames)
    kept = first.clone()
    prepared(torch.zeros_like(frames))
    assert torch.equal(first, kept)


def test_a_call_never_waits_for_the_device(frames: torch.Tensor) -> None:
    prepared = prepare(trained_looking("tin_resnet18").cuda(), frames, dtype=torch.float16)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        prepared(frames)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_preparing_leaves_the_settings_of_the_process(frames: torch.Tensor) -> None:
    before = torch.backends.cudnn.benchmark, torch.cuda.current_stream(), torch.is_inference_mode_enabled()
    prepared = prepare(trained_looking("tin_resnet18").cuda(), frames)
    assert (torch.backends.cudnn.benchmark, torch.cuda.current_stream(), torch.is_inference_mode_enabled()) == before
    assert "CUDA graph" in repr(prepared)


def test_a_model_on_the_cpu_is_prepared_where_the_example_is(frames: torch.Tensor) -> None:
    model = trained_looking("tin_resnet18")
    with torch.no_grad():
        expected = model(frames.cpu())
    prepared: PreparedModel = prepare(model, frames)
    torch.testing.assert_close(prepared(frames).cpu(), expected, rtol=1e-3, atol=1e-3)
    assert next(model.parameters()).device.type == "cpu"
    with pytest.raises(TinError, match=r"frames must be on cuda:0.*got cpu"):
        prepared(frames.cpu())


@pytest.mark.slow
def test_compiled_and_captured_equals_the_eager_model(frames: torch.Tensor) -> None:
    model = trained_looking("tin_resnet18").cuda()
    with torch.no_grad():
        expected = model(frames)
    prepared = prepare(model, torch.zeros_like(frames), compile=True)
    torch.testing.assert_close(prepared(frames), expected, rtol=1e-3, atol=1e-3)
