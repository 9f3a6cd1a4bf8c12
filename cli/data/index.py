"""`tin-cli data index`: probe the videos of a list and name the unreadable ones."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.data._common import counted, list_options, read_indexed

if TYPE_CHECKING:
    from pipelines.lists.formats import ListFormat


@click.command(short_help="Probe the videos of a list and name the unreadable ones.")
@list_options
@click.option("--verify", is_flag=True, help="Decode every frame: slower, and finds damage inside the files too.")
def index(
    list_file: Path, root: Path | None, format: ListFormat, template: str | None, workers: int | None, verify: bool
) -> None:
    """Probe the videos of LIST and remember what is in them.

    Training and testing do this by themselves; beforehand it shows which videos cannot be read, and why. The index is kept
    beside LIST; only new and changed files are probed again. It may be interrupted: it goes on where it was.

    \b
    tin-cli data index data/mine/train.txt
    tin-cli data index k400/val_list.txt --root /data/k400/val --verify
    """
    start = time.monotonic()
    videos, found = read_indexed(list_file, root, format, template, workers, verify)
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
