"""`tin-cli convert`: a file of weights in another program's names and form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli._options import EXISTING_FILE

if TYPE_CHECKING:
    from tin.checkpoints import Weights
    from tin.checkpoints.convert_names import Kind, Target


@click.command(short_help="Write a file of weights in another program's names and form.")
@click.argument("source", metavar="IN", type=EXISTING_FILE)
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--to", required=True, type=click.Choice(["tin", "mmaction2", "tin-original", "torchvision", "safetensors"]),
    help="Whose names and form; tin-original: the TIN authors', and for a TSM its authors'.",
)  # fmt: skip
@click.option(
    "--as", "kind", type=click.Choice(["tin", "tsm", "tsn"]), default=None,
    help="What the network is, where plain names do not tell a TSM from a TSN.",
)  # fmt: skip
@click.option(
    "--weights", type=click.Choice(["auto", "ema", "raw"]), default="auto", show_default=True,
    help="Of a file with averages (EMA) of its weights: those where there are any, those, or the weights themselves.",
)  # fmt: skip
@click.option("--drop-temporal", is_flag=True, help="With --to torchvision: leave out what makes it a TIN or a TSM.")
@click.option("--force", is_flag=True, help="Write over OUT.")
def convert(
    source: Path, out: Path, to: Target, kind: Kind | None, weights: Weights, drop_temporal: bool, force: bool
) -> None:
    """Convert the weights in IN, anybody's file, to OUT. Every tensor is read back and compared bit by bit before OUT is there.

    \b
    tin-cli convert runs/tin_sthv2/best.pt tin.pth --to mmaction2
    tin-cli convert tin_r50_1x1x8_40e_sthv1_rgb_20200729-4a33db86.pth tin.pt --to tin
    tin-cli convert resnet50-0676ba61.pth tsn.pth --to mmaction2 --as tsn

    A run's recipe, class names and numbers go along and come back with --to tin; optimiser states do not. docs/convert.md has
    output and the names.
    """  # fmt: skip
    from tin.checkpoints.convert import convert_checkpoint

    done = convert_checkpoint(
        source, out, to, kind=kind, weights=weights, drop_temporal=drop_temporal, force=force
    )  # fmt: skip
    click.echo(done)
