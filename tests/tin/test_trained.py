"""A checkpoint alone gives back the network that was trained, and refuses to be half of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tin
from tests.tin.networks import trained_looking
from tin.checkpoints import save_checkpoint

SETTINGS = [
    "model.arch=tin_resnet18",
    "model.num_classes=3",
    "model.num_segments=4",
    "data.input_size=32",
    "data.short_side=40",
]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return trained_looking("tin_resnet18", 3, 4)


def write(path: Path, network: torch.nn.Module, **more: object) -> Path:
    recipe = tin.recipes.load("tin_motion", SETTINGS).model_dump(mode="json")
    save_checkpoint(path, {"state_dict": network.state_dict(), "recipe": recipe, "optimizer": {"lr": 1.0}, **more})
    return path


def test_the_model_and_what_was_written_beside_it(tmp_path: Path, network: torch.nn.Module) -> None:
    path = write(tmp_path / "best.pt", network, label_names=["a", "b", "c"], epoch=3)
    trained = tin.load_trained(path)
    frames = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(trained.model(frames), network(frames))
    assert not trained.model.training
    assert (trained.model.arch, trained.label_names) == ("tin_resnet18", ["a", "b", "c"])
    assert (trained.recipe.data.input_size, trained.report.complete) == (32, True)
    assert trained.state.keys() == {"recipe", "label_names", "epoch"}


def test_names_of_other_classes_are_none(tmp_path: Path, network: torch.nn.Module) -> None:
    assert tin.load_trained(write(tmp_path / "best.pt", network, label_names=["a", "b"])).label_names is None


def test_the_recipe_may_be_given_and_changed(tmp_path: Path, network: torch.nn.Module) -> None:
    """By name, as an object, and by overrides of the checkpoint's own."""
    path = tmp_path / "bare.pt"
    save_checkpoint(path, network.state_dict())
    with pytest.raises(tin.TinError, match=r"bare.pt holds no recipe: .* recipe="):
        tin.load_trained(path)
    by_name = tin.load_trained(path, recipe="tin_motion", overrides=SETTINGS)
    by_object = tin.load_trained(path, recipe=by_name.recipe, overrides=["data.test_crop=three"])
    assert by_name.recipe == tin.recipes.load("motion", SETTINGS)
    assert by_object.recipe.data.test_crop == "three"
    assert by_object.state == {}
    own = tin.load_trained(write(tmp_path / "best.pt", network), overrides=["data.test_clips=2"])
    assert own.recipe.clip_settings()["test_clips"] == 2


def test_half_a_model_is_refused(tmp_path: Path, network: torch.nn.Module) -> None:
    path = write(tmp_path / "best.pt", network)
    with pytest.raises(tin.TinError, match="is not this model"):
        tin.load_trained(path, overrides=["model.num_classes=5"])
