"""`tin-cli bench scaling`: training steps in several processes on this machine, and a prediction for many."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli import _launch
from cli._options import DATASETS, amp_was_asked, device_options, with_device_defaults
from cli._recipe import recipe_options
from cli.bench.report import OUT, Report, check_out


@click.command("scaling", short_help="Training steps in 1, 2, … processes of this machine; --predict: of many GPUs.")
@click.option("--dataset", type=click.Choice(DATASETS), default=None, help="Picks the recipe.  [default: motion]")
@click.option(
    "--recipe", "recipe_name", default=None, metavar="NAME|FILE", help="Recipe, instead of the data set's own."
)
@click.option(
    "--max-processes",
    type=click.IntRange(2),
    default=None,
    help="Processes of the last measurement; 1, 2, 4, … before it.  [default: one a GPU, or a core]",
)
@click.option("--steps", type=click.IntRange(1), default=None, help="Steps of a sample.  [default: 5; 50 on a GPU]")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Samples of each figure and start.")
@click.option(
    "--predict",
    is_flag=True,
    help="Measure nothing: print what 8, 64 and 512 GPUs reach by the model of docs/scaling.md.",
)
@click.option(
    "--clips-per-second",
    "rates",
    type=click.FloatRange(0, min_open=True),
    multiple=True,
    default=(385.0, 600.0),
    show_default=True,
    help="--predict: of one GPU alone; may be given often.",
)
@recipe_options
@device_options
@OUT
def scaling(
    dataset: str | None,
    recipe_name: str | None,
    max_processes: int | None,
    steps: int | None,
    runs: int,
    predict: bool,
    rates: tuple[float, ...],
    device: str,
    amp: str | None,
    overrides: tuple[str, ...],
    out: Path | None,
) -> None:
    """Measure how training steps scale over processes of this machine, on random clips, or predict how they do over many GPUs.

    \b
    tin-cli bench scaling --dataset motion
    tin-cli bench scaling --dataset k400 --max-processes 8 --out scaling.json
    tin-cli bench scaling --predict --dataset k400 --clips-per-second 420

    Each process has its own GPU, or an equal part of the cores, and the same batch: 2 processes at best do twice what 1 does.
    Efficiency is the product of two factors: what processes lose because they share the machine, and what the exchange of
    gradients costs.
    """
    _launch.share_cores()
    from tin import recipes

    check_out(out)
    if amp is not None:
        overrides = (*overrides, f"train.amp={amp}")
    recipe = recipes.load(recipe_name or dataset or "motion", overrides)
    if predict:
        from tin import build_model
        from tin.bench.scaling import table

        model = build_model(**recipe.model.model_dump(exclude={"pretrained"}))
        click.echo(table(model, rates, sorted({recipe.train.batch_size, 32}), recipe.data.input_size))
        return
    import torch

    from tin.bench.processes import scaling as measure
    from tin.distributed import World, resolve_device

    chosen = resolve_device(device, World())
    recipe = with_device_defaults(recipe, chosen, amp_was_asked(amp, overrides))
    report = Report(chosen, chosen.type == "cpu", out)
    most = max_processes or max(2, torch.cuda.device_count() if chosen.type == "cuda" else len(os.sched_getaffinity(0)))
    counts = sorted({most, *(2**power for power in range(most.bit_length()) if 2**power < most)})
    steps = steps or (5 if chosen.type == "cpu" else 50)
    report.add("scaling", measure(recipe, chosen, counts, steps=steps, runs=runs))
    report.close()
