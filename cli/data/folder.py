"""`tin-cli data folder`: the lists of a folder per class."""

from __future__ import annotations

from pathlib import Path

import click

from cli.data._common import EXISTING_FOLDER, FOLDER


@click.command(short_help="Make the lists of a folder per class.")
@click.argument("root", type=EXISTING_FOLDER)
@click.argument("out", type=FOLDER)
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
