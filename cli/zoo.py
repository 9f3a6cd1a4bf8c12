"""`tin-cli zoo`: the published weights, and their files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli._results import table

if TYPE_CHECKING:
    from tin.zoo.download import Progress


@click.group(short_help="Published weights: list them, fetch them.")
def zoo() -> None:
    """Weights that others have published: TIN and TSM from MMAction2, ImageNet ResNets from torchvision.

    \b
    tin-cli zoo list
    tin-cli zoo get tin_r50_k400
    tin-cli train --dataset sthv1 --pretrained tsm_r50_sthv1

    Files are fetched once, to PyTorch's hub cache, and checked each time. TIN_OFFLINE=1 in the environment forbids fetching.
    docs/zoo.md has more.
    """  # fmt: skip


@zoo.command("list", short_help="Every published file: network, reported accuracy, whether it is here.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known, with sources and licences, as JSON.")
def list_(as_json: bool) -> None:
    """Show every published file with the accuracy that its source reports.

    top-1 and top-5 are percent; nothing here was measured by this project. `here` says whether the file is in the cache.
    """
    from tin.zoo import cached, published

    models = [(model, cached(model)) for model in published().values()]
    if as_json:
        facts = [
            asdict(model) | {"file": model.file, "path": str(path), "here": path.is_file()} for model, path in models
        ]
        click.echo(json.dumps(facts, indent=1))
        return
    rows = [
        [
            model.name, model.arch, model.dataset, str(model.num_classes), str(model.num_segments or "–"),
            f"{model.top1:.2f}", f"{model.top5:.2f}", f"{model.mebibytes:.1f} MiB" if model.mebibytes else "",
            "yes" if path.is_file() else "",
        ]
        for model, path in models
    ]  # fmt: skip
    header = ["name", "network", "trained on", "classes", "frames", "top-1", "top-5", "size", "here"]
    click.echo(table(header, rows, left=3))


@zoo.command("get", short_help="Fetch a published file, unless it is here.")
@click.argument("name")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=None, metavar="FILE",
    help="Copy it to FILE, which must not exist.  [default: it stays in the cache]",
)  # fmt: skip
@click.option("--offline", is_flag=True, help="Only look in the cache.")
def get(name: str, out: Path | None, offline: bool) -> None:
    """Fetch NAME of `tin-cli zoo list` and print where its file is, so that a command can take it:

    \b
    tin-cli info --checkpoint "$(tin-cli zoo get tin_r50_k400)"

    An interrupted download goes on where it was when the command is given again. Everything but the path goes to stderr.
    """
    from tin.zoo import cached, fetch, find

    model = find(name)
    if out is not None and out.exists():
        raise click.UsageError(f"{out} exists: name another file, or remove it")
    if not offline and not cached(model).exists():
        click.echo(f"fetching {model.url}\n  {model.licence}", err=True)
    with download_bar(model.file) as progress:
        path = fetch(model, offline=offline, progress=progress, say=lambda message: click.echo(message, err=True))
    click.echo(_copy(path, out) if out else path)


@contextmanager
def download_bar(what: str) -> Iterator[Progress | None]:
    """A bar on stderr for a download, which appears with its first bytes; None, and no bar, without a terminal."""
    from rich import progress
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, transient=True) as bar:
        tasks: list[progress.TaskID] = []

        def update(done: int, total: int | None) -> None:
            if not tasks:
                tasks.append(bar.add_task(what, total=total))
            bar.update(tasks[0], completed=done, total=total)

        yield update


def _copy(path: Path, out: Path) -> Path:
    """Whole or not at all."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, temporary)
        os.replace(temporary, out)
    except OSError as error:
        raise click.UsageError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return out
