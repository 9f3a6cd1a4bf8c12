"""What of a video is tested: --views, --num-clips, --twice and --dense, and the recipe's fields that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

VIEWS = {"center": "center", "three-crop": "three", "ten-crop": "ten"}
"""What --views takes, and the recipe's name for it."""


def views_options(function: Function) -> Function:
    """--views, --num-clips, --twice, --dense: which crops and clips of a video."""
    for option in (
        click.option("--dense", is_flag=True,
                     help="Clips of frames that lie 8 apart, 10 of a video or --num-clips (MMAction2's DenseSampleFrames)."),
        click.option("--twice", is_flag=True,
                     help="Two clips: the middles and the starts of the segments (the authors' twice_sample)."),
        click.option("--num-clips", type=click.IntRange(1, 1000), default=None,
                     help="Clips of a video, spread over its segments.  [default: the recipe's]"),
        click.option("--views", type=click.Choice(list(VIEWS)), default=None,
                     help="Crops of a frame: 1, 3 or 10.  [default: the recipe's]"),
    ):  # fmt: skip
        function = option(function)
    return function


def as_fields(
    views: str | None, num_clips: int | None, twice: bool, dense: bool, overrides: Sequence[str]
) -> list[str]:
    """The options as --set takes them.

    Args:
        overrides: what --set was given, which must not name the same fields.

    Raises:
        click.UsageError: two options contradict each other.
    """
    if twice and dense:
        raise click.UsageError("--twice and --dense are two ways to choose frames: give one of them")
    if twice and num_clips not in (None, 2):
        raise click.UsageError(f"--twice takes 2 clips of a video, not --num-clips {num_clips}: leave one of them out")
    fields: dict[str, str] = {}
    if views:
        fields["data.test_crop"] = VIEWS[views]
    if twice or dense:
        fields["data.test_sampling"] = "twice" if twice else "dense_test"
        fields["data.test_clips"] = "none"  # the recipe's is of its own sampling
    if num_clips and not twice:
        fields["data.test_clips"] = str(num_clips)
    option_of = {
        "data.test_crop": "--views",
        "data.test_sampling": "--twice" if twice else "--dense",
        "data.test_clips": "--num-clips" if num_clips else "--twice" if twice else "--dense",
    }
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in fields:
            raise click.UsageError(
                f"{option_of[key]} and --set {override} say the same thing twice: leave one of them out"
            )
    return [f"{key}={value}" for key, value in fields.items()]
