"""`tin-cli compare`: results of one list beside each other, their mean, and where they disagree."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli._options import EXISTING_FILE
from cli._results import out_option, percent, span, table, write_all

if TYPE_CHECKING:
    from tin.evaluation import Result
    from tin.evaluation.compare import Aligned


class Weights(click.ParamType):
    """Numbers above 0, separated by commas."""

    name = "W,W"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            weights = tuple(float(part) for part in value.split(","))
        except ValueError:
            weights = (0.0,)
        if not all(0 < weight < float("inf") for weight in weights):
            self.fail(f"{value!r} are no weights: give a number above 0 for each result, as 1,1", param, ctx)
        return weights


@click.command(short_help="Compare results of tin-cli test, and average them.")
@click.argument("results", nargs=-1, required=True, type=EXISTING_FILE, metavar="RESULT.json RESULT.json…")
@click.option(
    "--weights", type=Weights(), default=None, metavar="W,W",
    help="What each result counts for in the ensemble.  [default: all the same]",
)  # fmt: skip
@out_option("the ensemble as a result")
@click.option(
    "--disagree",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Print N of the videos that are predicted differently.",
)
@click.option(
    "--disagree-csv", type=click.Path(dir_okay=False, path_type=Path), default=None, metavar="FILE",
    help="Write all of them as a table.",
)  # fmt: skip
def compare(
    results: tuple[Path, ...],
    weights: tuple[float, ...] | None,
    outs: tuple[Path, ...],
    disagree: int,
    disagree_csv: Path | None,
) -> None:
    """Show the metrics of two or more results of one list, whether their top-1 accuracies differ by more than chance (McNemar's test),
    and what the mean of their scores reaches.

    \b
    tin-cli compare tin.json tsn.json
    tin-cli compare tin.json tsm.json tsn.json --disagree 10
    tin-cli compare rgb.json flow.json --weights 1,1.5 --out ensemble.json

    Videos are matched by id. Everything stands over the videos that all results scored, and how many they are is said.
    docs/results.md explains the numbers.
    """  # fmt: skip
    from tin.evaluation import check_path, load_result
    from tin.evaluation.compare import align

    if len(results) < 2:
        raise click.UsageError("name at least two results to compare")
    if weights and len(weights) != len(results):
        raise click.UsageError(f"--weights has {len(weights)} numbers for {len(results)} results: give one for each")
    for path in outs:
        check_path(path)
    loaded = [load_result(path) for path in results]
    aligned = align(loaded)
    click.echo(
        f"{len(aligned.common)} of {len(aligned.ids)} videos scored in all results, {len(aligned.failures)} left out"
    )
    if not aligned.labelled and not outs and not disagree and not disagree_csv:
        lacking = next(result.path for result in loaded if not result.labelled)
        raise click.UsageError(
            f"{lacking}: its videos have no labels, so that there are no metrics; --out still writes the ensemble"
        )
    names = _names(results)
    made = _ensemble(aligned, weights, required=bool(weights or outs))
    if aligned.labelled:
        _show_metrics(aligned, names, made, weights)
        _show_pairs(aligned, names)
    if disagree or disagree_csv:
        _show_disagreements(aligned, names, disagree, disagree_csv)
    if made:
        write_all(outs, made)


def _names(paths: tuple[Path, ...]) -> list[str]:
    """Short names that tell the files apart."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _ensemble(aligned: Aligned, weights: tuple[float, ...] | None, *, required: bool) -> dict[str, Any] | None:
    """The mean of the results as the content of a result file; None where it was not asked for and cannot be."""
    from tin.evaluation import build_result, file_sha256
    from tin.evaluation.compare import ensemble
    from tin.train.provenance import git_commit, versions

    first = aligned.results[0]
    if not required and len({result.average for result in aligned.results}) > 1:
        click.echo("no ensemble: some results are means of probabilities and some of logits", err=True)
        return None
    given = weights or (1.0,) * len(aligned.results)
    members = [
        {
            "path": str(result.path), "sha256": file_sha256(result.path), "weight": weight / sum(given),
            "checkpoint": result.checkpoint.model_dump() if result.checkpoint else None,
        }
        for result, weight in zip(aligned.results, given, strict=True)
    ]  # fmt: skip
    return build_result(
        ensemble(aligned, given), aligned.ids, ks=_ks(aligned.results), average=first.average, list_name=first.list_name, root=first.root,
        label_names=first.label_names, reversals=first.reversals, ensemble=members, versions=versions(), commit=git_commit(),
        command=["tin-cli", *sys.argv[1:]],
    )  # fmt: skip


def _ks(results: list[Result]) -> list[int]:
    """Every k that a result has a top-k accuracy of."""
    named = {name for result in results for name in result.metrics if name.startswith("top") and name.endswith("_acc")}
    return sorted(int(name[3:-4]) for name in named) or [1, 5]


def _show_metrics(
    aligned: Aligned, names: list[str], made: dict[str, Any] | None, weights: tuple[float, ...] | None
) -> None:
    """A column a result, over the common videos; computed anew, so that all have the same metrics over the same videos."""
    from tin.evaluation import METRICS, intervals, statistics, title, values_of

    columns: list[tuple[str, dict[str, float], dict[str, Any]]] = []
    for name, result, scores in zip(names, aligned.results, aligned.scores, strict=True):
        found = statistics(
            METRICS, scores, aligned.labels, ks=_ks(aligned.results), average=result.average,
            reversals=aligned.results[0].reversals,
        )  # fmt: skip
        columns.append((name, values_of(found, len(scores)), dict(intervals(found, len(scores)))))
    if made:
        shown = ":".join(f"{weight:g}" for weight in weights) if weights else "equal"
        columns.append((f"ensemble ({shown})", made["metrics"], made["intervals"]["values"]))
    header = ["", *(part for name, *_ in columns for part in (name, "95 % interval"))]
    rows = [
        [
            title(metric),
            *(part for _, values, spans in columns for part in (percent(values[metric]), span(spans[metric]))),
        ]
        for metric in columns[0][1]
    ]
    click.echo(table(header, rows))


def _show_pairs(aligned: Aligned, names: list[str]) -> None:
    from tin.evaluation.compare import compare_pairs

    pairs = compare_pairs(aligned)
    several = len(pairs) > 1
    header = [
        "",
        "difference, points",
        "95 % interval",
        "only the first right",
        "only the second",
        "p (exact)",
        "p (mid-p)",
    ]
    rows = [
        [
            f"{names[pair.first]} − {names[pair.second]}", f"{100 * pair.difference:+.2f}", span(pair.interval),
            str(pair.only_first), str(pair.only_second), f"{pair.exact:.3g}", f"{pair.mid:.3g}",
            *([f"{pair.holm:.3g}"] if several else []),
        ]
        for pair in pairs
    ]  # fmt: skip
    click.echo("\ntop-1, McNemar's test")
    click.echo(table([*header, *(["p (Holm)"] if several else [])], rows))


def _show_disagreements(aligned: Aligned, names: list[str], number: int, path: Path | None) -> None:
    from tin.evaluation.compare import disagreements

    rows = disagreements(aligned)
    click.echo(f"\n{len(rows)} videos are predicted differently")
    header = ["id", "label", *names]
    cells = list(_disagreement_cells(aligned, rows))
    if number and rows:
        click.echo(table(header, cells[:number], left=2))
    if path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([header, *cells])
        except OSError as error:
            raise click.UsageError(f"cannot write {path}: {error.strerror or error}") from None
        click.echo(f"written to {path}")


def _disagreement_cells(aligned: Aligned, rows: list[int]) -> Iterator[list[str]]:
    classes = aligned.results[0].label_names
    predictions = aligned.predictions
    for row in rows:
        label = int(aligned.labels[row])
        named = [classes[k] if classes else str(k) for k in predictions[:, row]]
        scores = [scores[row, k] for scores, k in zip(aligned.scores, predictions[:, row], strict=True)]
        yield [
            aligned.ids[aligned.common[row]], "" if label < 0 else classes[label] if classes else str(label),
            *(f"{name} {score:.3f}" for name, score in zip(named, scores, strict=True)),
        ]  # fmt: skip
