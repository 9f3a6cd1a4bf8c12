"""`tin-cli predict`: what a network takes videos for, as a table, as JSON lines, and drawn into the videos."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli._options import (
    EXISTING_FILE,
    EXISTING_FOLDER,
    LIST_FORMAT,
    amp_was_asked,
    as_overrides,
    run_options,
    set_option,
)
from cli._views import as_fields, views_options

if TYPE_CHECKING:
    from cli._predicting import Outcome
    from pipelines import VideoList
    from pipelines.lists.formats import ListFormat


@click.command(short_help="Say what videos show, with a checkpoint.")
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO|DIR|LIST|-…")
@click.option(
    "--checkpoint", type=EXISTING_FILE, required=True, help="Checkpoint of tin-cli train, or any that --recipe fits."
)
@click.option("--top-k", type=click.IntRange(1), default=5, show_default=True, help="Classes to name for each video.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line for each video instead of a table.")
@click.option(
    "--save", type=click.Path(path_type=Path), default=None, metavar="FILE|DIR",
    help="Write the video with the predictions drawn into it: an .mp4, or a folder for several.",
)  # fmt: skip
@click.option(
    "--labels", type=EXISTING_FILE, default=None, help="Class names, a line each.  [default: those in the checkpoint]"
)
@views_options
@click.option("--batch-size", type=click.IntRange(1), default=None, help="Videos at a time.  [default: the recipe's]")
@click.option(
    "--fast", is_flag=True, help="Prepare the model first: batch norms folded, weights cast once, CUDA graphs. Pays for many videos.",
)  # fmt: skip
@LIST_FORMAT
@click.option(
    "--root", type=EXISTING_FOLDER, default=None,
    help="Folder that the paths in lists are relative to.  [default: the list's]",
)  # fmt: skip
@click.option(
    "--recipe", "recipe_name", default=None, metavar="NAME|FILE", help="Recipe.  [default: the one in the checkpoint]"
)
@run_options
@set_option
def predict(
    videos: tuple[str, ...],
    checkpoint: Path,
    top_k: int,
    as_json: bool,
    save: Path | None,
    labels: Path | None,
    views: str | None,
    num_clips: int | None,
    twice: bool,
    dense: bool,
    batch_size: int | None,
    fast: bool,
    format: ListFormat,
    root: Path | None,
    recipe_name: str | None,
    device: str,
    amp: str | None,
    workers: int | None,
    overrides: tuple[str, ...],
) -> int:
    """Name the most likely classes of every video that is given: files, folders (searched for videos at any depth), lists in any
    format of tin-cli test (their labels are ignored), and `-`, which reads paths from standard input, one a line.

    \b
    $ tin-cli predict clips --checkpoint runs/fights/best.pt
    video               score  class
    clips/nofi058.mp4   68.6%  nofight
                        31.4%  fight
    clips/a/fi046.mp4   52.8%  fight
                        47.2%  nofight
    \b
    $ tin-cli predict clips/a/fi046.mp4 --checkpoint runs/fights/best.pt --json --top-k 1
    {"path": "clips/a/fi046.mp4", "top": [{"label": "fight", "index": 0, "score": 0.5280157}]}
    \b
    find clips -name 'fi*.mp4' | tin-cli predict - --checkpoint best.pt --views three-crop --num-clips 2
    tin-cli predict clips/a/fi046.mp4 --checkpoint best.pt --save seen.mp4

    Exit status: 0 all videos are predicted; 1 some are not, and the reason for each is printed; 2 a mistake in what was asked or given.
    docs/predict.md shows output and describes the JSON.
    """  # fmt: skip
    from cli import _launch
    from cli._inputs import gather
    from cli._predicting import outcomes, overlay_paths
    from cli._session import open_session
    from tin.distributed import World

    _launch.share_cores()
    given = [*overrides, *as_overrides({"train.batch_size": batch_size, "train.amp": amp})]
    given += as_fields(views, num_clips, twice, dense, overrides)
    found = gather(videos, root, format)
    overlays = overlay_paths(found, save) if save else {}
    session = open_session(
        checkpoint,
        recipe_name=recipe_name,
        overrides=given,
        device=device,
        amp_was_asked=amp_was_asked(amp, overrides),
        world=World(),
    )
    names = _read_names(labels, session.recipe.model.num_classes) if labels else session.label_names
    table = None if as_json else _Table(found)
    failed = 0
    for outcome in outcomes(found, session, top_k=top_k, fast=fast, workers=workers, overlays=overlays, names=names):
        if table:
            table.show(outcome, names)
        else:
            click.echo(json.dumps(_as_json(outcome, names)))
        failed += outcome.failed
    if failed:
        click.echo(f"{failed} of {len(found)} videos failed", err=True)
    return 1 if failed else 0


def _read_names(path: Path, num_classes: int) -> list[str]:
    from pipelines.lists.labels import read_label_map

    names = read_label_map(path)
    if len(names) != num_classes:
        raise click.UsageError(f"--labels {path} names {len(names)} classes, the model has {num_classes}")
    return names


def _as_json(outcome: Outcome, names: Sequence[str] | None) -> dict[str, Any]:
    if outcome.error is not None:
        return {"path": outcome.path, "error": outcome.error}
    top = [
        {"label": names[number] if names else None, "index": number, "score": float(f"{score:.7g}")}
        for number, score in zip(outcome.classes, outcome.scores, strict=True)
    ]
    result: dict[str, Any] = {"path": outcome.path, "top": top}
    if outcome.overlay is not None:
        result["overlay"] = str(outcome.overlay)
    if outcome.overlay_error is not None:
        result["overlay_error"] = outcome.overlay_error
    return result


class _Table:
    """Rows as they come, in columns that fit all videos: the path, a score, a class."""

    def __init__(self, videos: VideoList) -> None:
        from rich.cells import cell_len

        width = max(cell_len(_printable(entry.id)) for entry in videos.entries)
        if sys.stdout.isatty():  # the classes have the right half, at least
            width = min(width, max(20, shutil.get_terminal_size().columns // 2))
        self._width = max(width, len("video"))
        click.echo(f"{'video':{self._width}}   score  class")

    def show(self, outcome: Outcome, names: Sequence[str] | None) -> None:
        path = _printable(outcome.path)
        if outcome.error is not None:
            click.echo(f"failed: {path}: {outcome.error}", err=True)
            return
        for row, (number, score) in enumerate(zip(outcome.classes, outcome.scores, strict=True)):
            name = names[number] if names else f"class {number}"
            click.echo(f"{self._fitted(path if row == 0 else '')}  {100 * score:5.1f}%  {name}")
        if outcome.overlay_error is not None:
            click.echo(f"failed: {path}: not drawn: {outcome.overlay_error}", err=True)

    def _fitted(self, text: str) -> str:
        """The text, or its end, as wide as the column."""
        from rich.cells import cell_len, set_cell_size

        if cell_len(text) <= self._width:
            return set_cell_size(text, self._width)
        while cell_len(text) >= self._width:
            text = text[1:]
        return set_cell_size(f"…{text}", self._width)


def _printable(path: str) -> str:
    """A path whose bytes may not be text."""
    return os.fsencode(path).decode(errors="replace")
