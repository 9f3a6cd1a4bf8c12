"""`tin-cli test`: a checkpoint and a list to metrics and a result file."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
)
from cli._results import WholeNumbers, out_option, show_result, write_all
from cli._views import as_fields, views_options

if TYPE_CHECKING:
    from cli._session import Session
    from pipelines.lists.formats import ListFormat
    from tin.distributed import World
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
    default=None,
    metavar="NAMES",
    help="Metrics, separated by commas: top_k_accuracy, mean_class_accuracy, balanced_accuracy, mean_average_precision, "
    "calibration_error, time_order_accuracy.  [default: all]",
)
@click.option(
    "--topk", type=WholeNumbers(), default="1,5", show_default=True, metavar="K,K",
    help="The k of top_k_accuracy.",
)  # fmt: skip
@click.option("--per-class", is_flag=True, help="Print the accuracy of every class, worst first.")
@views_options
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
@click.option(
    "--weights", type=click.Choice(["auto", "ema", "raw"]), default="auto", show_default=True,
    help="Of a checkpoint with averaged weights: the averages (auto, ema) or the weights themselves (raw).",
)  # fmt: skip
@out_option("the result")
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
    metrics: str | None,
    topk: tuple[int, ...],
    per_class: bool,
    views: str | None,
    num_clips: int | None,
    twice: bool,
    dense: bool,
    average: Literal["prob", "score"],
    batch_size: int | None,
    fast: bool,
    weights: Literal["auto", "ema", "raw"],
    outs: tuple[Path, ...],
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
    tin-cli test --checkpoint best.pt --list mine/val.txt --eval top_k_accuracy --topk 1,3
    tin-cli test --checkpoint best.pt --data /data/k400 --views three-crop --num-clips 10 --nproc-per-node 8
    tin-cli test --checkpoint best.pt --data /data/sthv2 --twice --out result.json --out scores.pkl

    Videos that cannot be read are reported and left out of the metrics; nothing stands in for them. docs/results.md describes the
    metrics, their intervals and the files; tin-cli compare takes several of them.
    """  # fmt: skip
    _launch.share_cores()
    from cli._session import open_session
    from tin.distributed import world_from_environment
    from tin.evaluation import METRICS

    if launching.wanted:
        return _launch.launch(launching)
    names = [name.strip() for name in metrics.split(",") if name.strip()] if metrics else list(METRICS)
    for name in names:
        if name not in METRICS:
            raise click.UsageError(f"--eval: unknown metric '{name}'; known: {', '.join(METRICS)}")
    given = [*overrides, *as_overrides({"train.batch_size": batch_size, "train.amp": amp})]
    given += as_fields(views, num_clips, twice, dense, overrides)
    world = world_from_environment()
    session = open_session(
        checkpoint,
        recipe_name=recipe_name,
        overrides=given,
        device=device,
        amp_was_asked=amp_was_asked(amp, overrides),
        world=world,
        weights=weights,
    )
    recipe, state = session.recipe, session.state
    asked = click.get_current_context().get_parameter_source("topk") is click.core.ParameterSource.COMMANDLINE
    if asked and (too_large := [k for k in topk if 1 < k >= recipe.model.num_classes]):
        raise click.UsageError(
            f"--topk {too_large[0]}: with {recipe.model.num_classes} classes every video is right there; give a smaller k"
        )
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
            session=session,
            world=world,
            checkpoint=checkpoint,
            list_path=list_path or find_list(dataset or recipe.dataset, "val", data),
            root=root,
            format=format,
            metrics=names,
            must_have=frozenset(names) if metrics else frozenset(),
            topk=topk,
            per_class=per_class,
            average=average,
            fast=fast,
            outs=outs,
            max_bad=max_bad,
            workers=workers,
        )
    )
    return 0


@dataclass(frozen=True, kw_only=True)
class _Request:
    session: Session
    world: World
    checkpoint: Path
    list_path: Path
    root: Path | None
    format: ListFormat
    metrics: list[str]
    must_have: frozenset[str]
    """Metrics that were asked for by name."""
    topk: tuple[int, ...]
    per_class: bool
    average: Literal["prob", "score"]
    fast: bool
    outs: tuple[Path, ...]
    max_bad: float | None
    workers: int | None


def _run(request: _Request) -> None:
    from rich.console import Console

    from cli._data import make_loader, open_lists
    from cli.console import counting
    from pipelines.reversals import read_reversals
    from tin.distributed import process_group
    from tin.errors import TinError
    from tin.evaluation import build_result, check_path, evaluate, file_sha256
    from tin.train.provenance import git_commit, versions

    world, session = request.world, request.session
    recipe, device = session.recipe, session.device
    reversals = read_reversals(request.list_path)
    if "time_order_accuracy" in request.must_have and not reversals:
        raise click.UsageError(f"time_order_accuracy needs reversals.txt beside {request.list_path}")
    if world.is_main:
        for path in request.outs:
            check_path(path)

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
            session.scorer(request.fast, recipe.train.batch_size), loader, len(videos), average=request.average,
            autocast=session.autocast, world=world, on_batch=bar,
        )  # fmt: skip
    if not world.is_main:
        return
    if not len(scores.ids):
        raise TinError(
            f"none of the {scores.expected} videos of {request.list_path} could be scored; first: {scores.failures[0].reason}"
        )
    weights = "ema" if session.averaged else "raw"
    result = build_result(
        scores, [entry.id for entry in videos.list.entries], metrics=request.metrics, ks=request.topk, average=request.average,
        list_name=str(request.list_path), root=str(videos.list.root), label_names=videos.list.labels, reversals=reversals,
        checkpoint={"path": str(request.checkpoint), "sha256": file_sha256(request.checkpoint), "weights": weights},
        recipe=recipe.model_dump(mode="json"), views=_views(recipe), versions=versions(), commit=git_commit(),
        command=["tin-cli", *sys.argv[1:]],
    )  # fmt: skip
    show_result(result, request.per_class)
    write_all(request.outs, result)


def _views(recipe: Recipe) -> dict[str, Any]:
    from cli._data import clip_spec

    spec = clip_spec(recipe)
    return {
        "crop": spec.test_crop,
        "sampling": spec.test_sampling,
        "clips": spec.num_clips(training=False),
        "views": spec.num_views(training=False),
    }
