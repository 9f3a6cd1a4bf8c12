"""`tin-cli data`: make data sets and look into them; one file a command."""

from __future__ import annotations

import click

from cli.data.check import check
from cli.data.index import index
from cli.data.motion import motion
from cli.data.prepare import prepare
from cli.data.stats import stats
from cli.data.transcode import transcode

__all__ = ["data"]


@click.group(short_help="Make data sets and look into them.")
def data() -> None:
    """Make data sets and look into them.

    A data set is a folder with train.txt and val.txt (a line a video: path label) and labels.txt (a line a class).
    """


for command in (motion, prepare, index, stats, check, transcode):
    data.add_command(command)
