"""`tin-cli data transcode`: copies of a list's videos that decode many times as fast."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import callback_bar
from cli.data._common import FOLDER, list_options, read_indexed

if TYPE_CHECKING:
    from pipelines.lists.formats import ListFormat

_NAMED = 10  # unreadable videos on the screen; the file has all


@click.command(short_help="Copy the videos of a list into small files that decode fast.")
@list_options
@click.argument("out", metavar="OUT", type=FOLDER)
@click.option(
    "--short-side",
    type=click.IntRange(16, 8192),
    default=256,
    show_default=True,
    help="Pixels of the shorter side at most, even; smaller pictures are not enlarged.",
)
@click.option(
    "--gop",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    help="Frames from keyframe to keyframe: fewer decode faster and take more room.",
)
@click.option(
    "--crf",
    type=click.IntRange(1, 51),
    default=23,
    show_default=True,
    help="Quality, 1 (best) to 51, as FFmpeg understands it.",
)
@click.option("--preset", default=None, help="The encoder's own.  [default: veryfast; p4 with NVENC]")
@click.option(
    "--encoder",
    type=click.Choice(("auto", "libx264", "h264_nvenc")),
    default="auto",
    show_default=True,
    help="auto: that of the copies in OUT, else NVENC where it works, else libx264.",
)
def transcode(
    list_file: Path,
    root: Path | None,
    format: ListFormat,
    template: str | None,
    workers: int | None,
    out: Path,
    short_side: int,
    gop: int,
    crf: int,
    preset: str | None,
    encoder: str,
) -> None:
    """Copy the videos of LIST into the folder OUT as H.264 that decodes fast at random places.

    OUT receives the copies in the folders that LIST has, a list of LIST's name with the same labels, labels.txt and the index. Every
    copy has as many frames as its source, or is not made; videos that cannot be copied are left out and listed, with the reason, in
    OUT/unreadable.txt. The sound is dropped.

    However it ends, run it again with the same options: finished copies are kept. More lists may go to the same OUT.

    \b
    tin-cli data transcode k400/train.txt k400_256 --root /data/k400/train
    tin-cli data transcode k400/val.txt k400_256 --root /data/k400/val
    tin-cli train --dataset k400 --data k400_256
    """
    from pipelines.transcode import TranscodeSettings, pick_encoder
    from pipelines.transcode import transcode as make_copies
    from pipelines.transcode.ledger import recorded_encoder

    wanted = (recorded_encoder(out) or encoder) if encoder == "auto" else encoder
    settings = TranscodeSettings(short_side=short_side, gop=gop, crf=crf)
    chosen, why = pick_encoder(wanted, settings)
    settings = TranscodeSettings(short_side=short_side, gop=gop, crf=crf, preset=preset, encoder=chosen)
    if encoder == "auto":
        click.echo(f"encoder {chosen}: {why if wanted == 'auto' else f'that of the copies in {out}'}")
    videos, index = read_indexed(list_file, root, format, template, workers)
    start = time.monotonic()
    with callback_bar("transcoding videos") as progress:
        done = make_copies(videos, index, out, settings, workers=workers, progress=progress)
    seconds = time.monotonic() - start
    kept = f", {done.kept} were already there" if done.kept else ""
    click.echo(
        f"{len(done.videos)} of {len(videos)} videos in {done.videos.source}: {done.written} copied{kept} ({seconds:.1f} s)"
    )
    click.echo(f"  bytes   {_size(done.source_bytes)} → {_size(done.bytes)}")
    if done.index.store is not None:
        click.echo(f"  index   {done.index.store}")
    if done.refused:
        click.echo(f"  {done.refused} by libx264, because {chosen} refused them")
    if done.unreadable:
        click.echo(f"{len(done.unreadable)} unreadable, left out and listed in {out / 'unreadable.txt'}:")
        for entry, reason in done.unreadable[:_NAMED]:
            click.echo(f"  {entry.id}: {reason}")
        if len(done.unreadable) > _NAMED:
            click.echo(f"  and {len(done.unreadable) - _NAMED} more")


def _size(count: int) -> str:
    """`34.1 MB`, in powers of ten."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"
