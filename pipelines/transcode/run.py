"""A list's videos copied in parallel, finished files kept from run to run, and the new list with its index."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.annotations import LABELS_FILE, VideoEntry, VideoList
from pipelines.errors import DataError
from pipelines.index import VideoIndex
from pipelines.media import file_state
from pipelines.transcode.encode import Transcoded
from pipelines.transcode.errors import OutputError
from pipelines.transcode.ledger import Copy, Ledger, open_ledger, scratch_folder
from pipelines.transcode.names import SUFFIX, Source, name_sources
from pipelines.transcode.settings import TranscodeSettings
from pipelines.workers import WorkerPool

UNREADABLE = "unreadable.txt"
_MIN_SECONDS = 600.0  # allowed for one file
_FRAME_SECONDS = 1.0  # allowed for each frame of the longest; 4K takes a tenth of it


@dataclass(frozen=True)
class TranscodeSummary:
    """What `transcode` did.

    Attributes:
        videos: the new list, as read back from its file.
        index: of the new list.
        written: copies made by this run.
        kept: copies that earlier runs had finished.
        refused: copies in the list that libx264 made because NVENC did not take the video.
        unreadable: the videos that have no copy, with the reason, in the order of the old list.
        source_bytes: of the videos that have a copy, as far as they are still there.
        bytes: of the copies.
    """

    videos: VideoList
    index: VideoIndex
    written: int
    kept: int
    refused: int
    unreadable: list[tuple[VideoEntry, str]]
    source_bytes: int
    bytes: int


def transcode(
    video_list: VideoList,
    index: VideoIndex,
    out: str | Path,
    settings: TranscodeSettings | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TranscodeSummary:
    """Copy every video of a list into the folder `out` as `settings` say, with list, labels and index.

    A copy takes its name only when it is whole: written, synced, probed, and as many frames as the source. A run that ends in
    any way, SIGKILL included, is completed by the same call; finished copies whose source has not changed are
    kept. Videos that cannot be read, kill two worker processes or take over ten minutes (a second a frame in lists with
    longer videos) are left out and listed in `out/unreadable.txt`; the next run tries them again. Several lists may share `out`.

    Args:
        video_list: video files; folders of images are refused.
        index: built from that list.
        out: created if needed; must be empty or an earlier call's with the same settings.
        settings: `TranscodeSettings()` by default.
        workers: processes; None for one a core.
        progress: called with (videos done, videos in the list), earlier runs' included.

    Raises:
        OutputError: `out` cannot be written: a full disk, permissions. What is finished stays.
        DataError: `out` holds other settings, another list of that name or other labels, or another process is writing there;
            frame folders; no video can be read.
    """
    settings, out = settings or TranscodeSettings(), Path(out)
    entries = [(entry, index[entry]) for entry in video_list.entries]
    for entry, info in entries:
        if info.codec == "images":
            raise DataError(f"{entry.id} is a folder of images: transcode takes lists of video files")
    with open_ledger(out, settings) as ledger:
        _check_lists(video_list, ledger)
        sources = name_sources(entries, video_list.root, ledger.copies)
        kept = {source.name for source in sources if source.copy is not None and ledger.is_whole(source.copy)}
        failed = {source.name: source.info.error for source in sources if source.name not in kept and source.info.error}
        pending = [source for source in sources if source.name not in kept and source.name not in failed]
        for source in pending:
            if source.name not in ledger.copies and (out / source.name).exists():
                raise DataError(
                    f"{out / source.name} is in the way and not this command's; move it or name another folder"
                )
        if len(failed) == len(sources):
            source = sources[0]
            raise DataError(
                f"none of the {len(sources)} videos can be read; the first, {source.entry.id}: {source.info.error}"
            )
        with scratch_folder(out) as scratch:
            failed |= _make(pending, ledger, settings, scratch, workers, progress, len(sources) - len(pending))
            good = [source for source in sources if source.name not in failed]
            unreadable = [(source.entry, failed[source.name]) for source in sources if source.name in failed]
            if not good:
                entry, reason = unreadable[0]
                raise DataError(f"none of the {len(sources)} videos can be transcoded; the first, {entry.id}: {reason}")
            path = _write_lists(video_list, good, unreadable, out, scratch)
        copies = VideoList.read(path, format="auto" if good[0].entry.label is None else "videos")
        made = [ledger.copies[source.name] for source in good]
    return TranscodeSummary(
        videos=copies,
        index=VideoIndex.build(copies, workers=workers),
        written=len(good) - len(kept),
        kept=len(kept),
        refused=sum(copy.encoder != settings.encoder for copy in made),
        unreadable=unreadable,
        source_bytes=sum(source.info.bytes for source in good),
        bytes=sum(copy.state[0] for copy in made),
    )


def _check_lists(video_list: VideoList, ledger: Ledger) -> None:
    """Before hours of work: the list's name and labels fit what is in the folder."""
    if video_list.name in (Path(LABELS_FILE).stem, Path(UNREADABLE).stem):
        raise DataError(f"a list named {video_list.name} would be overwritten by {video_list.name}.txt; rename it")
    source = os.path.abspath(video_list.source or video_list.root)
    other = ledger.lists.get(video_list.name)
    if other not in (None, source) and os.path.exists(str(other)):
        raise DataError(
            f"{ledger.out / video_list.name}.txt is made of {other}; rename the list or name another folder"
        )
    labels = ledger.out / LABELS_FILE
    if (
        video_list.labels is not None
        and labels.exists()
        and labels.read_text("utf-8").splitlines() != video_list.labels
    ):
        raise DataError(f"{labels} names other classes than {video_list.source} has; name another folder")
    ledger.add_list(video_list.name, source)


