"""Options and small words that the `tin-cli data` commands share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli._options import LIST_FORMAT
from cli.console import callback_bar

if TYPE_CHECKING:
    from pipelines import VideoIndex, VideoList

Function = TypeVar("Function", bound=Callable[..., Any])

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
WORKERS = click.option(
    "--workers", type=click.IntRange(1, 1024), default=None, help="Processes.  [default: one a core]"
)


def list_options(function: Function) -> Function:
    """LIST, --root, --format, --template and --workers: a list that the command has indexed."""
    for option in (
        WORKERS,
        click.option("--template", default=None,
                     help="Image names of frame folders, such as 'img_{:05}.jpg', counted from 1.  [default: found out]"),
        LIST_FORMAT,
        click.option("--root", type=EXISTING_FOLDER, default=None,
                     help="Folder that the paths in LIST are relative to.  [default: LIST's own]"),
        click.argument("list_file", metavar="LIST", type=EXISTING_FILE),
    ):  # fmt: skip
        function = option(function)
    return function


def read_indexed(
    list_file: Path, root: Path | None, format: str, template: str | None, workers: int | None, verify: bool = False
) -> tuple[VideoList, VideoIndex]:
    """What `list_options` name: the list, and its index brought up to date under a bar."""
    from pipelines import VideoIndex, VideoList

    videos = VideoList.read(list_file, root=root, format=format, template=template)  # type: ignore[arg-type]
    with callback_bar("probing videos") as progress:
        return videos, VideoIndex.build(videos, workers=workers, progress=progress, verify=verify)


def counted(values: Counter[str]) -> str:
    """`h264 30, vp9 12`, the most common first, at most five."""
    shown = ", ".join(f"{name} {count}" for name, count in values.most_common(5))
    return shown + (f" and {len(values) - 5} more" if len(values) > 5 else "")
