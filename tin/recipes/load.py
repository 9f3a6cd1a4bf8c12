"""Find a recipe by name, data set or file, apply overrides, and refuse what is wrong by the name of the key."""

from __future__ import annotations

import copy
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from tin.errors import TinError
from tin.recipes.schema import Recipe

DATASET_RECIPES = {
    "motion": "tin_motion",
    "sthv1": "tin_r50_1x1x8_40e_sthv1_rgb",
    "sthv2": "tin_r50_1x1x8_40e_sthv2_rgb",
    "k400": "tin_tsm_finetune_r50_1x1x8_50e_kinetics400_rgb",
}
"""The recipe that `--dataset NAME` picks."""


def available() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        item.name.removesuffix(".toml")
        for item in resources.files("tin.recipes").iterdir()
        if item.name.endswith(".toml")
    )


def load(name_or_file: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        name_or_file: a name of `available()`, a key of `DATASET_RECIPES`, or a TOML file (or JSON, as runs write).
        overrides: `section.key=value`, the value in TOML (`optim.lr=0.01`, `data.scales=[1, 0.8]`); a bare word is a string.

    Raises:
        TinError: no such recipe; not TOML or JSON; an unknown key (with the nearest valid one), a wrong type or an impossible value.
    """
    text, source = _text_of(name_or_file)
    try:
        table = json.loads(text) if source.endswith(".json") else tomllib.loads(text)
    except ValueError as error:  # of both parsers
        raise TinError(f"recipe {source} cannot be parsed: {error}") from None
    if not isinstance(table, dict):
        raise TinError(f"recipe {source} must be a table of sections, not {type(table).__name__}")
    return from_dict(table, source, overrides)


def from_dict(table: Mapping[str, Any], source: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """Check a recipe that is already a dictionary (as a checkpoint keeps it), after overrides as in `load`.

    Raises:
        TinError: as `load`; the message begins with `source`.
    """
    settings = copy.deepcopy(dict(table))
    for override in overrides:
        _apply(settings, override)
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        raise TinError(f"{source}: " + "; ".join(_explain(problem) for problem in error.errors())) from None


def _text_of(name_or_file: str | Path) -> tuple[str, str]:
    name = DATASET_RECIPES.get(str(name_or_file), str(name_or_file))
    if name in available():
        return resources.files("tin.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8"), name
    path = Path(name_or_file)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise TinError(f"cannot read recipe {path}: {error}") from None
    known = [*DATASET_RECIPES, *available()]
    nearest = _nearest(str(name_or_file), known)
    raise TinError(f"no recipe or file named '{name_or_file}'{nearest}; recipes: {', '.join(available())}")


def _apply(table: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise TinError(f"--set {override}: expected section.key=value, for example optim.lr=0.01")
    target = table
    for part in parts[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise TinError(f"--set {override}: '{part}' is a value, not a section")
    target[parts[-1]] = _toml_value(value.strip())


def _toml_value(text: str) -> Any:
    if text.lower() == "none":  # TOML has no null; None turns an optional setting off
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(problem: Any) -> str:
    """One clause for one of pydantic's findings, naming the key."""
    location = tuple(str(part) for part in problem["loc"])
    key = ".".join(location)
    kind = problem["type"]
    if kind == "extra_forbidden":
        return f"unknown key '{key}'{_nearest(location[-1], _keys_beside(location))}"
    if kind == "missing":
        return f"'{key}' is missing"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should", "should")
    return f"'{key}' {message} (got {problem['input']!r})" if kind != "value_error" else f"'{key}': {message}"


def _keys_beside(location: tuple[str, ...]) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in location[:-1]:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)


def _nearest(word: str, words: Sequence[str]) -> str:
    match = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""
