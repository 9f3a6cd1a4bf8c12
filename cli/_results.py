"""How results are shown and where they are written: what `test` and `compare` have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


class WholeNumbers(click.ParamType):
    """Whole numbers above 0, separated by commas."""

    name = "K,K"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(part.isdecimal() and int(part) for part in parts):
            self.fail(f"{value!r} are no numbers of classes: give them as 1,5", param, ctx)
        return tuple(sorted({int(part) for part in parts}))


def out_option(what: str) -> Callable[[Function], Function]:
    """--out FILE, which may be given often; the ending says the form."""
    return click.option(
        "--out", "outs", type=click.Path(dir_okay=False, path_type=Path), multiple=True, metavar="FILE",
        help=f"Write {what}: .json (all of it), .csv (a row a video) or .pkl (MMAction2's list of scores). May be given often.",
    )  # fmt: skip


def write_all(outs: Sequence[Path], content: Mapping[str, Any]) -> None:
    """Write a result to each file, and say so."""
    from tin.evaluation import write_result

    for path in outs:
        write_result(path, content)
        click.echo(f"result written to {path}")
        failed = content["coverage"]["failed"]
        if path.suffix == ".pkl" and failed:
            click.echo(f"  {failed} of its entries are None: videos that failed", err=True)


def show_result(result: Mapping[str, Any], per_class: bool) -> None:
    """Print what a result says; with `per_class` each class too, worst first."""
    from tin.evaluation import title

    coverage, views = result["coverage"], result["views"]["views"]
    for failure in coverage["failures"]:
        click.echo(f"failed: {failure['id']}: {failure['reason']}", err=True)
    click.echo(f"{coverage['scored']} of {coverage['expected']} videos scored, {coverage['failed']} failed")
    if result["checkpoint"]["weights"] == "ema":
        click.echo("with the checkpoint's averaged (EMA) weights")
    if not result["metrics"]:
        click.echo("no metrics: the list has no labels")
        return
    spans = result["intervals"]["values"]
    rows = [[title(name), percent(value), span(spans[name])] for name, value in result["metrics"].items()]
    click.echo(table([f"{views} view{'s' if views > 1 else ''} a video", "value", "95 % interval"], rows))
    if per_class:
        classes = sorted((row for row in result["per_class"] if row["videos"]), key=lambda row: float(row["accuracy"]))
        cells = [
            [
                row["name"] or f"class {row['index']}",
                percent(row["accuracy"]),
                str(row["videos"]),
                str(row["predicted"]),
            ]
            for row in classes
        ]
        click.echo(table(["class", "accuracy", "videos", "predicted"], cells))


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def span(interval: Sequence[float] | None) -> str:
    return f"{100 * interval[0]:.2f} … {100 * interval[1]:.2f}" if interval else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns of text, the first `left` of them aligned on the left, with two spaces between."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
