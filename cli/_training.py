"""A training run, from what was asked for to its last epoch: lists, loaders, model, trainer wired together."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli._bad import bad_videos_listed
from cli._options import with_device_defaults

if TYPE_CHECKING:
    from tin.models import TemporalResNet
    from tin.recipes import Recipe
    from tin.train import Reporter


@dataclass(frozen=True, kw_only=True)
class Request:
    """What `tin-cli train` was asked for, defaults filled in."""

    recipe: Recipe
    train_list: Path
    val_list: Path | None
    root: Path | None
    work_dir: Path
    resume: bool
    seed: int
    deterministic: bool
    profile_steps: int
    timeout_s: float
    max_bad: float | None
    device: str
    amp_was_asked: bool
    workers: int | None


def run(request: Request) -> None:
    """Open the lists, build the model, train it to the end."""
    import torch

    from cli._data import make_loader, open_lists
    from cli.console import TrainingConsole, format_metrics
    from pipelines.reversals import read_reversals
    from tin import build_model
    from tin.allocator import keep_freed_memory
    from tin.distributed import gather_objects, process_group, resolve_device, restarted, world_from_environment
    from tin.errors import TinError
    from tin.train import Interrupted, Trainer, load_for_resume
    from tin.train.keeper import holds_run

    world = world_from_environment()
    device = resolve_device(request.device, world)
    if device.type == "cpu":
        keep_freed_memory()
    recipe = with_device_defaults(request.recipe, device, request.amp_was_asked)
    _set_numerics(request, recipe)
    torch.manual_seed(request.seed)  # of the weights: the same on every rank
    model = build_model(**recipe.model.model_dump(exclude={"pretrained"}))

    with ExitStack() as stack:
        stack.enter_context(process_group(world, device))
        stack.enter_context(bad_videos_listed(world))
        reporter = stack.enter_context(TrainingConsole())
        # Processes that take the place of lost ones go on with what those were asked for.
        resume = request.resume or restarted(world)
        if not resume and any(gather_objects(holds_run(request.work_dir), world)):
            raise TinError(
                f"{request.work_dir} already holds a run: --resume goes on with it; or choose another --work-dir"
            )
        found = load_for_resume(request.work_dir, world, reporter.message) if resume else None
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
        if world.is_main:
            request.work_dir.mkdir(parents=True, exist_ok=True)
            (request.work_dir / "recipe.json").write_text(recipe.model_dump_json(indent=1) + "\n", encoding="utf-8")
            reporter.message(
                describe_run(recipe, world.size, str(device), len(train_videos), len(val_videos or ()), len(loaders[0]))
            )
        if found is None and recipe.model.pretrained:
            _start_from(recipe, model, request.work_dir if world.is_main else None, reporter)
        lists = {split: str(path.resolve()) for split, path in zip(("train", "val"), paths, strict=False)}
        if request.root:
            lists["root"] = str(request.root.resolve())
        entries = train_videos.list.entries
        trainer = Trainer(
            model, recipe, loaders[0], request.work_dir,
            val_loader=loaders[1] if val_videos else None, val_videos=len(val_videos or ()), device=device, world=world,
            seed=request.seed, label_names=train_videos.list.labels, lists=lists,
            name_of=lambda number: entries[number].id, reversals=read_reversals(request.train_list), reporter=reporter,
            timeout_s=request.timeout_s, profile_steps=request.profile_steps,
        )  # fmt: skip
        if found is not None:
            trainer.resume(*found)
        if world.is_main and resume:
            at = f"epoch {trainer.progress.epoch + 1}, step {trainer.progress.step + 1}"
            reporter.message(
                f"going on from {found[1]} at {at}" if found else f"no checkpoint in {request.work_dir}: a new run"
            )
        try:
            result = trainer.fit()
        except Interrupted as interrupted:
            if world.is_main:
                click.echo(str(interrupted), err=True)
            raise click.exceptions.Exit(interrupted.exit_status) from None
        if world.is_main:
            reporter.message(
                f"trained in {timedelta(seconds=round(result.seconds))}; best: {format_metrics(result.best) or 'not validated'}"
            )
            reporter.message(f"watch the curves: tensorboard --logdir {request.work_dir}")


def _set_numerics(request: Request, recipe: Recipe) -> None:
    import torch

    if request.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which PyTorch asks for; read when CUDA starts
    torch.use_deterministic_algorithms(request.deterministic)
    torch.backends.cudnn.benchmark = not request.deterministic
    torch.backends.cudnn.allow_tf32 = recipe.train.tf32
    torch.backends.cuda.matmul.allow_tf32 = recipe.train.tf32


def _start_from(recipe: Recipe, model: TemporalResNet, work_dir: Path | None, reporter: Reporter) -> None:
    """Load the starting weights; the main process says what became of them and writes every name down."""
    from cli.zoo import download_bar
    from tin.weights import load_pretrained

    source, segments = recipe.model.pretrained, recipe.train.pretrained_segments
    assert source is not None
    if work_dir is None:
        load_pretrained(model, source, segments=segments)
        return
    with download_bar(source) as progress:
        loaded = load_pretrained(model, source, segments=segments, progress=progress, say=reporter.message)
    names = {word: getattr(loaded, word) for word in loaded.counts}
    path = work_dir / "pretrained.json"
    path.write_text(json.dumps({"path": str(loaded.path), "scheme": loaded.scheme, **names}, indent=1) + "\n")
    reporter.message(f"{loaded}\n  every name: {path}")


def describe_run(recipe: Recipe, world_size: int, device: str, train_videos: int, val_videos: int, steps: int) -> str:
    """What is about to happen, in three lines."""
    from tin import ops
    from tin.train import scaled_lr

    settings = recipe.train
    batch = settings.batch_size * settings.accumulate * world_size
    lr = scaled_lr(recipe, world_size)
    if lr == recipe.optim.lr:
        rate = f"lr {lr:.4g}"
    else:
        rate = f"lr {lr:.4g} = {recipe.optim.lr:g} · {batch} / {recipe.train.base_batch} (linear scaling; --no-scale-lr to stop it)"
    parts = {
        f"accumulating {settings.accumulate} × {settings.batch_size} clips": settings.accumulate > 1,
        f"weights averaged with decay {settings.ema}": settings.ema is not None,
        "SyncBN": settings.sync_bn and world_size > 1,
        "compiled": settings.compile,
        "gradients exchanged in bf16": settings.grad_compression == "bf16" and world_size > 1,
    }
    extras = "".join(f", {what}" for what, on in parts.items() if on)
    return (
        f"{recipe.name}: {recipe.model.arch}, {recipe.model.num_classes} classes, {recipe.model.num_segments} segments of "
        f"{recipe.data.input_size}×{recipe.data.input_size}; op: {getattr(ops.backend(), device.partition(':')[0])}\n"
        f"{train_videos} training and {val_videos} validation videos; {recipe.schedule.epochs} epochs of {steps} steps of {batch} clips\n"
        f"{world_size} process{'es' if world_size > 1 else ''} on {device}, amp {settings.amp}, {recipe.optim.kind}, {rate}{extras}"
    )
