"""A TIN of another number of segments: an error by default, resampled in time or started afresh when asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tin
from tests.tin.networks import filled, trained_looking
from tin import recipes
from tin.checkpoints import save_checkpoint
from tin.checkpoints.segments import resampled
from tin.errors import TinError
from tin.models import TemporalResNet
from tin.models.interlace import OffsetNet, TemporalInterlace
from tin.weights import load_pretrained

LAYERS = ("fc1.weight", "fc1.bias", "fc2.weight")


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> tuple[TemporalResNet, Path]:
    """A network of 8 segments whose offsets differ from clip to clip, and its file."""
    model = trained_looking("tin_resnet18", 10, 8)
    for module in model.modules():
        if isinstance(module, OffsetNet):
            nn.init.normal_(module.conv.weight, std=0.7 / (3 * module.conv.in_channels) ** 0.5)
            for layer in (module.fc1, module.fc2):
                nn.init.normal_(layer.weight, std=0.6)
                nn.init.normal_(layer.bias, std=0.5)
    path = tmp_path_factory.mktemp("segments") / "eight.pt"
    save_checkpoint(path, {"state_dict": model.state_dict()})
    return model, path


def offsets(model: TemporalResNet, frames: Tensor) -> Tensor:
    """(blocks, clips, 2)"""
    seen: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, inputs: seen.append(module.offsets_and_gains(inputs[0])[0]))
        for module in model.modules()
        if isinstance(module, TemporalInterlace)
    ]
    with torch.no_grad():
        model.eval()(frames)
    for hook in hooks:
        hook.remove()
    return torch.stack(seen)


def slow_clips(num_segments: int) -> Tensor:
    """The same four clips, in which brightness drifts, at any number of frames."""
    generator = torch.Generator().manual_seed(3)
    still, speed = torch.randn(4, 1, 3, 32, 32, generator=generator), torch.randn(4, 1, 3, 1, 1, generator=generator)
    time = (torch.arange(num_segments) + 0.5).view(1, -1, 1, 1, 1) / num_segments
    return (still + 2 * torch.sin(3 * time * speed)).flatten(0, 1)


def test_by_default_it_is_an_error_that_names_the_ways_out(eight: tuple[TemporalResNet, Path]) -> None:
    model = filled("tin_resnet18", 2, segments=16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    message = (
        r"another number of segments: layer1\.0\.tin\.offset\.fc1\.weight is \(8, 8\), the model has \(16, 16\)\. .*24 "
        r'weights .*segments="resample".*segments="fresh"'
    )
    with pytest.raises(TinError, match=message):
        tin.load_checkpoint(model, eight[1])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_resampled_layers_are_reported_and_the_others_are_the_files(eight: tuple[TemporalResNet, Path]) -> None:
    saved, path = eight
    model = filled("tin_resnet18", 2, segments=16)
    report = tin.load_checkpoint(model, path, segments="resample")
    assert report.counts == {"loaded": 162, "new": 0, "dropped": 0, "reshaped": 24, "mismatched": 0}
    assert report.reshaped[0] == "layer1.0.tin.offset.fc1.weight: file (8, 8), model (16, 16)"
    assert "162 weights loaded, 0 new, 0 dropped, 24 reshaped" in str(report)
    assert all(torch.equal(model.state_dict()[name], saved.state_dict()[name]) for name in report.loaded)
    with pytest.raises(TinError, match="24 made for another number of segments"):
        report.require_complete()


def test_training_can_ask_for_it(eight: tuple[TemporalResNet, Path]) -> None:
    recipe = recipes.load("k400", ["train.pretrained_segments=resample"])
    model = filled("tin_resnet18", 2, segments=16)
    report = load_pretrained(model, eight[1], segments=recipe.train.pretrained_segments)
    assert len(report.reshaped) == 24


@pytest.mark.parametrize(("num_segments", "near"), [(16, 0.2), (24, 0.2), (12, 0.4)])
def test_more_segments_give_offsets_near_those_of_the_file(
    eight: tuple[TemporalResNet, Path], num_segments: int, near: float
) -> None:
    saved, path = eight
    expected = offsets(saved, slow_clips(8))
    assert expected.std() > 0.5
    means = {}
    for way in ("resample", "fresh"):
        torch.manual_seed(0)
        model = tin.build_model("tin_resnet18", 10, num_segments=num_segments)
        tin.load_checkpoint(model, path, segments=way)  # type: ignore[arg-type]
        found = offsets(model, slow_clips(num_segments))
        assert found.isfinite().all()
        means[way] = float((found - expected).abs().mean())
    assert means["resample"] < near
    assert means["resample"] < means["fresh"] / 2


@pytest.mark.parametrize("times", [2, 3])
def test_of_a_multiple_the_offset_network_is_the_old_one_of_the_averaged_clip(times: int) -> None:
    torch.manual_seed(0)
    old, new = OffsetNet(4, 8).double(), OffsetNet(4, 8 * times).double()
    for name, value in old.state_dict().items():
        here = f"layer1.0.tin.offset.{name}"
        new.state_dict()[name].copy_(resampled(here, value, 8 * times) if name in LAYERS else value)
    descriptor = torch.randn(5, 8 * times, dtype=torch.float64)
    difference = new(descriptor) - old(descriptor.view(5, 8, times).mean(dim=2))
    assert difference.abs().max() < 1e-12


@pytest.mark.parametrize("num_segments", [1, 3, 4, 8, 13])
def test_any_number_has_its_shapes_and_the_same_number_the_same_values(num_segments: int) -> None:
    old = OffsetNet(4, 8)
    new = OffsetNet(4, num_segments)
    for name in LAYERS:
        value = resampled(f"layer1.0.tin.offset.{name}", old.state_dict()[name], num_segments)
        assert value.shape == new.state_dict()[name].shape
        assert value.isfinite().all()
        if num_segments == 8:
            assert torch.equal(value, old.state_dict()[name])


def test_a_fresh_start_leaves_the_models_own_layers_and_nothing_else(eight: tuple[TemporalResNet, Path]) -> None:
    model = filled("tin_resnet18", 2, segments=16)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    report = tin.load_checkpoint(model, eight[1], segments="fresh")
    assert report.counts == {"loaded": 162, "new": 0, "dropped": 0, "reshaped": 0, "mismatched": 24}
    kept = [name for name in own if torch.equal(own[name], model.state_dict()[name])]
    assert sorted(kept) == sorted(text.partition(":")[0] for text in report.mismatched)


@pytest.mark.parametrize("way", ["resample", "fresh"])
def test_other_differences_are_errors_all_the_same(tmp_path: Path, way: str) -> None:
    state = dict(filled("tin_resnet18", 1).state_dict())
    state["layer1.0.tin.offset.fc1.weight"] = torch.ones(8, 7)
    state["bn1.weight"] = torch.ones(3)
    save_checkpoint(tmp_path / "x.pt", state)
    with pytest.raises(TinError, match=r"bn1\.weight: file \(3,\)"):
        tin.load_checkpoint(filled("tin_resnet18", 2, segments=16), tmp_path / "x.pt", segments=way)  # type: ignore[arg-type]
    del state["bn1.weight"]
    save_checkpoint(tmp_path / "x.pt", state | {"bn1.weight": torch.ones(64)})
    if way == "resample":
        with pytest.raises(TinError, match=r"fc1\.weight: file \(8, 7\), model \(16, 16\)"):
            tin.load_checkpoint(filled("tin_resnet18", 2, segments=16), tmp_path / "x.pt", segments="resample")
