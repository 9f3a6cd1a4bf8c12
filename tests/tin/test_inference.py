"""The prepared model: the eager model's numbers for every kind, type and layout, and a clear word for what it does not do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tests.tin.networks import trained_looking
from tin.errors import TinError
from tin.inference import PreparedModel, prepare
from tin.models import TemporalResNet
from tin.models.interlace import TemporalInterlace


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.randn(8, 3, 32, 48, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model() -> TemporalResNet:
    return trained_looking("tin_resnet18")


@pytest.fixture(scope="module")
def prepared(model: TemporalResNet, frames: torch.Tensor) -> PreparedModel:
    return prepare(model, frames)


def network_of(prepared: PreparedModel) -> TemporalResNet:
    network = prepared._network
    assert isinstance(network, TemporalResNet)
    return network


class TestNumbers:
    @pytest.mark.parametrize("kind", ["tin", "tsm", "tsn"])
    @pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.slow)])
    def test_float32_equals_the_eager_model(self, kind: str, depth: int, frames: torch.Tensor) -> None:
        model = trained_looking(f"{kind}_resnet{depth}")
        with torch.no_grad():
            expected = model(frames)
        assert expected.abs().max() > 1
        logits = prepare(model, frames)(frames)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)])
    @pytest.mark.parametrize("kind", ["tin", "tsm"])
    def test_half_types_are_as_close_as_their_digits(
        self, kind: str, dtype: torch.dtype, tolerance: float, frames: torch.Tensor
    ) -> None:
        model = trained_looking(f"{kind}_resnet18")
        with torch.no_grad():
            expected = model(frames)
        logits = prepare(model, frames, dtype=dtype)(frames)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance * expected.abs().max().item())

    def test_any_layout_type_and_number_of_clips_goes_in(
        self, model: TemporalResNet, prepared: PreparedModel, frames: torch.Tensor
    ) -> None:
        with torch.no_grad():
            expected = model(frames)
        for given in (frames, frames.to(memory_format=torch.channels_last), frames.double()):
            torch.testing.assert_close(prepared(given), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(prepared(frames[:4]), expected[:1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(prepared(frames.half()), expected, rtol=0, atol=0.01)

    def test_an_autocast_around_it_changes_nothing(self, prepared: PreparedModel, frames: torch.Tensor) -> None:
        expected = prepared(frames)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(prepared(frames), expected)

    @pytest.mark.slow
    def test_compiled_equals_the_eager_model(self, model: TemporalResNet, frames: torch.Tensor) -> None:
        with torch.no_grad():
            expected = model(frames)
        torch.testing.assert_close(prepare(model, frames, compile=True)(frames), expected, rtol=1e-4, atol=1e-4)


class TestWhatIsPrepared:
    def test_no_batch_norm_is_left_and_everything_is_channels_last(self, frames: torch.Tensor) -> None:
        network = network_of(prepare(trained_looking("tin_resnet50"), frames[:4]))
        assert not any(isinstance(module, _BatchNorm) for module in network.modules())
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        assert len(convolutions) == 53
        for module in convolutions:
            assert module.bias is not None
            assert module.weight.is_contiguous(memory_format=torch.channels_last)

    def test_offsets_are_float32_whatever_the_rest_is(self, model: TemporalResNet, frames: torch.Tensor) -> None:
        network = network_of(prepare(model, frames, dtype=torch.bfloat16))
        assert network.conv1.weight.dtype == network.fc.weight.dtype == torch.bfloat16
        seen: list[torch.dtype] = []
        for module in network.modules():
            if isinstance(module, TemporalInterlace):
                module.offset.register_forward_hook(lambda m, args, out: seen.extend([args[0].dtype, out.dtype]))
        with torch.inference_mode():
            network(frames.bfloat16())
        assert seen == [torch.float32] * 16

    def test_the_model_itself_is_left_alone(self, frames: torch.Tensor) -> None:
        model = trained_looking("tin_resnet18")
        before = copy.deepcopy(model.state_dict())
        prepare(model, frames, dtype=torch.bfloat16)
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert all(parameter.requires_grad for parameter in model.parameters())

    def test_the_result_is_an_ordinary_tensor_of_the_callers(
        self, prepared: PreparedModel, frames: torch.Tensor
    ) -> None:
        with torch.inference_mode():
            prepared(frames)
        first = prepared(frames)
        kept = first.clone()
        assert not first.requires_grad
        prepared(torch.zeros_like(frames))
        assert torch.equal(first, kept)
        first += 1  # an inference tensor would refuse
        assert torch.equal(prepared(frames), kept)

    def test_a_model_cast_whole_to_a_half_type_can_be_prepared(self, frames: torch.Tensor) -> None:
        for arch in ("tin_resnet18", "tsm_resnet18"):
            model = trained_looking(arch)
            with torch.no_grad():
                expected = model(frames)
            logits = prepare(model.bfloat16(), frames)(frames)
            torch.testing.assert_close(logits, expected, rtol=0, atol=0.05 * expected.abs().max().item())

    def test_it_says_what_it_is(self, prepared: PreparedModel) -> None:
        assert repr(prepared) == "PreparedModel(float32, T=4, cpu)"


class TestRefusals:
    def test_training_mode(self, frames: torch.Tensor) -> None:
        model = trained_looking("tin_resnet18")
        model.layer2.train()
        with pytest.raises(TinError, match=r"training mode.*model\.eval\(\)"):
            prepare(model, frames)

    def test_a_wrapped_model(self, model: TemporalResNet, frames: torch.Tensor) -> None:
        with pytest.raises(TinError, match="got Sequential: unwrap it"):
            prepare(nn.Sequential(model).eval(), frames)  # type: ignore[arg-type]

    @pytest.mark.parametrize("dtype", [torch.float64, torch.int8, None])
    def test_types_that_it_cannot_compute_in(
        self, model: TemporalResNet, frames: torch.Tensor, dtype: torch.dtype
    ) -> None:
        with pytest.raises(TinError, match=r"dtype must be one of torch\.float32, torch\.float16, torch\.bfloat16"):
            prepare(model, frames, dtype=dtype)

    def test_weights_that_do_not_fit(self, frames: torch.Tensor) -> None:
        model = trained_looking("tin_resnet18")
        with torch.no_grad():
            model.layer3[0].bn2.weight.fill_(1e7)
        with pytest.raises(TinError, match=r"layer3\.0\.conv2.*not finite in torch\.float16"):
            prepare(model, frames, dtype=torch.float16)
        prepare(model, frames, dtype=torch.bfloat16)

    @pytest.mark.parametrize(
        "shape", [(6, 3, 48, 64), (0, 3, 48, 64), (8, 1, 48, 64), (2, 4, 3, 48, 64), (8, 48, 64, 3), ()]
    )
    def test_frames_that_are_no_clips(self, prepared: PreparedModel, shape: tuple[int, ...]) -> None:
        with pytest.raises(TinError, match=r"frames must be \(clips · 4, 3, height, width\)"):
            prepared(torch.zeros(shape))

    def test_frames_that_are_not_normalised(self, prepared: PreparedModel) -> None:
        with pytest.raises(TinError, match=r"floating type; got torch\.uint8"):
            prepared(torch.zeros(4, 3, 48, 64, dtype=torch.uint8))

    def test_frames_on_another_device(self, prepared: PreparedModel) -> None:
        with pytest.raises(TinError, match=r"must be on cpu.*got meta"):
            prepared(torch.zeros(4, 3, 48, 64, device="meta"))

    def test_gradients(self, prepared: PreparedModel, frames: torch.Tensor) -> None:
        with pytest.raises(TinError, match="gives no gradients"):
            prepared(frames.clone().requires_grad_())

    def test_compiling_without_a_compiler(self, model: TemporalResNet, frames: torch.Tensor) -> None:
        torch.compiler.reset()
        with (
            torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}),
            pytest.raises(TinError, match=r"torch\.compile does not work here .*compile=False"),
        ):
            prepare(model, frames, compile=True)
