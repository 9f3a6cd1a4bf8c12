"""From a data set's name, folder or list to the loader that a recipe asks for."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.errors import DataError

if TYPE_CHECKING:
    import torch

    from pipelines import ClipSpec, Loader, VideoIndex, VideoList
    from pipelines.lists.formats import ListFormat
    from tin.distributed import World
    from tin.recipes import Recipe

logger = logging.getLogger("pipelines")

CLASSES_HINT = "give the list of the recipe's data set, or --num-classes"


@dataclass(frozen=True)
class Indexed:
    """A list and what is known about its files."""

    list: VideoList
    index: VideoIndex

    def __len__(self) -> int:
        return len(self.list.entries)


def find_list(dataset: str, split: str, data: Path | None) -> Path:
    """`DATA/train.txt` or `val.txt`; DATA is `--data`, else `$TIN_DATA/NAME`, else `data/NAME`. The motion data set is rendered when it is
    nowhere.

    Raises:
        DataError: there is no such list; the message says where it was looked for and how to make it.
    """
    folder = data or Path(os.environ.get("TIN_DATA", "data")) / dataset
    path = folder / f"{split}.txt"
    if not path.is_file() and dataset == "motion" and data is None:
        from cli.data.motion import render_motion

        click.echo(f"rendering the motion data set into {folder} (once)")
        render_motion(folder)
    if not path.is_file():
        raise DataError(
            f"no list {path}: make the lists of your copy of '{dataset}' with 'tin-cli data prepare', write them by hand (a line a "
            f"video: path label), or name their folder with --data"
        )
    return path


def open_lists(
    paths: Sequence[Path],
    root: Path | None,
    recipe: Recipe,
    world: World,
    labelled: bool = False,
    format: ListFormat = "auto",
) -> list[Indexed]:
    """Read lists and their index, probing new files; one process probes, the others then read what it found.

    Videos that cannot be read are reported by the loader that is made of the list.

    Args:
        labelled: every video must have a label.
        format: of the lists.

    Raises:
        DataError: as `VideoList.read`; a label that the model has no class for; no label where one is needed.
    """
    from tin.distributed import main_first

    return main_first(
        lambda: [_open_list(path, root, recipe, labelled, world.is_main, format) for path in paths], world
    )


def _open_list(
    path: Path, root: Path | None, recipe: Recipe, labelled: bool, announce: bool, format: ListFormat
) -> Indexed:
    from cli.console import callback_bar
    from pipelines import VideoIndex, VideoList

    videos = VideoList.read(path, root=root, format=format)
    classes = recipe.model.num_classes
    if videos.labels and len(videos.labels) != classes:
        raise DataError(
            f"{videos.labels_from} names {len(videos.labels)} classes, the model has {classes}: {CLASSES_HINT}"
        )
    for entry in videos.entries:
        if entry.label is None and labelled:
            raise DataError(f"{path}: '{entry.id}' has no label: training needs 'path label' in every line")
        if entry.label is not None and entry.label >= classes:
            raise DataError(
                f"{path}: '{entry.id}' has label {entry.label}, the model has classes 0…{classes - 1}: {CLASSES_HINT}"
            )
    with callback_bar("probing videos", announce) as progress:
        index = VideoIndex.build(videos, progress=progress)
    return Indexed(videos, index)


def clip_spec(recipe: Recipe, training: VideoList | None = None) -> ClipSpec:
    """The recipe's data settings as the loader takes them.

    Args:
        training: the list to train on, whose class names `data.flip_labels` may need; without one labels are left alone.

    Raises:
        DataError: no map of the labels can be made (`pipelines.mirror.mirror_classes`).
    """
    from pipelines import ClipSpec
    from pipelines.mirror import mirror_classes, sides

    flip_labels = None
    if training is not None and recipe.data.flip and recipe.data.flip_labels:
        flip_labels = mirror_classes(recipe.data.flip_labels, training.labels, recipe.model.num_classes)
    elif training is not None and recipe.data.flip and (sided := sides(training.labels or [])):
        logger.warning(
            "data.flip is %g and %d class names have the word of a side, '%s' for one: flip 0 never mirrors, flip_labels = 'labels' "
            "exchanges their labels",
            recipe.data.flip, len(sided), sided[0],
        )  # fmt: skip
    return ClipSpec(flip_labels=flip_labels, **recipe.clip_settings())


def make_loader(
    videos: Indexed,
    recipe: Recipe,
    *,
    training: bool,
    device: torch.device,
    world: World,
    seed: int = 0,
    workers: int | None = None,
    max_bad: float | None = None,
) -> Loader:
    """The loader of a list for a recipe; on a GPU frames come in the type that the model computes in."""
    from pipelines import Loader

    half = {"fp16": "float16", "bf16": "bfloat16"}
    return Loader(
        videos.list,
        videos.index,
        clip_spec(recipe, videos.list if training else None),
        batch_size=recipe.train.batch_size * (recipe.train.accumulate if training else 1),
        training=training,
        seed=seed,
        device=str(device),
        dtype=half.get(recipe.train.amp, "float32") if device.type == "cuda" else "float32",
        rank=world.rank,
        world_size=world.size,
        num_workers=workers,
        max_bad=max_bad,
        repeats=recipe.data.repeats,
        class_balanced=recipe.data.class_balanced,
    )
