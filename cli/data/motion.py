"""`tin-cli data motion`: render the bundled data set."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import callback_bar
from cli.data._common import FOLDER, WORKERS

if TYPE_CHECKING:
    from pipelines.motion import MotionSettings


@click.command(short_help="Render a small data set that only the order of frames explains.")
@click.argument("out", type=FOLDER)
@click.option(
    "--train", type=click.IntRange(8), default=1600, show_default=True, help="Training clips, a multiple of 8."
)
@click.option(
    "--val", type=click.IntRange(8), default=400, show_default=True, help="Validation clips, a multiple of 8."
)
@click.option(
    "--size",
    type=click.IntRange(32, 1024),
    default=128,
    show_default=True,
    help="Width and height in pixels, even; decoding on a GPU needs 128 or more.",
)
@click.option(
    "--frames",
    type=click.IntRange(8, 1000),
    default=24,
    show_default=True,
    help="Frames a clip, 8 times an odd number.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of every random choice.")
@WORKERS
def motion(out: Path, train: int, val: int, size: int, frames: int, seed: int, workers: int | None) -> None:
    """Render the motion data set into the folder OUT.

    Eight classes of short videos: an object moves left, right, up or down, grows, shrinks, or turns clockwise or
    anticlockwise. Every scene is there twice, forwards and backwards, with opposite labels: a model that does not see
    the order of the frames gets at most half of them right. Half of the files are H.264 (.mp4), half VP9 (.webm).

    The same options give the same videos. Run again after an interruption: finished files are kept.

    \b
    tin-cli data motion data/motion
    tin-cli data motion /tmp/tiny --train 64 --val 32 --seed 1
    """
    from pipelines.motion import MotionSettings

    settings = MotionSettings(train=train, val=val, size=size, frames=frames, seed=seed)
    render_motion(out, settings, workers)


def render_motion(out: Path, settings: MotionSettings | None = None, workers: int | None = None) -> None:
    """Render the motion data set with a progress bar; prints what was done."""
    from pipelines.motion import write_motion

    start = time.monotonic()
    with callback_bar("rendering clips") as progress:
        summary = write_motion(out, settings, workers=workers, progress=progress)
    kept = f", {summary.reused} were already there" if summary.reused else ""
    click.echo(f"{summary.written} clips written to {out}{kept} ({time.monotonic() - start:.1f} s)")
