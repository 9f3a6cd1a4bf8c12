"""`tin-cli report`: a result file to one HTML page, with the frames of the worst videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from cli._options import EXISTING_FILE, EXISTING_FOLDER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipelines import VideoList
    from tin.evaluation import Result
    from tin.report import Offsets


@click.command(short_help="Make a page of a result: metrics, classes, confusions, worst videos.")
@click.argument("result_file", metavar="RESULT", type=EXISTING_FILE)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=None,
    help="The page.  [default: RESULT with the ending .html]",
)  # fmt: skip
@click.option(
    "--root", type=EXISTING_FOLDER, default=None,
    help="Folder that the videos of the list are relative to.  [default: that of the test]",
)  # fmt: skip
@click.option(
    "--run", "run_dir", type=EXISTING_FOLDER, default=None,
    help="Run whose offsets.jsonl is shown.  [default: the checkpoint's folder]",
)  # fmt: skip
@click.option(
    "--png", type=click.Path(file_okay=False, path_type=Path), default=None, help="Folder for the plots as PNG files."
)
def report(result_file: Path, out: Path | None, root: Path | None, run_dir: Path | None, png: Path | None) -> None:
    """Make one HTML page of a result: metrics with intervals, classes, confusions, the worst videos, offsets.

    RESULT is what tin-cli test --out wrote. The page needs nothing but itself: it opens from a disk, without a network, and prints.

    \b
    tin-cli report result.json --out report.html
    tin-cli report result.json --root /data/k400/val --run runs/tin --png plots

    The wrong videos with the highest confidence are shown with the frames that the model saw, decoded now from the list that the result
    names. Where it or the videos have moved, --root says where they are.
    """
    from tin.evaluation import load_result
    from tin.report import make_report, render_page, write_page, write_plots

    result = load_result(result_file)
    out = out or result_file.with_suffix(".html")
    if out.exists() and out.samefile(result_file):
        raise click.UsageError(f"--out {out} is the result itself")
    content = make_report(result, _offsets(result, run_dir))
    ids = [content.ids[row] for row in content.worst]
    frames = _frames(result, ids, root)
    write_page(out, render_page(content, frames))
    pictures = write_plots(content, png) if png is not None else []
    click.echo(f"report written to {out} ({out.stat().st_size / 1e6:.1f} MB)")
    missing = [why for why in frames.values() if isinstance(why, str)]
    if missing:
        unseen = len(missing) == len(ids) and root is None and "--root" not in missing[0]
        hint = " (--root names the folder of the videos)" if unseen else ""
        click.echo(
            f"no frames of {len(missing)} of the {len(ids)} worst videos; the first: {missing[0]}{hint}", err=True
        )
    for path in pictures:
        click.echo(f"plot written to {path}")


def _offsets(result: Result, run_dir: Path | None) -> Offsets | None:
    """Of the run that was named, else of the run that the checkpoint lies in; a report without them is still one."""
    from tin.errors import TinError
    from tin.report import read_offsets

    if run_dir is not None:
        offsets = read_offsets(run_dir)
        if offsets is None:
            raise TinError(f"{run_dir} has no offsets: training writes them at every validation of a TIN network")
        return offsets
    if result.checkpoint is None:
        return None
    folder = Path(result.checkpoint.path).parent
    if not (folder / "offsets.jsonl").is_file():
        return None
    try:
        return read_offsets(folder)
    except TinError as error:
        click.echo(f"no offsets: {error}", err=True)
        return None


def _frames(result: Result, ids: list[str], root: Path | None) -> dict[str, NDArray[np.uint8] | str]:
    """What the model saw of these videos, or why that cannot be shown; a report without pictures is still one."""
    from cli._data import clip_spec
    from pipelines import DataError, VideoIndex
    from pipelines.thumbnails import seen_frames
    from tin import recipes
    from tin.errors import TinError

    if not ids:
        return {}
    if result.recipe is None:
        return dict.fromkeys(ids, "an ensemble's members may have seen different frames")
    try:
        spec = clip_spec(recipes.from_dict(result.recipe, f"the recipe in {result.path}", []))
        videos = _video_list(result, root)
        entries = {entry.id: entry for entry in videos.entries}
        known = [entries[id] for id in ids if id in entries]
        with TemporaryDirectory() as folder:
            # the list's own index knows them, or these few are probed
            store = None if videos.source and videos.source.is_file() else Path(folder) / "index.sqlite"
            index = VideoIndex.build(replace(videos, entries=known), store=store)
        found = seen_frames(known, index, spec)
    except (DataError, TinError) as error:
        return dict.fromkeys(ids, str(error))
    return {id: found.get(id, f"{videos.source} has no such video") for id in ids}


def _video_list(result: Result, root: Path | None) -> VideoList:
    """The list of the result; where it is gone, its videos below `root`, by default the root of the test."""
    from pipelines import DataError, VideoEntry, VideoList

    path = Path(result.list_name)
    if root is None and result.root is not None and Path(result.root).is_dir():
        root = Path(result.root)
    if path.is_file():
        return VideoList.read(path, root=root)
    if root is None:
        raise DataError(f"the list {path} is gone: name the folder of its videos with --root")
    entries = [VideoEntry(root / video.id, video.label, video.id) for video in result.videos]
    return VideoList(entries, result.label_names, path.stem, root, root / path.name)
