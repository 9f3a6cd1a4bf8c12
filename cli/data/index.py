"""`tin-cli data index`: probe the videos of a list and name the unreadable ones."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli._options import LIST_FORMAT
from cli.console import callback_bar
from cli.data._common import EXISTING_FILE, EXISTING_FOLDER, WORKERS, counted

if TYPE_CHECKING:
    from pipelines.lists.formats import ListFormat


@click.command(short_help="Probe the videos of a list and name the unreadable ones.")
@click.argument("list_file", metavar="LIST", type=EXISTING_FILE)
@click.option(
    "--root",
    type=EXISTING_FOLDER,
    default=None,
    help="Folder that the paths in LIST are relative to.  [default: LIST's own]",
)
@LIST_FORMAT
@click.option("--verify", is_flag=True, help="Decode every frame: slower, and finds damage inside the files too.")
@WORKERS
def index(list_file: Path, root: Path | None, format: ListFormat, verify: bool, workers: int | None) -> None:
    """Probe the videos of LIST and remember what is in them.

    Training and testing do this by themselves; beforehand it shows which videos cannot be read, and why. The index is kept
    beside LIST; only new and changed files are probed again.

    \b
    tin-cli data index data/mine/train.txt
    tin-cli data index k400/val_list.txt --root /data/k400/val --verify
    """
    from pipelines import VideoIndex, VideoList

    videos = VideoList.read(list_file, root=root, format=format)
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
        click.echo(f"  codecs          {counted(codecs)}")
        click.echo(f"  sizes           {counted(sizes)}")
    if found.store is not None:
        click.echo(f"  index           {found.store}")
    if unreadable:
        click.echo(f"{len(unreadable)} unreadable:")
        for entry, reason in unreadable:
            click.echo(f"  {entry.id}: {reason}")
