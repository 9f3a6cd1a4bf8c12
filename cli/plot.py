"""`tin-cli plot`: the curves of training runs as one picture."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command(short_help="Draw the curves of training runs.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="RUN…")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("curves.png"), show_default=True,
    help="The picture; .png or .svg.",
)  # fmt: skip
def plot(runs: tuple[Path, ...], out: Path) -> None:
    """Draw the curves of one or more training runs over each other, from the log.jsonl and offsets.jsonl in their --work-dir.

    \b
    $ tin-cli plot runs/fights --out curves.svg
    fights: 6 epochs, 6 validations
    drawn into curves.svg
    \b
    tin-cli plot runs/tin runs/tsn --out tin-and-tsn.png

    Loss, top-1 and top-5 in training and validation, further validation metrics, learning rate, clips per second, the part of the time
    spent waiting for data, and the temporal offsets of each block. A run may still be going on. Of a resumed run the later lines count.
    """  # fmt: skip
    from tin.monitoring.curves import draw_runs
    from tin.monitoring.runs import read_run

    paths = list(dict.fromkeys(Path(os.path.abspath(run)) for run in runs))
    records = [read_run(path) for path in paths]
    names = _names([path.parent if path.is_file() else path for path in paths])
    draw_runs(dict(zip(names, records, strict=True)), out)
    for name, record in zip(names, records, strict=True):
        epochs = record.steps[-1]["epoch"] if record.steps else record.validations[-1]["epoch"]
        click.echo(f"{name}: {epochs} epochs, {len(record.validations)} validations")
    click.echo(f"drawn into {out}")


def _names(folders: list[Path]) -> list[str]:
    """As few of the last parts of each path as tell them apart."""
    for length in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = [str(Path(*folder.parts[-length:])) for folder in folders]
        if len(set(names)) == len(names):
            return names
    raise click.UsageError("the same run twice, as its folder and as its log: name it once")
