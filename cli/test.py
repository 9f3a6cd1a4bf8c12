"""`tin-cli test`: a checkpoint and a list to metrics and a result file."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from cli import _launch
from cli._bad import bad_videos_listed, max_bad_option
from cli._data import find_list
from cli._options import (
    DATASETS,
    EXISTING_FILE,
    EXISTING_FOLDER,
    LIST_FORMAT,
    amp_was_asked,
    as_overrides,
    run_options,
    set_option,
    with_device_defaults,
)

if TYPE_CHECKING:
    import torch

    from pipelines.lists.formats import ListFormat
    from tin.inference import PreparedModel
    from tin.models import TemporalResNet
    from tin.recipes import Recipe


@click.command(short_help="Score a list of videos with a checkpoint.")
@click.option(
    "--checkpoint", type=EXISTING_FILE, required=True, help="Checkpoint of tin-cli train, or any that --recipe fits."
)
@click.option(
    "--list",
    "list_path",
    type=EXISTING_FILE,
    default=None,
    help="List to score.  [default: the one the checkpoint was validated on]",
)
@LIST_FORMAT
@click.option("--dataset", type=click.Choice(DATASETS), default=None, help="Data set, whose val.txt is scored.")
@click.option(
    "--data",
    type=EXISTING_FOLDER,
    default=None,
    help="Folder with val.txt and labels.txt.  [default: $TIN_DATA/DATASET, else data/DATASET]",
)
@click.option(
    "--root",
    type=EXISTING_FOLDER,
    default=None,
    help="Folder that the paths in the list are relative to.  [default: the list's]",
)
@click.option(
    "--recipe", "recipe_name", default=None, metavar="NAME|FILE", help="Recipe.  [default: the one in the checkpoint]"
)
@click.option(
    "--eval",
    "metrics",
    default="top_k_accuracy,mean_class_accuracy",
    show_default=True,
    metavar="NAMES",
    help="Metrics, separated by commas: top_k_accuracy, mean_class_accuracy, time_order_accuracy.",
)
@click.option(
    "--average",
    type=click.Choice(["prob", "score"]),
    default="prob",
    show_default=True,
    help="What is averaged over a video's views.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=None,
    help="Videos at a time in one process.  [default: the recipe's]",
)
@click.option(
    "--fast", is_flag=True,
    help="Prepare the model first: batch norms folded, weights cast once, CUDA graphs. Same scores but for rounding.",
)  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write the result as JSON.")
@max_bad_option
@run_options
@_launch.launch_options
@set_option
def test(
    checkpoint: Path,
    list_path: Path | None,
    format: ListFormat,
    dataset: str | None,
    data: Path | None,
    root: Path | None,
    recipe_name: str | None,
    metrics: str,
    average: Literal["prob", "score"],
    batch_size: int | None,
    fast: bool,
    out: Path | None,
    max_bad: float | None,
    device: str,
    amp: str | None,
    workers: int | None,
    launching: _launch.LaunchOptions,
    overrides: tuple[str, ...],
) -> int:
    """Score every video of a list exactly once and print the metrics.

    \b
    tin-cli test --checkpoint runs/tin_motion/best.pt --out result.json
    tin-cli test --checkpoint best.pt --list mine/val.txt --eval top_k_accuracy
    tin-cli test --checkpoint best.pt --data /data/k400 --set data.test_crop=three --max-bad 1%

    Videos that cannot be read are reported and left out of the metrics; nothing stands in for them. docs/results.md describes the file.
    """  # fmt: skip
    _launch.share_cores()
    from tin import recipes
    from tin.checkpoints import load_state
    from tin.evaluation import METRICS

    if launching.wanted:
        return _launch.launch(launching)
    names = [name.strip() for name in metrics.split(",") if name.strip()]
    for name in names:
        if name not in METRICS:
            raise click.UsageError(f"--eval: unknown metric '{name}'; known: {', '.join(METRICS)}")
    given = [*overrides, *as_overrides({"train.batch_size": batch_size, "train.amp": amp})]
    state = load_state(checkpoint)
    if recipe_name:
        recipe = recipes.load(recipe_name, given)
    elif "recipe" in state:
        recipe = recipes.from_dict(state["recipe"], f"the recipe in {checkpoint}", given)
    else:
        raise click.UsageError(f"{checkpoint} holds no recipe: name the one it was trained with by --recipe")
    if list_path is None and dataset is None and data is None and "val" in state.get("lists", {}):
        list_path = Path(state["lists"]["val"])  # of the run that wrote the checkpoint
        if root is None and "root" in state["lists"]:
            root = Path(state["lists"]["root"])
        if not list_path.is_file():
            raise click.UsageError(
                f"{list_path}, on which {checkpoint} was validated, is gone: name a list by --list or --data"
            )
    _run(
        _Request(
            recipe=recipe,
            checkpoint=checkpoint,
            list_path=list_path or find_list(dataset or recipe.dataset, "val", data),
            root=root,
            format=format,
            metrics=names,
            average=average,
            fast=fast,
            out=out,
            max_bad=max_bad,
            device=device,
            amp_was_asked=amp_was_asked(amp, overrides),
            workers=workers,
        )
    )
    return 0


@dataclass(frozen=True, kw_only=True)
class _Request:
    recipe: Recipe
    checkpoint: Path
    list_path: Path
    root: Path | None
    format: ListFormat
    metrics: list[str]
    average: Literal["prob", "score"]
    fast: bool
    out: Path | None
    max_bad: float | None
    device: str
    amp_was_asked: bool
    workers: int | None


def _run(request: _Request) -> None:
    import torch
    from rich.console import Console

    from cli._data import make_loader, open_lists
    from cli.console import counting, format_metrics
    from pipelines.reversals import read_reversals
    from tin import build_model, load_checkpoint
    from tin.allocator import keep_freed_memory
    from tin.distributed import process_group, resolve_device, world_from_environment
    from tin.errors import TinError
    from tin.evaluation import build_result, compute, evaluate, file_sha256, write_json
    from tin.train.amp import autocast
    from tin.train.state import versions

    world = world_from_environment()
    device = resolve_device(request.device, world)
    if device.type == "cpu":
        keep_freed_memory()
    recipe = with_device_defaults(request.recipe, device, request.amp_was_asked)
    model = build_model(**recipe.model.model_dump(exclude={"pretrained"}))
    load_checkpoint(model, request.checkpoint).require_complete()
    model.to(device, memory_format=torch.channels_last)

    with ExitStack() as stack:
        stack.enter_context(process_group(world, device))
        stack.enter_context(bad_videos_listed(world))
        (videos,) = open_lists([request.list_path], request.root, recipe, world, format=request.format)
        loader = stack.enter_context(
            make_loader(
                videos,
                recipe,
                training=False,
                device=device,
                world=world,
                workers=request.workers,
                max_bad=request.max_bad,
            )
        )
        bar = stack.enter_context(counting(Console(stderr=True), "testing", -(-len(videos) // world.size)))
        scores = evaluate(
            _prepared(model, recipe, device) if request.fast else model, loader, len(videos), average=request.average,
            autocast=lambda: autocast(recipe.train.amp, device), world=world, on_batch=bar,
        )  # fmt: skip
    if not world.is_main:
        return
    if not len(scores.ids):
        raise TinError(
            f"none of the {scores.expected} videos of {request.list_path} could be scored; first: {scores.failures[0].reason}"
        )
    values: dict[str, float] = {}
    if scores.labelled:
        reversals = read_reversals(request.list_path)
        values = compute(request.metrics, scores.scores, scores.labels, reversals=reversals)
    for failure in scores.failures:
        click.echo(f"failed: {failure.name}: {failure.reason}", err=True)
    click.echo(f"{len(scores.ids)} of {scores.expected} videos scored, {len(scores.failures)} failed")
    click.echo(format_metrics(values) if values else "no metrics: the list has no labels")
    if request.out:
        names = [entry.id for entry in videos.list.entries]
        checkpoint = {"path": str(request.checkpoint), "sha256": file_sha256(request.checkpoint)}
        result = build_result(
            scores, values, names, label_names=videos.list.labels, list=str(request.list_path), checkpoint=checkpoint,
            recipe=recipe.model_dump(mode="json"), average=request.average, versions=versions(), command=["tin-cli", *sys.argv[1:]],
        )  # fmt: skip
        write_json(request.out, result)
        click.echo(f"result written to {request.out}")


def _prepared(model: TemporalResNet, recipe: Recipe, device: torch.device) -> PreparedModel:
    """The model made ready for the loader's full batches, in the type that --amp asks for."""
    import torch

    from cli._data import clip_spec
    from tin.inference import prepare
    from tin.train.amp import DTYPES

    spec = clip_spec(recipe)
    frames = recipe.train.batch_size * spec.num_views(training=False) * spec.num_segments
    example = torch.zeros(frames, 3, spec.input_size, spec.input_size, device=device)
    return prepare(model.eval(), example, dtype=DTYPES.get(recipe.train.amp, torch.float32))
