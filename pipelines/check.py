"""Every file of a list decoded whole, in processes that may die of it: what is found wrong is a line of the report."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.annotations import VideoList
from pipelines.errors import DecodeError
from pipelines.examine import UNREADABLE
from pipelines.index import VideoIndex
from pipelines.workers import TASK_SECONDS, CrashError, HangError, WorkerPool

CRASH = "crash"
HANG = "hang"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with one video."""

    id: str
    """The path as written in the list."""
    kind: str
    """`unreadable`, `truncated`, `decode error` or `frame count` (see examine.examine); `crash`: decoding killed two
    processes, the reason names the signal; `hang`: it was not done in the time for one file."""
    reason: str


def findings_of(video_list: VideoList, index: VideoIndex) -> list[Finding]:
    """What the index already knows to be unreadable, in list order; nothing is opened."""
    return [Finding(entry.id, UNREADABLE, reason) for entry, reason in index.unreadable(video_list)]


def check_deep(
    video_list: VideoList,
    index: VideoIndex,
    *,
    workers: int | None = None,
    seconds: float = TASK_SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Decode every frame of every video of a list and say what is wrong, in list order.

    A file that crashes its process, or does not get done in time, is a finding like any other: the process is replaced and
    the check goes on. The index is compared with and stays as it is.

    Args:
        video_list: what to check.
        index: of that list.
        workers: decoding processes; None for one a core.
        seconds: the longest that one file may take.
        progress: called with (videos done, videos in all) as they are done.

    Raises:
        WorkerError: the decoding processes do not start.
    """
    entries = video_list.entries
    count = len(os.sched_getaffinity(0)) if workers is None else workers
    found: dict[int, Finding] = {}
    pool = WorkerPool(max(1, min(count, len(entries))), seconds)
    try:
        for position, entry in enumerate(entries):
            info = index[entry]
            pool.submit(
                position, "examine", str(entry.path), info.template, None if info.error is not None else info.num_frames
            )
        done = 0
        while done < len(entries):
            for position, trouble, error in pool.collect():
                if isinstance(error, CrashError):
                    trouble = CRASH, error.reason
                elif isinstance(error, HangError):
                    trouble = HANG, error.reason
                elif error is not None:
                    trouble = UNREADABLE, error.reason if isinstance(error, DecodeError) else str(error)
                if trouble is not None:
                    found[position] = Finding(entries[position].id, *trouble)
                done += 1
                if progress is not None:
                    progress(done, len(entries))
    finally:
        pool.close()
    return [found[position] for position in sorted(found)]
