"""The index of a list: every video probed once, in parallel, and remembered until its file changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from pipelines import store as disk
from pipelines.annotations import VideoEntry, VideoList
from pipelines.errors import DataError
from pipelines.probe import VideoInfo, file_state
from pipelines.workers import WorkerPool

__all__ = ["VideoIndex", "VideoInfo"]

_SAVE_EVERY = 256  # rows between writes: an interrupted build keeps what it has


class VideoIndex:
    """What is in each video of a list. `index[entry]` is its VideoInfo; `build` makes or updates one."""

    def __init__(self, infos: Mapping[str, VideoInfo], store: Path | None) -> None:
        self._infos = infos
        self.store = store
        """The file that keeps the index; None where neither the list's folder nor the cache can be written."""

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
                scanned folder), or the user's cache directory where that cannot be written. Rows are keyed by path
                relative to the root, so data may move.
            workers: processes; None for one a core. 0 probes in this process.
            progress: called with (videos done, videos to probe) as they are done.

        Raises:
            DataError: the store is damaged, or another program's file.
        """
        paths = [Path(store)] if store is not None else disk.store_paths(video_list)
        known: dict[str, disk.Row] = {}
        for path in reversed(paths):
            known.update(disk.read_rows(path))
        infos: dict[str, VideoInfo] = {}
        pending: list[VideoEntry] = []
        for entry in video_list.entries:
            row = known.get(_key(entry, video_list))
            if row is not None and _still_true(*row, entry, video_list, verify):
                infos[entry.id] = row[0]
            else:
                pending.append(entry)
        target = next((path for path in paths if disk.writable(path)), None) if pending else paths[0]
        if pending and target is None and store is not None:
            raise DataError(f"cannot write the video index {store}; choose another store")
        unsaved: list[tuple[str, VideoInfo, bool]] = []
        count = len(os.sched_getaffinity(0)) if workers is None else workers
        pool = WorkerPool(min(count, len(pending)))
        try:
            for position, entry in enumerate(pending):
                pool.submit(position, "probe", str(entry.path), video_list.template, entry.num_frames, verify)
            done = 0
            while done < len(pending):
                for position, info, error in pool.collect():
                    entry = pending[position]
                    if error is not None:
                        size, mtime = file_state(entry.path)
                        reason = str(error).removeprefix(f"{entry.path}: ")
                        info = VideoInfo(bytes=size, mtime=mtime, error=reason)
                    infos[entry.id] = info
                    unsaved.append((_key(entry, video_list), info, verify))
                    done += 1
                    if progress is not None:
                        progress(done, len(pending))
                if target is not None and len(unsaved) >= _SAVE_EVERY:
                    disk.write_rows(target, unsaved)
                    unsaved.clear()
        finally:
            pool.close()
            if target is not None:
                disk.write_rows(target, unsaved)
        return cls(infos, target)

    def unreadable(self, video_list: VideoList) -> list[tuple[VideoEntry, str]]:
        """The entries that cannot be read, each with the reason, in list order."""
        return [(entry, error) for entry in video_list.entries if (error := self[entry].error) is not None]


def _key(entry: VideoEntry, video_list: VideoList) -> str:
    path = Path(os.path.abspath(entry.path))
    root = Path(os.path.abspath(video_list.root))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _still_true(info: VideoInfo, verified: bool, entry: VideoEntry, video_list: VideoList, verify: bool) -> bool:
    if (info.bytes, info.mtime) != file_state(entry.path) or (verify and not verified):
        return False
    if info.mtime == 0:
        return False  # it was missing and still is; a look costs nothing
    if info.codec != "images":
        return not os.path.isdir(entry.path)
    same_names = video_list.template in (None, info.template)
    return same_names and (entry.num_frames is None or entry.num_frames == info.num_frames)
