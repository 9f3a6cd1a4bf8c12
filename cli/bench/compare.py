"""`tin-cli bench compare`: two results of benchmarks, what changed, and whether by more than noise."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cli._bad import Part
from cli._results import table

if TYPE_CHECKING:
    from tin.bench.comparison import Change, Comparison, Figure

RESULT = click.Path(exists=True, path_type=Path)


@click.command("compare", short_help="Two results: what got faster or slower by more than noise.")
@click.argument("old", type=RESULT)
@click.argument("new", type=RESULT)
@click.option(
    "--threshold", type=Part(), default="5%", show_default=True, metavar="PART",
    help="Smaller changes are none, however sure.",
)  # fmt: skip
@click.option(
    "--by", type=click.Choice(["figure", "ratio"]), default=None,
    help="What is judged: the figure, or its ratio to its own yardstick.  [default: figure; ratio where machines differ]",
)  # fmt: skip
@click.option("--all", "show_all", is_flag=True, help="Print the rows that stayed the same too.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def compare(
    old: Path, new: Path, threshold: float, by: Literal["figure", "ratio"] | None, show_all: bool, as_json: bool
) -> int:
    """Compare two results of tin-cli bench, files or folders, row by row.

    \b
    tin-cli bench compare before after
    tin-cli bench compare before/op.json after/op.json --threshold 3% --all

    A row is a regression when it is worse by more than the threshold and the spreads of OLD and NEW do not meet; unclear when they do.
    A spread is the 95 % interval of the median, widened to the medians of the runs. 'time' is the change of the time that the work needs,
    of rates too. Other machines, versions and settings are warned of, and rows of other
    settings not judged.

    Exit status: 0 no regression; 1 a regression; 2 a mistake in what was given.
    """
    from tin.bench.comparison import compare as compare_files

    found = compare_files(old, new, threshold=threshold, by=by)
    if as_json:
        click.echo(json.dumps(_as_json(found, threshold), indent=1, ensure_ascii=False))
    else:
        _show(found, threshold, show_all)
    return 1 if found.regressions else 0


def _show(found: Comparison, threshold: float, show_all: bool) -> None:
    for text in found.warnings:
        click.echo(f"warning: {text}", err=True)
    shown = [change for change in found.changes if show_all or change.verdict != "same"]
    if shown:
        click.echo(
            table(["", "old", "new", "old ratio", "new ratio", "time", "spread", ""], [_cells(c) for c in shown])
        )
    counted = dict.fromkeys(("regression", "improvement", "unclear", "same", "incomparable"), 0)
    for change in found.changes:
        counted[change.verdict] += 1
    by = ", ".join(sorted({change.by for change in found.changes}))
    click.echo(
        f"{len(found.changes)} rows by their {by}, threshold {100 * threshold:g} %: {counted['regression']} slower, "
        f"{counted['improvement']} faster, {counted['unclear']} unclear, {counted['same']} the same"
        + (f", {counted['incomparable']} of other settings" if counted["incomparable"] else "")
    )
    for what, rows in (("OLD", found.only_old), ("NEW", found.only_new)):
        if rows:
            click.echo(f"only in {what}: {'; '.join(rows)}")


def _cells(change: Change) -> list[str]:
    where = f"{change.file.removesuffix('.json')} " if change.file else ""
    words = {
        "regression": "SLOWER",
        "improvement": "faster",
        "unclear": "unclear",
        "same": "",
        "incomparable": "other settings",
    }
    name = change.name if where.strip() == change.benchmark else f"{change.benchmark} {change.name}"
    return [
        f"{where}{name}", f"{change.old.value:.4g} {change.unit}", f"{change.new.value:.4g} {change.unit}",
        *("" if ratio is None else f"{ratio.value:.3f}" for ratio in (change.old_ratio, change.new_ratio)),
        _percent(change.worse), f"{_percent(change.spread[0])} … {_percent(change.spread[1])}", words[change.verdict],
    ]  # fmt: skip


def _percent(factor: float) -> str:
    return f"{100 * (factor - 1):+.1f} %"


def _as_json(found: Comparison, threshold: float) -> dict[str, Any]:
    def number(figure: Figure | None) -> dict[str, Any] | None:
        return None if figure is None else {"value": figure.value, "spread": [*figure.spread]}

    rows = [
        {
            **{key: value for key, value in asdict(change).items() if key in ("file", "benchmark", "name", "unit", "by", "verdict")},
            "old": number(change.old), "new": number(change.new),
            "old_ratio": number(change.old_ratio), "new_ratio": number(change.new_ratio),
            "worse": change.worse, "spread": [*change.spread],
        }
        for change in found.changes
    ]  # fmt: skip
    return {
        "threshold": threshold, "regressions": len(found.regressions), "warnings": found.warnings,
        "rows": rows, "only_old": found.only_old, "only_new": found.only_new,
    }  # fmt: skip
