"""The networks: parameter counts of the papers, numbers of the public implementations, refusals of what cannot be."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy

import tin
from tin.errors import TinError
from tin.models import ARCHITECTURES, TemporalResNet
from tin.models.inspect import learned_shifts, multiply_adds
from tin.models.interlace import TemporalInterlace, TemporalShift


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


class TestSizes:
    def test_tin_resnet50_has_the_published_parameter_counts_and_names(self) -> None:
        with torch.device("meta"):
            sth = tin.build_model("tin_resnet50", 174)
            k400 = tin.build_model("tin_resnet50", 400)
        assert parameters(sth) == 23_895_566
        assert parameters(k400) == 24_358_640
        assert len(sth.state_dict()) == 448
        assert sum(p.numel() for name, p in sth.named_parameters() if ".tin." in name) == 31_008

    def test_every_architecture_has_torchvisions_names_and_tin_adds_only_its_own(self) -> None:
        for arch in ARCHITECTURES:
            kind, _, depth = arch.partition("_resnet")
            with torch.device("meta"):
                names = set(tin.build_model(arch, 1000).state_dict())
                plain = set(getattr(torchvision.models, f"resnet{depth}")().state_dict())
            own = {name for name in names if ".tin." in name}
            assert names - own == plain
            assert bool(own) == (kind == "tin")

    def test_names_and_shapes_are_the_golden_ones(self, golden: Path) -> None:
        shapes = golden_weights(golden).plain_shapes(50, 174, 8)
        with torch.device("meta"):
            model = tin.build_model("tin_resnet50", 174)
        assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == dict(shapes)

    def test_multiply_adds_are_the_published_ones(self) -> None:
        counts = multiply_adds(tin.build_model("tin_resnet50", 174))
        assert sum(counts.values()) == 32_700_178_304
        assert sum(count for name, count in counts.items() if ".tin." in name) == 237_440
        assert counts["conv1"] == 8 * 112 * 112 * 64 * 3 * 49

    def test_tsm_shifts_every_block_but_every_second_of_resnet101(self) -> None:
        def shifted(arch: str) -> list[str]:
            with torch.device("meta"):
                model = tin.build_model(arch, 10)
            return [name for name, m in model.named_modules() if isinstance(m, TemporalShift | TemporalInterlace)]

        assert len(shifted("tsm_resnet50")) == len(shifted("tin_resnet50")) == 16
        assert len(shifted("tin_resnet101")) == 33
        deep = shifted("tsm_resnet101")
        assert len(deep) == 2 + 2 + 12 + 2
        assert all(int(name.split(".")[1]) % 2 == 0 for name in deep)
        assert shifted("tsn_resnet50") == []


class TestGolden:
    def test_the_module_matches_the_public_ones_in_output_and_gradients(self, golden: Path) -> None:
        cases = torch.load(golden / "tin_module.pt", weights_only=True)
        assert len(cases) == 3
        for case in cases.values():
            module = TemporalInterlace(case["C"], case["T"], case["shift_div"]).double()
            module.load_state_dict(case["state"])
            x = case["x"].clone().requires_grad_()
            y = module(x)[0]
            y.backward(case["grad_out"])
            offset, gain = module.offsets_and_gains(case["x"])
            torch.testing.assert_close(offset, case["offset"], rtol=0, atol=1e-12)
            torch.testing.assert_close(gain, case["gain"], rtol=0, atol=1e-12)
            torch.testing.assert_close(y, case["y"], rtol=0, atol=1e-12)
            close(x.grad, case["grad_x"])
            for name, parameter in module.named_parameters():
                close(parameter.grad, case["grad_params"][name])

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_resnet18_logits_offsets_and_gains_match(self, golden: Path, layout: torch.memory_format) -> None:
        model, frames, expected = golden_resnet18(golden, layout)
        with torch.no_grad():
            logits = model.eval()(frames)
        torch.testing.assert_close(logits, expected["eval_logits_fp64"], rtol=0, atol=1e-9)
        shifts = learned_shifts(model, frames)
        assert [shift.name for shift in shifts] == list(expected["eval_offsets_fp64"])
        for shift in shifts:
            torch.testing.assert_close(shift.offsets, expected["eval_offsets_fp64"][shift.name], rtol=0, atol=1e-9)
            torch.testing.assert_close(shift.gains, expected["eval_gains_fp64"][shift.name], rtol=0, atol=1e-9)

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_resnet18_training_step_matches(self, golden: Path, layout: torch.memory_format) -> None:
        model, frames, expected = golden_resnet18(golden, layout)
        frames.requires_grad_()
        loss = cross_entropy(model.train()(frames), torch.tensor(expected["labels"]))
        loss.backward()
        torch.testing.assert_close(loss.detach(), expected["train_loss_fp64"], rtol=0, atol=1e-9)
        grads = {name: p.grad for name, p in model.named_parameters()}
        for name, grad in expected["train_grads_fp64"].items():
            close(grads[name], grad)
        for name, norm in expected["train_grad_norms_fp64"].items():
            grad = grads[name]
            assert grad is not None
            assert grad.norm().item() == pytest.approx(norm, rel=1e-7, abs=1e-12), name
        assert frames.grad is not None
        assert frames.grad.norm().item() == pytest.approx(expected["train_input_grad_norm_fp64"], rel=1e-7)
        for name, value in expected["train_running_fp64"].items():
            torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=1e-9)

    def test_resnet18_in_float32_is_as_close_as_float32_allows(self, golden: Path) -> None:
        model, frames, expected = golden_resnet18(golden, torch.channels_last)
        with torch.no_grad():
            logits = model.float().eval()(frames.float())
        torch.testing.assert_close(logits, expected["eval_logits_fp32"], rtol=1e-4, atol=1e-5)


class TestForward:
    @pytest.mark.parametrize("kind", ["tin", "tsm", "tsn"])
    def test_memory_format_is_kept_through_every_layer(self, kind: str) -> None:
        model = tin.build_model(f"{kind}_resnet18", 5, num_segments=4).to(memory_format=torch.channels_last).eval()
        broken: list[str] = []

        def hook(name: str) -> Any:
            def check(module: nn.Module, args: Any, out: torch.Tensor) -> None:
                out = getattr(out, "branch", out)  # a temporal module gives both branches
                if out.dim() == 4 and not out.is_contiguous(memory_format=torch.channels_last):
                    broken.append(name)

            return check

        for name, module in model.named_modules():
            module.register_forward_hook(hook(name))
        frames = torch.randn(8, 3, 48, 64).to(memory_format=torch.channels_last)
        assert model(frames).shape == (2, 5)
        assert broken == []

    def test_the_identity_branch_sees_the_unshifted_input(self) -> None:
        model = tin.build_model("tsm_resnet50", 5, num_segments=4).eval()
        block = model.layer1[1]
        nn.init.zeros_(block.bn3.weight)
        x = torch.randn(8, 256, 6, 6)
        torch.testing.assert_close(block(x), torch.relu(x))

    def test_tsm_takes_the_first_eighth_from_the_next_frame_and_the_second_from_the_previous(self) -> None:
        x = torch.randn(2 * 4, 16, 3, 3)
        clip, out = x.view(2, 4, 16, 9), TemporalShift(16, 4)(x)[0].view(2, 4, 16, 9)
        zero = torch.zeros(2, 1, 2, 9)
        torch.testing.assert_close(out[:, :, :2], torch.cat([clip[:, 1:, :2], zero], 1))
        torch.testing.assert_close(out[:, :, 2:4], torch.cat([zero, clip[:, :-1, 2:4]], 1))
        torch.testing.assert_close(out[:, :, 4:], clip[:, :, 4:])

    def test_a_tsn_is_torchvisions_resnet_averaged_over_the_clip(self) -> None:
        torch.manual_seed(0)
        plain = torchvision.models.resnet18(num_classes=7).eval()
        model = tin.build_model("tsn_resnet18", 7, num_segments=3).eval()
        model.load_state_dict(plain.state_dict())
        frames = torch.randn(6, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(model(frames), plain(frames).view(2, 3, 7).mean(1), rtol=1e-5, atol=1e-5)

    def test_offsets_are_float32_under_autocast_and_logits_too(self) -> None:
        model = tin.build_model("tin_resnet18", 5, num_segments=4).eval()
        seen: list[torch.dtype] = []
        model.layer2[0].tin.offset.register_forward_hook(lambda m, args, out: seen.extend([args[0].dtype, out.dtype]))
        frames = torch.randn(4, 3, 64, 64)
        with torch.no_grad():
            exact = model(frames)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(frames)
        assert seen[-2:] == [torch.float32, torch.float32]
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, exact, rtol=0, atol=0.05 * exact.abs().max().item() + 1e-3)

    def test_a_model_cast_whole_to_bfloat16_runs(self) -> None:
        model = tin.build_model("tin_resnet18", 5, num_segments=4).eval().bfloat16()
        with torch.no_grad():
            assert model(torch.randn(4, 3, 32, 32, dtype=torch.bfloat16)).isfinite().all()

    def test_one_segment_and_sixteen_work(self) -> None:
        for segments in (1, 16):
            model = tin.build_model("tin_resnet18", 3, num_segments=segments).eval()
            assert model(torch.randn(segments, 3, 32, 32)).shape == (1, 3)

    def test_initialisation_is_the_references(self) -> None:
        model = tin.build_model("tin_resnet18", 174)
        fresh = [m for m in model.modules() if isinstance(m, TemporalInterlace)]
        for module in fresh:
            assert torch.equal(module.offset.fc2.bias, torch.full((2,), 0.5108))
            assert module.gain.conv.bias is not None
            assert not module.gain.conv.bias.any()
        assert model.fc.weight.std().item() == pytest.approx(0.001, rel=0.05)
        assert not model.fc.bias.any()
        shifts = learned_shifts(model, torch.randn(8, 3, 64, 64))
        assert all((shift.offsets - 0.5).abs().max() < 1.0 for shift in shifts)
        assert "layer1.0" in str(shifts[0])

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["tin", "tsm"])
    def test_compiles_whole_into_the_same_numbers(self, kind: str) -> None:
        model = tin.build_model(f"{kind}_resnet18", 5, num_segments=4, dropout=0.0)
        frames = torch.randn(4, 3, 32, 32)
        expected = model(frames)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        actual = compiled(frames)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
        actual.sum().backward()
        assert model.conv1.weight.grad is not None


class TestRefusals:
    def test_an_unknown_name_is_answered_with_the_nearest(self) -> None:
        with pytest.raises(TinError, match="did you mean 'tin_resnet50'"):
            tin.build_model("tni_resnet50", 10)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"num_classes": 0}, "num_classes"),
            ({"num_segments": 0}, "num_segments"),
            ({"dropout": 1.0}, "dropout"),
            ({"shift_div": 0}, "shift_div"),
            ({"shift_div": 3}, "multiple of 4"),
            ({"shift_div": 100}, "multiple of 4"),
            ({"arch": "tsm_resnet18", "shift_div": 1}, "two groups"),
            ({"arch": "tsn_resnet18", "shift_div": 8}, "shifts nothing"),
        ],
    )
    def test_settings_that_cannot_be_are_named(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(TinError, match=message):
            tin.build_model(**{"arch": "tin_resnet18", "num_classes": 10, **settings})

    def test_frames_that_are_no_clips_are_refused(self) -> None:
        model = tin.build_model("tin_resnet18", 10, num_segments=4)
        with pytest.raises(TinError, match="6 frames are no whole number of clips of 4"):
            model(torch.zeros(6, 3, 32, 32))
        for shape in [(4, 1, 32, 32), (1, 4, 3, 32, 32), (4, 32, 32, 3)]:
            with pytest.raises(TinError, match="frames must be"):
                model(torch.zeros(shape))
        with pytest.raises(TinError, match="0 frames"):
            model(torch.zeros(0, 3, 32, 32))


def golden_weights(golden: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_weights", golden / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden_resnet18(golden: Path, layout: torch.memory_format) -> tuple[TemporalResNet, torch.Tensor, dict[str, Any]]:
    expected = torch.load(golden / "tin_resnet18.pt", weights_only=True)
    made = golden_weights(golden)
    model = tin.build_model("tin_resnet18", 10, num_segments=4, dropout=0.0)
    model.load_state_dict(made.state(made.plain_shapes(18, 10, 4)))
    model = model.double().to(memory_format=layout)
    frames = made.clip(2, 4, 64).double().flatten(0, 1)
    assert torch.equal(frames.half(), expected["input_fp16"].flatten(0, 1))
    return model, frames.to(memory_format=layout), expected


def close(actual: torch.Tensor | None, expected: torch.Tensor) -> None:
    """Within 1e-7 of the expected gradient, relative to its largest entry."""
    assert actual is not None
    assert (actual - expected).abs().max() <= 1e-7 * expected.abs().max() + 1e-14
