"""`tin-cli data check`: what is wrong with the videos of a list."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.console import callback_bar
from cli.data._common import counted, list_options, read_indexed

if TYPE_CHECKING:
    from pipelines.lists.formats import ListFormat


@click.command(short_help="Say what is wrong with the videos of a list.")
@list_options
@click.option("--deep", is_flag=True, help="Decode every frame of every file, in processes that may die of it.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=600.0, show_default=True,
    help="With --deep: the longest that one file may take; one that takes longer is a hang.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write the findings to a JSON file."
)
@click.pass_context
def check(
    context: click.Context,
    list_file: Path,
    root: Path | None,
    format: ListFormat,
    template: str | None,
    workers: int | None,
    deep: bool,
    seconds: float,
    out: Path | None,
) -> None:
    """Look for files of LIST that cannot be used, or only in part.

    Without --deep: what the index knows, which is made or brought up to date. With --deep every frame is decoded too, and a file
    that breaks off, fails, hides damage, gives other frames than the index counted, hangs or crashes its decoder is found. The
    exit status is 1 when anything is found. Nothing is changed: 'tin-cli data index --verify' makes training leave out files that
    fail to decode.

    \b
    tin-cli data check data/mine/train.txt
    tin-cli data check data/mine/train.txt --deep --seconds 60 --out findings.json
    """
    from pipelines.check import check_deep, findings_of

    videos, index = read_indexed(list_file, root, format, template, workers)
    if deep:
        with callback_bar("decoding videos") as progress:
            findings = check_deep(videos, index, workers=workers, seconds=seconds, progress=progress)
    else:
        findings = findings_of(videos, index)
    for finding in findings:
        click.echo(f"{finding.id}: {finding.kind}: {finding.reason}")
    how = "decoded whole" if deep else "by the index; --deep decodes them"
    kinds = counted(Counter(finding.kind for finding in findings))
    click.echo(
        f"{len(findings)} of {len(videos)} videos have something wrong with them ({how}){kinds and ': ' + kinds}"
    )
    if out is not None:
        result = {
            "list": str(list_file),
            "root": str(videos.root),
            "deep": deep,
            "videos": len(videos),
            "findings": [asdict(finding) for finding in findings],
        }
        _write(out, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    context.exit(1 if findings else 0)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror or error}") from None
