"""The options of a training recipe: fields that people change often have their own, --set reaches them all."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from cli._options import set_option

# option, the recipe's field, type (None: a pair of flags), help
_FIELDS: tuple[tuple[str, str, Any, str], ...] = (
    ("--arch", "model.arch", str, "{tin,tsm,tsn}_resnet{18,34,50,101}."),
    ("--num-classes", "model.num_classes", click.IntRange(1), "Classes of your own data set."),
    (
        "--pretrained",
        "model.pretrained",
        str,
        "Weights to start from: imagenet, tsm, a NAME of tin-cli zoo list, a FILE, or none.",
    ),
    ("--epochs", "schedule.epochs", click.IntRange(1), "Epochs."),
    ("--batch-size", "train.batch_size", click.IntRange(1), "Clips of one process in one forward pass."),
    ("--accumulate", "train.accumulate", click.IntRange(1), "Forward passes whose gradients make one step."),
    ("--lr", "optim.lr", click.FloatRange(0, min_open=True), "Learning rate for the recipe's base batch."),
    (
        "--scale-lr/--no-scale-lr",
        "train.scale_lr",
        None,
        "Scale the rate with the global batch (linear scaling rule).",
    ),
    (
        "--optimizer",
        "optim.kind",
        click.Choice(["sgd", "apex-sgd", "lamb"]),
        "PyTorch's fused SGD, or FusedSGD or LAMB of NVIDIA apex.",
    ),
    ("--ema", "train.ema", click.FloatRange(0, 1, min_open=True, max_open=True), "Decay of averaged weights (0.9999)."),
    ("--compile/--no-compile", "train.compile", None, "Run the network through torch.compile."),
    ("--keep-top", "checkpoint.keep_top", click.IntRange(1), "How many of the best checkpoints to keep."),
)


def recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options for fields of the recipe; the command receives those that were given, and each --set, as `overrides`."""

    @functools.wraps(function)
    def collected(*, overrides: tuple[str, ...], **given: Any) -> Any:
        own = []
        for option, field, _, _ in _FIELDS:
            value = given.pop(_name(option))
            if value is not None:
                own.append(f"{field}={str(value).lower() if isinstance(value, bool) else value}")
        return function(overrides=(*overrides, *own), **given)

    command: Callable[..., Any] = set_option(collected)
    for option, field, kind, text in reversed(_FIELDS):
        command = click.option(
            option,
            _name(option),
            type=kind,
            default=None,
            metavar="NAME|FILE" if field == "model.pretrained" else "NAME" if field == "model.arch" else None,
            help=f"{text}  [default: the recipe's]",
        )(command)
    return command


def _name(option: str) -> str:
    return option.partition("/")[0].removeprefix("--").replace("-", "_")
