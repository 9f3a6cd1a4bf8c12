"""`tin-cli bench train`: how fast a recipe trains from a list's files, and what holds it up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import _launch
from cli._data import find_list
from cli._options import amp_was_asked, run_options, training_list_options, with_device_defaults
from cli._recipe import recipe_options
from cli.bench.report import OUT, Report, check_out

if TYPE_CHECKING:
    import torch

    from tin.recipes import Recipe


@click.command("train", short_help="Training from files: loader alone, model alone, end to end, and the bottleneck.")
@training_list_options
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=None,
    help="Steps of a sample, at most an epoch.  [default: what takes the model 5 s, but 4 at least]",
)
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Samples of each figure.")
@recipe_options
@run_options
@OUT
def train(
    dataset: str | None,
    data: Path | None,
    train_list: Path | None,
    root: Path | None,
    recipe_name: str | None,
    steps: int | None,
    runs: int,
    device: str,
    amp: str | None,
    workers: int | None,
    overrides: tuple[str, ...],
    out: Path | None,
) -> None:
    """Measure how fast a recipe trains from files, in one process: the loader alone, the model alone, both together.

    \b
    tin-cli bench train --dataset motion
    tin-cli bench train --dataset k400 --data /data/k400 --workers 16 --out train.json
    tin-cli bench train --train-list mine/train.txt --num-classes 5 --batch-size 12

    Takes the options of 'tin-cli train' that change its speed. The model alone gets random clips; end to end is the training step on the
    loader's batches. On a GPU the slower half is the limit; on a CPU both share the cores, and it is 1 / (1/loader + 1/model).
    What holds training up is said in words below the table. The weights are thrown away.
    """
    _launch.share_cores()
    from tin import recipes
    from tin.allocator import keep_freed_memory
    from tin.distributed import World, resolve_device

    check_out(out)
    if amp is not None:
        overrides = (*overrides, f"train.amp={amp}")
    recipe = recipes.load(recipe_name or dataset or "motion", overrides)
    path = train_list or find_list(dataset or recipe.dataset, "train", data)
    chosen = resolve_device(device, World())
    recipe = with_device_defaults(recipe, chosen, amp_was_asked(amp, overrides))
    report = Report(chosen, chosen.type == "cpu" and keep_freed_memory(), out)
    report.add("train", _on_files(recipe, path, root, chosen, workers, steps=steps, runs=runs))
    report.close()


def _on_files(
    recipe: Recipe,
    path: Path,
    root: Path | None,
    device: torch.device,
    workers: int | None,
    *,
    steps: int | None,
    runs: int,
) -> dict[str, Any]:
    """The result of `tin.bench.train` on the videos of a list."""
    import torch

    from cli._data import make_loader, open_lists
    from pipelines.arguments import default_workers
    from tin import bench, build_model
    from tin.bench.timing import Rounds
    from tin.distributed import World

    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    workers = default_workers() if workers is None else workers
    (videos,) = open_lists([path], root, recipe, World(), labelled=True)
    model = build_model(**recipe.model.model_dump(exclude={"pretrained"}))
    with make_loader(videos, recipe, training=True, device=device, world=World(), workers=workers) as loader:
        result = bench.train(loader, model, recipe, device=device, steps=steps, rounds=Rounds(0, runs), workers=workers)
    result["settings"].update(list=str(path), videos=len(videos))
    return result
