"""`tin-cli data`: render the motion data set, list a folder per class, look into the videos of a list."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import callback_bar

if TYPE_CHECKING:
    from pipelines.motion import MotionSettings

_FOLDER = click.Path(file_okay=False, path_type=Path)
_EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_WORKERS = click.option(
    "--workers", type=click.IntRange(1, 1024), default=None, help="Processes.  [default: one a core]"
)


@click.group(short_help="Make data sets and look into them.")
def data() -> None:
    """Make data sets and look into them.

    A data set is a folder with train.txt and val.txt (a line a video: path label) and labels.txt (a line a class).
    """


@data.command(short_help="Render a small data set that only the order of frames explains.")
@click.argument("out", type=_FOLDER)
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
@_WORKERS
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


@data.command(short_help="Make the lists of a folder per class.")
@click.argument("root", type=_EXISTING_FOLDER)
@click.argument("out", type=_FOLDER)
@click.option(
    "--val",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.25,
    show_default=True,
    help="Part of each class's videos to validate on.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which videos those are.")
def folder(root: Path, out: Path, val: float, seed: int) -> None:
    """Split the videos in ROOT/CLASS/ into train.txt and val.txt in the folder OUT.

    Every folder in ROOT that holds videos is a class; labels.txt names them. The videos stay where they are. The same videos,
    --val and --seed give the same lists; lists that say something else are never overwritten.

    \b
    tin-cli data folder ~/videos data/mine
    tin-cli train --recipe tin_motion --data data/mine --num-classes 5
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from pipelines.prepare import split_folder

    split = split_folder(root, out, val=val, seed=seed)
    table = Table("label", "class", "train", "val", box=None)
    for label, (name, *counts) in enumerate(zip(split.labels, split.train, split.val, strict=True)):
        table.add_row(str(label), escape(name), *map(str, counts))
    Console().print(table)
    click.echo(f"{sum(split.train)} videos in {out / 'train.txt'}, {sum(split.val)} in {out / 'val.txt'}")
    if split.ignored:
        click.echo(f"{split.ignored} other files in the class folders are no videos and were left out")
    if split.empty:
        click.echo(f"no class, because there is no video in it: {', '.join(split.empty)}")


@data.command(short_help="Probe the videos of a list and name the unreadable ones.")
@click.argument("list_file", metavar="LIST", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--root",
    type=_EXISTING_FOLDER,
    default=None,
    help="Folder that the paths in LIST are relative to.  [default: LIST's own]",
)
@click.option("--verify", is_flag=True, help="Decode every frame: slower, and finds damage inside the files too.")
@_WORKERS
def index(list_file: Path, root: Path | None, verify: bool, workers: int | None) -> None:
    """Probe the videos of LIST and remember what is in them.

    Training and testing do this by themselves; beforehand it shows which videos cannot be read, and why. The index is kept
    beside LIST; only new and changed files are probed again.

    \b
    tin-cli data index data/mine/train.txt
    tin-cli data index k400/val_list.txt --root /data/k400/val --verify
    """
    from pipelines import VideoIndex, VideoList

    videos = VideoList.read(list_file, root=root)
    start = time.monotonic()
    with callback_bar("probing videos") as progress:
        found = VideoIndex.build(videos, workers=workers, progress=progress, verify=verify)
    seconds = time.monotonic() - start
    unreadable = found.unreadable(videos)
    readable = [info for entry in videos.entries if (info := found[entry]).error is None]
    frames = sum(info.num_frames for info in readable)
    click.echo(f"{len(readable)} of {len(videos)} videos readable, {frames} frames in all ({seconds:.1f} s)")
    if readable:
        lengths, fps = [info.num_frames for info in readable], [info.fps for info in readable]
        sizes = Counter(f"{info.width}×{info.height}" for info in readable)
        codecs = Counter(info.codec for info in readable)
        click.echo(f"  frames a video  {min(lengths)} to {max(lengths)}, at {min(fps):.5g} to {max(fps):.5g} frames/s")
        click.echo(f"  codecs          {_counted(codecs)}")
        click.echo(f"  sizes           {_counted(sizes)}")
    if found.store is not None:
        click.echo(f"  index           {found.store}")
    if unreadable:
        click.echo(f"{len(unreadable)} unreadable:")
        for entry, reason in unreadable:
            click.echo(f"  {entry.id}: {reason}")


def render_motion(out: Path, settings: MotionSettings | None = None, workers: int | None = None) -> None:
    """Render the motion data set with a progress bar; prints what was done."""
    from pipelines.motion import write_motion

    start = time.monotonic()
    with callback_bar("rendering clips") as progress:
        summary = write_motion(out, settings, workers=workers, progress=progress)
    kept = f", {summary.reused} were already there" if summary.reused else ""
    click.echo(f"{summary.written} clips written to {out}{kept} ({time.monotonic() - start:.1f} s)")


def _counted(values: Counter[str]) -> str:
    """`h264 30, vp9 12`, the most common first, at most five."""
    shown = ", ".join(f"{name} {count}" for name, count in values.most_common(5))
    return shown + (f" and {len(values) - 5} more" if len(values) > 5 else "")
