"""What becomes of each video that is to be predicted: classes, a copy with them drawn in, or the reason why not."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cli._session import Session
    from pipelines import VideoIndex, VideoList
    from pipelines.annotations import VideoEntry
    from tin import Prediction


_NO_TEXT = "its name is not UTF-8, which neither the index nor a list can hold: rename it"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one video."""

    path: str
    classes: tuple[int, ...] = ()
    """Best first; none where there is an error."""
    scores: tuple[float, ...] = ()
    error: str | None = None
    overlay: Path | None = None
    """The copy with the predictions drawn in, where one was made."""
    overlay_error: str | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None or self.overlay_error is not None


def outcomes(
    videos: VideoList,
    session: Session,
    *,
    top_k: int,
    fast: bool,
    workers: int | None,
    overlays: dict[str, Path],
    names: Sequence[str] | None,
) -> Iterator[Outcome]:
    """One a video, in list order, as soon as it is known.

    Args:
        videos: what to predict.
        session: with what.
        top_k: classes of each.
        fast: whether to prepare the network first.
        workers: decoding processes.
        overlays: where to write copies with the predictions drawn in, by the video's id (`overlay_paths`).
        names: of the classes, for the copies.
    """
    from rich.console import Console

    from cli.console import callback_bar, counting
    from pipelines import VideoIndex

    with ExitStack() as stack:
        errors = {entry.id: _NO_TEXT for entry in videos.entries if not _is_text(entry.id)}
        named = replace(videos, entries=[entry for entry in videos.entries if entry.id not in errors])
        with callback_bar("probing videos") as progress:
            index = VideoIndex.build(named, progress=progress)
        errors |= {entry.id: reason for entry, reason in index.unreadable(named)}
        # No bar among the lines that come out: they show how far it is.
        console = Console(stderr=True, force_terminal=False if sys.stdout.isatty() else None)
        bar = stack.enter_context(counting(console, "predicting", len(videos)))
        readable = [entry for entry in videos.entries if entry.id not in errors]
        readable_list = replace(videos, entries=readable)
        found = stack.enter_context(closing(_predictions(readable_list, index, session, top_k, fast, workers)))
        for entry in videos.entries:
            if entry.id in errors:
                yield Outcome(path=entry.id, error=errors[entry.id])
            else:
                one = next(found)
                done = Outcome(path=entry.id, classes=one.classes, scores=one.scores, error=one.error)
                target = None if done.error else overlays.get(entry.id)
                yield _with_overlay(done, entry, index, target, names) if target else done
            bar(1)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8, as Python holds them
        return False
    return True


def overlay_paths(videos: VideoList, save: Path) -> dict[str, Path]:
    """Where to write the copy of each video: `save` itself for one video, in the folder `save` for several.

    In a folder, copies lie as their sources do below the folder that these share, as .mp4.

    Raises:
        click.UsageError: `save` is no .mp4 where it is to be one, or no folder; a copy would take the place of its source.
    """
    from pipelines.overlay import SUFFIXES

    entries = videos.entries
    into_folder = save.is_dir() or str(save).endswith(os.sep) or (len(entries) > 1 and not save.suffix)
    if into_folder:
        paths = {entry.id: save / name for entry, name in zip(entries, _names_in_folder(videos), strict=True)}
    elif len(entries) > 1:
        raise click.UsageError(f"--save {save}: there are {len(entries)} videos; give a folder, as {save.stem}{os.sep}")
    elif save.suffix.lower() not in SUFFIXES:
        raise click.UsageError(
            f"--save {save}: give a name that ends in {', '.join(SUFFIXES)}, or a folder that exists"
        )
    else:
        paths = {entries[0].id: save}
    sources = {os.path.realpath(entry.path) for entry in entries}
    for path in paths.values():
        if os.path.realpath(path) in sources:
            raise click.UsageError(f"--save {save}: {path} is one of the videos; choose another place")
    return paths


def _names_in_folder(videos: VideoList) -> list[Path]:
    places = [os.path.abspath(entry.path) for entry in videos.entries]
    above = os.path.commonpath([os.path.dirname(place) for place in places])
    names = [Path(os.path.relpath(place, above)) for place in places]
    short = [name.with_suffix(".mp4") for name in names]
    return [
        brief if short.count(brief) == 1 else name.with_name(name.name + ".mp4")
        for name, brief in zip(names, short, strict=True)
    ]


def _predictions(
    videos: VideoList, index: VideoIndex, session: Session, top_k: int, fast: bool, workers: int | None
) -> Generator[Prediction, None, None]:
    """For each of some videos that the index can read, in order."""
    from cli._data import Indexed, make_loader
    from pipelines.arguments import default_workers
    from tin import predict
    from tin.distributed import World

    if not len(videos):
        return
    train = session.recipe.train
    batch_size = min(train.batch_size, len(videos))
    recipe = session.recipe.model_copy(update={"train": train.model_copy(update={"batch_size": batch_size})})
    if workers is None:
        workers = min(default_workers(), len(videos))
    with make_loader(
        Indexed(videos, index), recipe, training=False, device=session.device, world=World(), workers=workers
    ) as loader:
        yield from predict(session.scorer(fast, batch_size), loader, top_k=top_k, autocast=session.autocast)


def _with_overlay(
    outcome: Outcome, entry: VideoEntry, index: VideoIndex, target: Path, names: Sequence[str] | None
) -> Outcome:
    from pipelines.errors import DataError
    from pipelines.overlay import draw_predictions

    info = index[entry]
    if info.template is not None:
        return replace(outcome, overlay_error="a folder of frames has no video to draw into")
    lines = [
        (names[number] if names else f"class {number}", score)
        for number, score in zip(outcome.classes, outcome.scores, strict=True)
    ]
    try:
        draw_predictions(entry.path, target, lines, info.num_frames)
    except DataError as error:
        return replace(outcome, overlay_error=str(error).removeprefix(f"{entry.path}: "))
    return replace(outcome, overlay=target)
