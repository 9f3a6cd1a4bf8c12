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
    ],
)
def test_wrong_overrides_are_refused_by_key(override: str, message: str) -> None:
    with pytest.raises(TinError, match=message):
        recipes.load("sthv1", [override])


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
