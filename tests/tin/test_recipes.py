"""Recipes: the published ones hold the published numbers, and mistakes are refused by the name of the key."""

from __future__ import annotations

import json

import pytest

from tin import recipes
from tin.errors import TinError


def test_every_bundled_recipe_is_valid_and_named_after_its_file() -> None:
    names = recipes.available()
    assert set(recipes.DATASET_RECIPES.values()) <= set(names)
    for name in names:
        assert recipes.load(name).name == name


@pytest.mark.parametrize(
    ("dataset", "lr", "weight_decay", "epochs", "dropout", "flip", "classes"),
    [
        ("sthv1", 0.02, 5e-4, 40, 0.8, 0.0, 174),
        ("sthv2", 0.02, 5e-4, 40, 0.8, 0.0, 174),
        ("k400", 0.01, 1e-4, 50, 0.5, 0.5, 400),
    ],
)
def test_published_recipes_have_the_numbers_of_the_results_table(
    dataset: str, lr: float, weight_decay: float, epochs: int, dropout: float, flip: float, classes: int
) -> None:
    recipe = recipes.load(dataset)
    assert (recipe.optim.lr, recipe.optim.weight_decay, recipe.schedule.epochs) == (lr, weight_decay, epochs)
    assert (recipe.model.dropout, recipe.data.flip, recipe.model.num_classes) == (dropout, flip, classes)
    assert (recipe.train.batch_size, recipe.train.base_batch, recipe.optim.clip_norm) == (6, 48, 20.0)


def test_overrides_take_toml_values_and_bare_words() -> None:
    recipe = recipes.load("k400", ["optim.lr=0.5", "data.scales=[1, 0.8]", "train.amp=bf16", "optim.clip_norm=none"])
    assert recipe.optim.lr == 0.5
    assert recipe.data.scales == (1.0, 0.8)
    assert recipe.train.amp == "bf16"
    assert recipe.optim.clip_norm is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learning=1", "unknown key 'optim.learning'"),
        ("optim.momentun=0.9", "did you mean 'momentum'"),
        ("optim.lr=-1", "'optim.lr' should be greater than 0"),
        ("optim.lr=fast", "'optim.lr'"),
        ("schedule.epochs=0", "'schedule.epochs'"),
        ("data.input_size=512", "does not fit into short_side"),
        ("schedule.kind=step", "needs milestones"),
        ("schedule.warmup_epochs=41", "is longer than the 40 epochs"),
        ("optim", "expected section.key=value"),
        ("name.x=1", "is a value, not a section"),
        ("optim.lr=nan", "'optim.lr'"),
        ("data.train_crop=random", "'data.train_crop'"),
        ("data.crop_area=[0.5, 0.1]", "the smaller number comes first"),
        ("data.crop_aspect=[0.5, 200]", "at most 100"),
        ("data.color_jitter={bright=1}", "unknown key 'data.color_jitter.bright'"),
        ("data.color_jitter={hue=0.7}", "'data.color_jitter.hue' should be less than or equal to 0.5"),
        ("data.color_jitter={}", "'data.color_jitter': it changes nothing"),
        ("data.repeats=0", "'data.repeats'"),
        ("data.class_balanced=2", "'data.class_balanced'"),
        ("data.test_clips=0", "'data.test_clips'"),
        ("train.mixup=-1", "'train.mixup'"),
        ("train.mix_probability=2", "'train.mix_probability'"),
    ],
)
def test_wrong_overrides_are_refused_by_key(override: str, message: str) -> None:
    with pytest.raises(TinError, match=message):
        recipes.load("sthv1", [override])


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(TinError, match="'twice' takes 2 clips of a video, not 5"):
        recipes.load("sthv1", ["data.test_sampling=twice", "data.test_clips=5"])
    with pytest.raises(TinError, match="batch_size must be at least 2"):
        recipes.load("sthv1", ["train.cutmix=1.0", "train.batch_size=1"])


def test_augmentation_is_off_unless_a_recipe_asks_for_it() -> None:
    for name in recipes.available():
        recipe = recipes.load(name)
        assert (recipe.train.mixup, recipe.train.cutmix, recipe.data.repeats, recipe.data.class_balanced) == (
            0,
            0,
            1,
            0,
        )
        assert (recipe.data.color_jitter, recipe.data.flip_labels, recipe.data.train_crop) == (
            None,
            None,
            "multi_scale",
        )
    asked = recipes.load("sthv2", ["data.color_jitter={brightness=0.4, hue=0.1}", "data.color_jitter.contrast=0.2"])
    assert asked.data.color_jitter is not None
    assert (asked.data.color_jitter.brightness, asked.data.color_jitter.contrast) == (0.4, 0.2)
    assert recipes.from_dict(asked.model_dump(mode="json")) == asked


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(TinError, match="did you mean 'k400'"):
        recipes.load("k40")


def test_files_are_read_as_toml_or_json_and_damaged_ones_refused(tmp_path) -> None:
    recipe = recipes.load("k400")
    file = tmp_path / "mine.json"
    file.write_text(recipe.model_dump_json())
    assert recipes.load(file) == recipe
    file.write_text(json.dumps([1, 2]))
    with pytest.raises(TinError, match="must be a table"):
        recipes.load(file)
    toml = tmp_path / "mine.toml"
    toml.write_text("name = ")
    with pytest.raises(TinError, match=r"mine\.toml cannot be parsed"):
        recipes.load(toml)
    toml.write_text('name = "x"\ndataset = "y"\n')
    with pytest.raises(TinError, match="'model' is missing"):
        recipes.load(toml)


def test_a_recipe_survives_the_way_through_a_checkpoint() -> None:
    recipe = recipes.load("k400", ["optim.clip_norm=none"])
    assert recipes.from_dict(recipe.model_dump(mode="json")) == recipe
