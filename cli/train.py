"""`tin-cli train`: a recipe and a data set to a trained checkpoint."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import _launch
from cli._bad import bad_videos_listed, max_bad_option
from cli._data import find_list
from cli._options import (
    DATASETS,
    EXISTING_FILE,
    EXISTING_FOLDER,
    amp_was_asked,
    as_overrides,
    run_options,
    set_option,
    with_device_defaults,
)

if TYPE_CHECKING:
    from tin.recipes import Recipe


@click.command(short_help="Train a model on a data set.")
@click.option(
    "--dataset", type=click.Choice(DATASETS), default=None, help="Data set; picks its recipe.  [default: motion]"
)
@click.option(
    "--data",
    type=EXISTING_FOLDER,
    default=None,
    help="Folder with train.txt, val.txt and labels.txt.  [default: $TIN_DATA/DATASET, else data/DATASET]",
)
@click.option("--train-list", type=EXISTING_FILE, default=None, help="Training list, instead of DATA/train.txt.")
@click.option("--val-list", type=EXISTING_FILE, default=None, help="Validation list, instead of DATA/val.txt.")
@click.option(
    "--root",
    type=EXISTING_FOLDER,
    default=None,
    help="Folder that the paths in the lists are relative to.  [default: the list's]",
)
@click.option(
    "--recipe", "recipe_name", default=None, metavar="NAME|FILE", help="Recipe, instead of the data set's own."
)
@click.option("--arch", default=None, metavar="NAME", help="{tin,tsm,tsn}_resnet{18,34,50,101}.")
@click.option("--num-classes", type=click.IntRange(1), default=None, help="Classes of your own data set.")
@click.option(
    "--pretrained", default=None, metavar="imagenet|FILE|none", help="Weights to start from.  [default: the recipe's]"
)
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
@click.option("--epochs", type=click.IntRange(1), default=None, help="Epochs.")
@click.option("--batch-size", type=click.IntRange(1), default=None, help="Clips of one process in one step.")
@click.option(
    "--lr", type=click.FloatRange(0, min_open=True), default=None, help="Learning rate for the recipe's base batch."
)
@click.option(
    "--scale-lr/--no-scale-lr",
    default=None,
    help="Scale the rate with the global batch (linear scaling rule).  [default: the recipe's]",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of every random choice.")
@click.option("--deterministic", is_flag=True, help="Bit-identical results from run to run; may be slower.")
@max_bad_option
@run_options
@_launch.launch_options
@set_option
def train(
    dataset: str | None,
    data: Path | None,
    train_list: Path | None,
    val_list: Path | None,
    root: Path | None,
    recipe_name: str | None,
    arch: str | None,
    num_classes: int | None,
    pretrained: str | None,
    work_dir: Path | None,
    resume: bool,
    validate: bool,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    scale_lr: bool | None,
    seed: int,
    deterministic: bool,
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
    recipe = recipes.load(
        recipe_name or dataset or "motion",
        [
            *overrides,
            *as_overrides({
                "model.arch": arch, "model.num_classes": num_classes, "model.pretrained": pretrained,
                "schedule.epochs": epochs, "train.batch_size": batch_size, "optim.lr": lr, "train.amp": amp,
                "train.scale_lr": None if scale_lr is None else str(scale_lr).lower(),
            }),
        ],
    )  # fmt: skip
    train_path = train_list or find_list(dataset or recipe.dataset, "train", data)
    beside = val_list or (train_list.parent / "val.txt" if train_list else None)
    _run(
        _Request(
            recipe=recipe,
            train_list=train_path,
            val_list=(beside or find_list(dataset or recipe.dataset, "val", data)) if validate else None,
            root=root,
            work_dir=work_dir or Path("runs") / recipe.name,
            resume=resume,
            seed=seed,
            deterministic=deterministic,
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
    train_list: Path
    val_list: Path | None
    root: Path | None
    work_dir: Path
    resume: bool
    seed: int
    deterministic: bool
    max_bad: float | None
    device: str
    amp_was_asked: bool
    workers: int | None


def _run(request: _Request) -> None:
    import torch

    from cli._data import make_loader, open_lists
    from cli.console import TrainingConsole, format_metrics
    from pipelines.reversals import read_reversals
    from tin import build_model
    from tin.allocator import keep_freed_memory
    from tin.checkpoints import load_state
    from tin.distributed import process_group, resolve_device, world_from_environment
    from tin.errors import TinError
    from tin.train import Interrupted, Trainer
    from tin.weights import load_pretrained

    world = world_from_environment()
    device = resolve_device(request.device, world)
    if device.type == "cpu":
        keep_freed_memory()
    recipe = with_device_defaults(request.recipe, device, request.amp_was_asked)
    last = request.work_dir / "last.pt"
    if last.exists() and not request.resume:
        raise TinError(
            f"{request.work_dir} already holds a run: --resume goes on with it; or choose another --work-dir"
        )
    state = load_state(last) if last.exists() else None
    torch.backends.cudnn.benchmark = not request.deterministic
    torch.use_deterministic_algorithms(request.deterministic)
    torch.manual_seed(request.seed)  # of the weights: the same on every rank
    model = build_model(**recipe.model.model_dump(exclude={"pretrained"}))

    with ExitStack() as stack:
        stack.enter_context(process_group(world, device))
        stack.enter_context(bad_videos_listed(world))
        reporter = stack.enter_context(TrainingConsole())
        paths = [request.train_list, *([request.val_list] if request.val_list else [])]
        train_videos, *rest = open_lists(paths, request.root, recipe, world, labelled=True)
        val_videos = rest[0] if rest else None
        loaders = [
            stack.enter_context(
                make_loader(
                    videos, recipe, training=videos is train_videos, device=device, world=world, seed=request.seed,
                    workers=request.workers, max_bad=request.max_bad,
                )
            )
            for videos in (train_videos, *rest)
        ]  # fmt: skip
        request.work_dir.mkdir(parents=True, exist_ok=True)
        if world.is_main:
            (request.work_dir / "recipe.json").write_text(recipe.model_dump_json(indent=1) + "\n", encoding="utf-8")
            reporter.message(
                describe_run(recipe, world.size, str(device), len(train_videos), len(val_videos or ()), len(loaders[0]))
            )
        if state is None and recipe.model.pretrained:
            loaded = load_pretrained(model, recipe.model.pretrained)
            if world.is_main:
                reporter.message(str(loaded))
        lists = {split: str(path.resolve()) for split, path in zip(("train", "val"), paths, strict=False)}
        if request.root:
            lists["root"] = str(request.root.resolve())
        trainer = Trainer(
            model, recipe, loaders[0], request.work_dir,
            val_loader=loaders[1] if val_videos else None, val_videos=len(val_videos or ()), device=device, world=world,
            seed=request.seed, label_names=train_videos.list.labels, lists=lists, reversals=read_reversals(request.train_list),
            reporter=reporter,
        )  # fmt: skip
        if state is not None:
            trainer.resume(state, last)
        if world.is_main and request.resume:
            at = f"epoch {trainer.progress.epoch + 1}, step {trainer.progress.step + 1}"
            reporter.message(f"going on from {last} at {at}" if state else f"no {last} to go on from: a new run")
        try:
            result = trainer.fit()
        except Interrupted as interrupted:
            click.echo(str(interrupted), err=True)
            raise click.exceptions.Exit(interrupted.exit_status) from None
        if world.is_main:
            reporter.message(
                f"trained in {timedelta(seconds=round(result.seconds))}; best: {format_metrics(result.best) or 'not validated'}"
            )
            reporter.message(f"watch the curves: tensorboard --logdir {request.work_dir}")


def describe_run(recipe: Recipe, world_size: int, device: str, train_videos: int, val_videos: int, steps: int) -> str:
    """What is about to happen, in three lines."""
    from tin import ops
    from tin.train import scaled_lr

    batch = recipe.train.batch_size * world_size
    lr = scaled_lr(recipe, world_size)
    if lr == recipe.optim.lr:
        rate = f"lr {lr:.4g}"
    else:
        rate = f"lr {lr:.4g} = {recipe.optim.lr:g} · {batch} / {recipe.train.base_batch} (linear scaling; --no-scale-lr to stop it)"
    return (
        f"{recipe.name}: {recipe.model.arch}, {recipe.model.num_classes} classes, {recipe.model.num_segments} segments of "
        f"{recipe.data.input_size}×{recipe.data.input_size}; op: {getattr(ops.backend(), device.partition(':')[0])}\n"
        f"{train_videos} training and {val_videos} validation videos; {recipe.schedule.epochs} epochs of {steps} steps of {batch} clips\n"
        f"{world_size} process{'es' if world_size > 1 else ''} on {device}, amp {recipe.train.amp}, {rate}"
    )
