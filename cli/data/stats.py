"""`tin-cli data stats`: what the videos of a list are like, as a table and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.data._common import counted, list_options, read_indexed

if TYPE_CHECKING:
    from pipelines.lists.formats import ListFormat
    from pipelines.stats import ListStats


@click.command(short_help="Show what the videos of a list are like: a table and a picture.")
@list_options
@click.option(
    "--num-segments", type=click.IntRange(1, 1024), default=8, show_default=True,
    help="Frames of a clip, for the decode cost.",
)  # fmt: skip
@click.option(
    "--png", type=click.Path(dir_okay=False, path_type=Path), default=None,
    help="Where to draw the picture.  [default: NAME.stats.png here]",
)  # fmt: skip
def stats(
    list_file: Path,
    root: Path | None,
    format: ListFormat,
    template: str | None,
    workers: int | None,
    num_segments: int,
    png: Path | None,
) -> None:
    """Show lengths, sizes, codecs, groups of pictures and classes of the videos of LIST, and what decoding a clip will cost.

    The decode cost is the number of frames that must be decoded for each frame of a training clip: 1 where every frame is a
    keyframe, 20 and more where groups are long. 'tin-cli data transcode' lowers it.

    \b
    tin-cli data stats data/mine/train.txt
    tin-cli data stats k400/val_list.txt --root /data/k400/val --png k400.png
    """
    from pipelines import ClipSpec
    from pipelines.chart import draw_stats
    from pipelines.stats import list_stats

    videos, index = read_indexed(list_file, root, format, template, workers)
    found = list_stats(videos, index, ClipSpec(num_segments=num_segments))
    click.echo(
        f"{found.readable} of {found.videos} videos readable, {found.frames} frames, {found.bytes / 1e6:.1f} MB of files"
    )
    picture = draw_stats(found, png if png is not None else Path(f"{found.name}.stats.png"))
    _show(found)
    click.echo(f"picture           {picture}")


def _show(found: ListStats) -> None:
    from rich.console import Console
    from rich.table import Table

    from pipelines.stats import QUANTILES, quantiles

    table = Table("", *QUANTILES, "mean", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, values in found.values.items():
        if len(values):
            table.add_row(name, *(f"{value:.4g}" for value in quantiles(values).values()))
    Console().print(table)
    rows = {
        "codecs": counted(found.codecs),
        "sizes": counted(found.sizes),
        "pixel formats": counted(found.pixel_formats),
    }
    turned = {f"{degrees}°": count for degrees, count in found.rotations.items() if degrees}
    if turned:
        rows["rotated by"] = ", ".join(f"{degrees} {count}" for degrees, count in sorted(turned.items()))
    if found.variable_rate:
        rows["variable rate"] = f"{found.variable_rate} videos"
    if found.classes:
        counts = sorted(found.classes.values())
        rows["classes"] = f"{len(counts)}, {counts[0]} to {counts[-1]} videos each"
    for name, text in rows.items():
        click.echo(f"{name:17} {text}")
