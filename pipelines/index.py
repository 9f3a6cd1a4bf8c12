"""The index of a list: every video probed once, in parallel, and remembered until its file changes."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines import store as disk
from pipelines.annotations import VideoEntry, VideoList
from pipelines.errors import DataError, DecodeError
from pipelines.media import file_state
from pipelines.probe import VideoInfo
from pipelines.workers import WorkerPool

__all__ = ["VideoIndex", "VideoInfo"]

_SAVE_SECONDS = 1.0  # between writes: a killed build has lost no more than this
_TOGETHER = 8  # videos a task: asking for each alone would cost a tenth of the time
_STAT_SAMPLE = 256
_SLOW_STAT_SECONDS = 1e-4  # a local disk answers in 2 µs, one across a network in a millisecond
_STAT_THREADS = 32

_Job = tuple[str, str | None, int | None, bool]  # the arguments of probe


class VideoIndex:
    """What is in each video of a list. `index[entry]` is its VideoInfo; `build` makes or updates one."""

    def __init__(self, infos: Mapping[str, VideoInfo], store: Path | None) -> None:
        self._infos = infos
        self.store = store
        """The file that keeps the index; None where neither the list's folder nor the cache can be written, and for a list of
        `VideoList.from_files`."""

    def __getitem__(self, entry: VideoEntry) -> VideoInfo:
        return self._infos[entry.id]

    def __len__(self) -> int:
        return len(self._infos)

    @classmethod
    def build(
        cls,
        video_list: VideoList,
        store: str | Path | None = None,
        workers: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        verify: bool = False,
    ) -> VideoIndex:
        """Probe the videos of a list that are new or whose size or time of change differs from what is remembered.

        Frames are counted from the packets that become displayed frames, which costs milliseconds a file; header
        counts are never believed. Packets cannot show damage inside them: with `verify` every frame is decoded, once,
        and a file that fails on the way is unreadable. Without it such a file fails when it is first used.

        Args:
            video_list: what to look at. Files that cannot be read get an `error` and are no exception.
            store: SQLite file to keep the index in; None for `NAME.index.sqlite` beside the list (`.index.sqlite` in a
                scanned folder), or the user's cache directory where that cannot be written; and for no file where the list is of
                `VideoList.from_files`. Rows are keyed by path relative to the root, so data may move.
            workers: processes; None for one a core. 0 probes in this process.
            progress: called with (videos done, videos to probe) as they are done.

        Raises:
            DataError: the store is damaged, or another program's file.
        """
        paths = [Path(store)] if store is not None else disk.store_paths(video_list)
        known: dict[str, disk.Row] = {}
        for path in reversed(paths):
            known.update(disk.read_rows(path))
        files = [os.path.abspath(entry.path) for entry in video_list.entries]
        keys = _keys(files, video_list.root)
        looked_at = [file for file, key in zip(files, keys, strict=True) if key in known]
        states = dict(zip(looked_at, _states(looked_at), strict=True))
        infos: dict[str, VideoInfo] = {}
        pending: list[tuple[VideoEntry, str]] = []
        for entry, key, file in zip(video_list.entries, keys, files, strict=True):
            row = known.get(key)
            if row is not None and _still_true(*row, states[file], entry, video_list.template, verify):
                infos[entry.id] = row[0]
            else:
                pending.append((entry, key))
        target = next((path for path in paths if disk.writable(path)), None) if pending else next(iter(paths), None)
        if pending and target is None and store is not None:
            raise DataError(f"cannot write the video index {store}; choose another store")
        jobs: list[_Job] = [(str(e.path), video_list.template, e.num_frames, verify) for e, _ in pending]
        unsaved: list[tuple[str, VideoInfo, bool]] = []
        saved = time.monotonic()
        try:
            for done, (position, info) in enumerate(_probe_all(jobs, workers), 1):
                entry, key = pending[position]
                infos[entry.id] = info
                unsaved.append((key, info, verify))
                if progress is not None:
                    progress(done, len(pending))
                if target is not None and time.monotonic() - saved > _SAVE_SECONDS:
                    disk.write_rows(target, unsaved)
                    unsaved.clear()
                    saved = time.monotonic()
        finally:
            if target is not None:
                disk.write_rows(target, unsaved)
        return cls(infos, target)

    def unreadable(self, video_list: VideoList) -> list[tuple[VideoEntry, str]]:
        """The entries that cannot be read, each with the reason, in list order."""
        return [(entry, error) for entry in video_list.entries if (error := self[entry].error) is not None]


def _probe_all(jobs: Sequence[_Job], workers: int | None) -> Iterator[tuple[int, VideoInfo]]:
    """(position, what was found) of every job, as they are done."""
    count = min(len(os.sched_getaffinity(0)) if workers is None else workers, len(jobs))
    verify = any(job[-1] for job in jobs)
    together = 1 if verify or not count else min(_TOGETHER, -(-len(jobs) // count))
    pool = WorkerPool(count)
    try:
        for start in range(0, len(jobs), together):
            several = range(start, min(start + together, len(jobs)))
            pool.submit(several, "probe", [jobs[position] for position in several])
        left = len(jobs)
        while left:
            for several, found, error in pool.collect():
                if error is not None and len(several) > 1:  # one of them killed the process: each alone shows which
                    for position in several:
                        pool.submit(range(position, position + 1), "probe", [jobs[position]])
                    continue
                if error is not None:
                    size, mtime = file_state(jobs[several[0]][0])
                    reason = error.reason if isinstance(error, DecodeError) else str(error)
                    found = [VideoInfo(bytes=size, mtime=mtime, error=reason)]
                left -= len(several)
                yield from zip(several, found, strict=True)
    finally:
        pool.close()


def _keys(files: Sequence[str], root: Path) -> list[str]:
    """What rows are known by: paths relative to the list's root, or absolute where they are not below it."""
    above = os.path.abspath(root).rstrip("/") + "/"
    return [file.removeprefix(above) for file in files]


def _states(files: Sequence[str]) -> list[os.stat_result | None]:
    """What the system says of each file, None where it cannot; asked in threads where answers are slow to come."""
    start = time.perf_counter()
    states = [_state(file) for file in files[:_STAT_SAMPLE]]
    if time.perf_counter() - start < _SLOW_STAT_SECONDS * len(states):
        return states + [_state(file) for file in files[_STAT_SAMPLE:]]
    with ThreadPoolExecutor(_STAT_THREADS) as threads:
        return states + list(threads.map(_state, files[_STAT_SAMPLE:]))


def _state(file: str) -> os.stat_result | None:
    try:
        return os.stat(file)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None


def _still_true(
    info: VideoInfo,
    verified: bool,
    state: os.stat_result | None,
    entry: VideoEntry,
    template: str | None,
    verify: bool,
) -> bool:
    if state is None or (verify and not verified):
        return False  # to look again for a missing file costs nothing
    if (info.bytes, info.mtime) != (state.st_size, state.st_mtime_ns):
        return False
    if info.codec != "images":
        return not stat.S_ISDIR(state.st_mode)
    same_names = template in (None, info.template)
    return same_names and (entry.num_frames is None or entry.num_frames == info.num_frames)
