"""`tin-cli train`: a recipe and a data set to a trained checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from cli import _launch, _training
from cli._bad import max_bad_option
from cli._data import find_list
from cli._options import (
    EXISTING_FILE,
    amp_was_asked,
    run_options,
    training_list_options,
)
from cli._recipe import recipe_options


@click.command(short_help="Train a model on a data set.")
@training_list_options
@click.option("--val-list", type=EXISTING_FILE, default=None, help="Validation list, instead of DATA/val.txt.")
@click.option(
    "--work-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Where checkpoints and logs go.  [default: runs/RECIPE]",
)
@click.option("--resume", is_flag=True, help="Go on from WORK_DIR/last.pt; a new run when there is none.")
@click.option(
    "--validate/--no-validate", default=True, show_default=True, help="Measure accuracy on the validation list."
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of every random choice.")
@click.option("--deterministic", is_flag=True, help="Bit-identical results from run to run; may be slower.")
@click.option(
    "--profile",
    "profile_steps",
    type=click.IntRange(0),
    default=0,
    metavar="STEPS",
    help="Trace so many steps, from the fifth on, into WORK_DIR/profile.",
)
@recipe_options
@max_bad_option
@run_options
@_launch.launch_options
def train(
    dataset: str | None,
    data: Path | None,
    train_list: Path | None,
    val_list: Path | None,
    root: Path | None,
    recipe_name: str | None,
    work_dir: Path | None,
    resume: bool,
    validate: bool,
    seed: int,
    deterministic: bool,
    profile_steps: int,
    max_bad: float | None,
    device: str,
    amp: str | None,
    workers: int | None,
    launching: _launch.LaunchOptions,
    overrides: tuple[str, ...],
) -> int:
    """Train a model.

    \b
    tin-cli train --dataset motion
    tin-cli train --dataset k400 --data /data/k400 --pretrained tsm_k400.pth --nproc-per-node 8
    tin-cli train --recipe tin_motion --data mine --num-classes 5 --epochs 20 --set optim.weight_decay=1e-4

    WORK_DIR receives last.pt (the newest state, for --resume), best.pt (the best top-1), log.jsonl and tensorboard/. Ctrl-C finishes the
    running step and saves.
    """  # fmt: skip
    _launch.share_cores()
    from tin import recipes

    if launching.wanted:
        return _launch.launch(launching)
    if amp is not None:
        overrides = (*overrides, f"train.amp={amp}")
    recipe = recipes.load(recipe_name or dataset or "motion", overrides)
    train_path = train_list or find_list(dataset or recipe.dataset, "train", data)
    beside = val_list or (train_list.parent / "val.txt" if train_list else None)
    _training.run(
        _training.Request(
            recipe=recipe,
            train_list=train_path,
            val_list=(beside or find_list(dataset or recipe.dataset, "val", data)) if validate else None,
            root=root,
            work_dir=work_dir or Path("runs") / recipe.name,
            resume=resume,
            seed=seed,
            deterministic=deterministic,
            profile_steps=profile_steps,
            timeout_s=launching.timeout,
            max_bad=max_bad,
            device=device,
            amp_was_asked=amp_was_asked(amp, overrides),
            workers=workers,
        )
    )
    return 0
