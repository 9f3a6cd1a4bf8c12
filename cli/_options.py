"""Options that several commands share, and the recipe they add up to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    import torch

    from tin.recipes import Recipe

DATASETS = ("motion", "sthv1", "sthv2", "k400")
LIST_FORMATS = ("auto", "videos", "frames", "kinetics", "sthv1", "sthv2")
Function = TypeVar("Function", bound=Callable[..., Any])

EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

LIST_FORMAT = click.option(
    "--format", type=click.Choice(LIST_FORMATS), default="auto", show_default=True,
    help="What the list is: 'path label' (videos) or 'path frames label' (frames) a line, or an official file.",
)  # fmt: skip


def training_list_options(function: Function) -> Function:
    """--dataset, --data, --train-list, --root: which videos to train on; and --recipe, which --dataset picks."""
    for option in (
        click.option("--recipe", "recipe_name", default=None, metavar="NAME|FILE",
                     help="Recipe, instead of the data set's own."),
        click.option("--root", type=EXISTING_FOLDER, default=None,
                     help="Folder that the paths in the lists are relative to.  [default: the list's]"),
        click.option("--train-list", type=EXISTING_FILE, default=None, help="Training list, instead of DATA/train.txt."),
        click.option("--data", type=EXISTING_FOLDER, default=None,
                     help="Folder with train.txt, val.txt and labels.txt.  [default: $TIN_DATA/DATASET, else data/DATASET]"),
        click.option("--dataset", type=click.Choice(DATASETS), default=None,
                     help="Data set; picks its recipe.  [default: motion]"),
    ):  # fmt: skip
        function = option(function)
    return function


def run_options(function: Function) -> Function:
    """--device, --amp, --workers: how the computing is done."""
    workers = click.option("--workers", type=click.IntRange(0, 1024), default=None,
                           help="Decoding processes of each process (CPU decoding).  [default: one a core]")  # fmt: skip
    return device_options(workers(function))


def device_options(function: Function) -> Function:
    """--device, --amp: what computes."""
    for option in (
        click.option("--amp", type=click.Choice(["off", "fp16", "bf16"]), default=None,
                     help="Mixed precision.  [default: the recipe's on a GPU, off on a CPU]"),
        click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N."),
    ):  # fmt: skip
        function = option(function)
    return function


def set_option(function: Function) -> Function:
    """--set key=value for every field of a recipe."""
    return click.option(
        "--set", "overrides", multiple=True, metavar="KEY=VALUE",
        help="Override any field of the recipe, for example optim.lr=0.01; may be given often.",
    )(function)  # fmt: skip


def amp_was_asked(amp: str | None, overrides: Sequence[str]) -> bool:
    """Whether mixed precision was named on the command line, by --amp or by --set."""
    return amp is not None or any(override.startswith("train.amp") for override in overrides)


def with_device_defaults(recipe: Recipe, device: torch.device, amp_was_asked: bool) -> Recipe:
    """On a CPU mixed precision is off unless it was asked for: without native support it is several times slower."""
    if device.type == "cpu" and not amp_was_asked and recipe.train.amp != "off":
        return recipe.model_copy(update={"train": recipe.train.model_copy(update={"amp": "off"})})
    return recipe


def as_overrides(values: dict[str, Any]) -> list[str]:
    """Options that were given, as `--set` takes them."""
    return [f"{key}={value}" for key, value in values.items() if value is not None]
