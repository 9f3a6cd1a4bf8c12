"""Options and small words that the `tin-cli data` commands share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

FOLDER = click.Path(file_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
WORKERS = click.option(
    "--workers", type=click.IntRange(1, 1024), default=None, help="Processes.  [default: one a core]"
)


def counted(values: Counter[str]) -> str:
    """`h264 30, vp9 12`, the most common first, at most five."""
    shown = ", ".join(f"{name} {count}" for name, count in values.most_common(5))
    return shown + (f" and {len(values) - 5} more" if len(values) > 5 else "")
