"""`tin-cli data prepare`: the canonical lists of a data set, from its official files, your lists or a folder per class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli._options import LIST_FORMAT
from cli.data._common import EXISTING_FILE, EXISTING_FOLDER, FOLDER

if TYPE_CHECKING:
    from pipelines.lists.formats import ListFormat
    from pipelines.prepare import FolderSplit, Prepared
    from pipelines.prepare.official import Official

Function = TypeVar("Function", bound=Callable[..., Any])
_OUT = click.option("--out", type=FOLDER, required=True, help="Folder for the lists; created if needed.")
_LABELS = click.option(
    "--labels", type=EXISTING_FILE, default=None,
    help="Class names by label (text, csv or json), instead of the data set's own.",
)  # fmt: skip


@click.group(short_help="Make the lists of a data set: k400, sthv1, sthv2, folder, list.")
def prepare() -> None:
    """Write train.txt, val.txt, test.txt (where there is one) and labels.txt for videos as you have them.

    The videos stay where they are. Listed videos that are not there are left out, counted, and named in missing.txt. Lists that
    say something else are never overwritten.

    \b
    tin-cli data prepare k400 /data/k400 --out data/k400
    tin-cli data prepare folder ~/videos --out data/mine
    """


def _official(function: Function) -> Function:
    for option in (
        click.argument("root", metavar="VIDEOS", type=EXISTING_FOLDER),
        click.option("--annotations", type=click.Path(exists=True, path_type=Path), default=None,
                     help="Folder with the official files, or one of them.  [default: VIDEOS, or annotations or labels in it]"),
        _OUT,
        _LABELS,
    ):  # fmt: skip
        function = option(function)
    return function


@prepare.command(short_help="Kinetics-400, -600 or -700 from the official csv files.")
@_official
def k400(root: Path, annotations: Path | None, out: Path, labels: Path | None) -> None:
    """Make the lists of a copy of Kinetics from train.csv, val.csv and test.csv.

    Files may be named ID_000010_000020.mp4 or ID.mp4, also .mkv, .webm and so on, and lie flat, in class folders (with spaces or
    underscores) or by split, anywhere below VIDEOS. Labels are the classes in alphabetical order.

    \b
    tin-cli data prepare k400 /data/k400 --out data/k400
    tin-cli data prepare k400 /data/videos --annotations /data/kinetics400 --out data/k400
    """
    _prepare_official("k400", root, annotations, out, labels)


@prepare.command(short_help="Something-Something V1 from the official csv files.")
@_official
def sthv1(root: Path, annotations: Path | None, out: Path, labels: Path | None) -> None:
    """Make the lists of Something-Something V1 from its -train.csv, -validation.csv, -test.csv and -labels.csv.

    VIDEOS holds the frame folders, ID/00001.jpg and so on. Labels are in the order of the labels csv, as MMAction2 has them.

    \b
    tin-cli data prepare sthv1 /data/20bn-something-something-v1 --annotations /data/v1 --out data/sthv1
    """
    _prepare_official("sthv1", root, annotations, out, labels)


@prepare.command(short_help="Something-Something V2 from the official json files.")
@_official
def sthv2(root: Path, annotations: Path | None, out: Path, labels: Path | None) -> None:
    """Make the lists of Something-Something V2 from its train, validation, test and labels json.

    VIDEOS holds ID.webm, or .mp4, or frame folders. Labels are those of the labels json, which are others than V1's.

    \b
    tin-cli data prepare sthv2 /data/20bn-something-something-v2 --annotations /data/labels --out data/sthv2
    """
    _prepare_official("sthv2", root, annotations, out, labels)


@prepare.command("list", short_help="Annotation files of your own, in any of the known formats.")
@click.option("--train", type=EXISTING_FILE, default=None, help="Training list.")
@click.option("--val", type=EXISTING_FILE, default=None, help="Validation list.")
@click.option("--test", type=EXISTING_FILE, default=None, help="Test list; it may have no labels.")
@click.option("--root", type=EXISTING_FOLDER, default=None, help="Folder of the videos.  [default: each list's own]")
@LIST_FORMAT
@_LABELS
@_OUT
def list_(
    train: Path | None,
    val: Path | None,
    test: Path | None,
    root: Path | None,
    format: ListFormat,
    labels: Path | None,
    out: Path,
) -> None:
    """Make canonical lists of annotation files that are in any format which docs/data.md names.

    \b
    tin-cli data prepare list --train ann/train.txt --val ann/val.txt --root /data/videos --out data/mine
    tin-cli data prepare list --val val_list.txt --labels label_map.txt --root /data/k400/val --out data/k400
    """
    from pipelines.prepare import prepare_lists

    given = {split: path for split, path in (("train", train), ("val", val), ("test", test)) if path is not None}
    if not given:
        raise click.UsageError("give a list: --train, --val or --test")
    _report(prepare_lists(given, out, root=root, format=format, labels=labels), out)


@prepare.command(short_help="A folder per class, split already or at random.")
@click.argument("root", type=EXISTING_FOLDER)
@_OUT
@click.option(
    "--val",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.25,
    show_default=True,
    help="Part of each class's videos to validate on.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which videos those are.")
def folder(root: Path, out: Path, val: float, seed: int) -> None:
    """Make the lists of ROOT/CLASS/VIDEO, or of ROOT/train/CLASS/VIDEO and ROOT/val/CLASS/VIDEO.

    Every folder that holds videos is a class; labels.txt names them. Where ROOT has a folder train and one val or test, these are
    the lists; else, and without a val, --val and --seed say what is split off. The same videos, --val and --seed give the same lists.

    \b
    tin-cli data prepare folder ~/videos --out data/mine
    tin-cli train --recipe tin_motion --data data/mine --num-classes 5
    """
    from pipelines.prepare import split_folder

    _report_folder(split_folder(root, out, val=val, seed=seed), root, out)


def _prepare_official(dataset: Official, root: Path, annotations: Path | None, out: Path, labels: Path | None) -> None:
    from pipelines.prepare import prepare_official

    _report(prepare_official(dataset, root, out, annotations=annotations, labels=labels), out)


def _report(prepared: Prepared, out: Path) -> None:
    for split, found in prepared.lists.items():
        place = found.path or "no list, because no video of it is there"
        numbers = f"{found.listed:8} listed {found.written:8} there {len(found.missing):8} missing"
        click.echo(f"{split:5} {numbers}  {place}")
    if prepared.labels is not None:
        click.echo(f"{len(prepared.labels)} classes in {out / 'labels.txt'}")
    if prepared.missing_file is not None:
        click.echo(f"the missing videos are named in {prepared.missing_file}")
    for note in prepared.notes:
        click.echo(f"note: {note}")


def _report_folder(split: FolderSplit, root: Path, out: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    parts = {"train": split.train, "val": split.val} | ({"test": split.test} if split.test else {})
    table = Table("label", "class", *parts, box=None)
    for label, (name, *counts) in enumerate(zip(split.labels, *parts.values(), strict=True)):
        table.add_row(str(label), escape(name), *map(str, counts))
    Console().print(table)
    if split.given:
        click.echo(f"{root} is split already: its folders are the lists")
    click.echo(
        ", ".join(f"{sum(counts)} in {out / name}.txt" for name, counts in parts.items()).replace(
            " in", " videos in", 1
        )
    )
    if split.ignored:
        click.echo(f"{split.ignored} other files in the class folders are no videos and were left out")
    if split.empty:
        click.echo(f"no class, because there is no video in it: {', '.join(split.empty)}")