def _make(
    pending: Sequence[Source],
    ledger: Ledger,
    settings: TranscodeSettings,
    scratch: Path,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
    before: int,
) -> dict[str, str]:
    """Make the copies; returns the reason, by name, of each that could not be."""
    failed: dict[str, str] = {}
    if progress is not None:
        progress(before, before + len(pending))
    count = len(os.sched_getaffinity(0)) if workers is None else workers
    longest = max((source.info.num_frames for source in pending), default=0)
    pool = WorkerPool(min(count, len(pending)), task_seconds=max(_MIN_SECONDS, _FRAME_SECONDS * longest))
    try:
        for number, source in enumerate(pending):
            target = str(scratch / f"{number}{SUFFIX}")
            pool.submit(number, "transcode", source.path, target, source.info.num_frames, settings)
        done = 0
        while done < len(pending):
            for number, value, error in pool.collect():
                source = pending[number]
                if isinstance(error, OutputError):
                    raise error
                if error is not None:
                    failed[source.name] = str(error).removeprefix(f"{source.path}: ")
                else:
                    _finish(source, value, scratch / f"{number}{SUFFIX}", ledger)
                done += 1
                if progress is not None:
                    progress(before + done, before + len(pending))
    except OutputError as error:
        left = len(pending) - done
        raise OutputError(
            error.path, f"{error.reason}; {left} of {before + len(pending)} videos are left: make room and run it again"
        ) from None
    finally:
        pool.close()
    return failed


def _finish(source: Source, made: Transcoded, unfinished: Path, ledger: Ledger) -> None:
    """Give a finished copy its name; the ledger knows of it before."""
    state = file_state(unfinished)
    ledger.add_copy(Copy(source.name, source.path, source.entry.id, source.state, state, made.encoder))
    target = ledger.out / source.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(unfinished, target)
    except OSError as error:
        raise OutputError(target, error.strerror or str(error)) from None


def _write_lists(
    video_list: VideoList,
    good: Sequence[Source],
    unreadable: Sequence[tuple[VideoEntry, str]],
    out: Path,
    scratch: Path,
) -> Path:
    """Write list, labels and the unreadable videos, each whole or not at all; returns the list's path."""
    name = f"{video_list.name}.txt"
    files = {name: [s.name if s.entry.label is None else f"{s.name} {s.entry.label}" for s in good]}
    if video_list.labels is not None:
        files[LABELS_FILE] = video_list.labels
    path = out / UNREADABLE
    try:
        others = path.read_text("utf-8").splitlines() if path.exists() else []
        files[UNREADABLE] = [line for line in others if line.partition("\t")[0] != name]
        files[UNREADABLE] += [f"{name}\t{entry.id}\t{' '.join(reason.split())}" for entry, reason in unreadable]
        for file, lines in files.items():
            if not lines:
                (out / file).unlink(missing_ok=True)
                continue
            (scratch / file).write_text("".join(f"{line}\n" for line in lines), "utf-8")
            os.replace(scratch / file, out / file)
    except OSError as error:
        raise OutputError(out / name, error.strerror or str(error)) from None
    return out / name
