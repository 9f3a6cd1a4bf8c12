"""Memory, open files and threads stay as they are, however many clips a loader has given."""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines import ClipSpec, Loader, VideoIndex, VideoList
from tests.pipelines.videos import listed, write_frames, write_video

SPEC = ClipSpec(num_segments=2, input_size=32, short_side=36)
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    own_mb: float
    workers_mb: float
    files: int
    threads: int


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


def usage(loader: Loader) -> Usage:
    gc.collect()
    pids = loader._resources.maker.pids
    return Usage(
        resident_mb(os.getpid()),
        sum(map(resident_mb, pids)),
        sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in (os.getpid(), *pids)),
        threading.active_count(),
    )


def soak(video_list: VideoList, warm_up: int, clips: int) -> tuple[Usage, Usage, Loader]:
    """What is used after `warm_up` clips, and after `clips` more, in epochs of which some are abandoned."""
    index = VideoIndex.build(video_list, workers=0)
    write_video(Path(video_list.entries[3].path), frames=2)  # the index does not know, so it fails in every epoch
    loader = Loader(video_list, index, SPEC, batch_size=8, training=True, num_workers=2)
    before: Usage | None = None
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        for step, _ in enumerate(loader):
            if epoch % 5 == 4 and step == 1:
                break
        epoch += 1
        given = loader.stats().clips
        if before is None and given >= warm_up:
            before = usage(loader)
        if given >= warm_up + clips:
            assert before is not None
            return before, usage(loader), loader


@pytest.fixture
def video_list(tmp_path: Path) -> VideoList:
    """Forty-eight: files of three codecs and many sizes, frame folders, one that ends early."""
    names = []
    for number in range(48):
        codec, suffix = (("libx264", "mp4"), ("libvpx-vp9", "webm"), ("mjpeg", "avi"), ("", ""))[number % 4]
        if suffix:
            size = (48 + 2 * (number % 7), 64 + 2 * (number % 5))
            names.append(write_video(tmp_path / f"{number}.{suffix}", codec, frames=9 + number % 4, size=size).name)
        else:
            names.append(write_frames(tmp_path / str(number), 6).name)
    names[3] = write_video(tmp_path / "short.mp4", frames=12).name
    return listed(tmp_path, names)


def test_a_thousand_clips_leave_nothing_behind(video_list: VideoList) -> None:
    before, after, loader = soak(video_list, 500, 1_000)
    with loader:
        assert [failure.name for failure in loader.failures] == ["short.mp4"]
        assert after.own_mb - before.own_mb < 25, (before, after)
        assert after.workers_mb - before.workers_mb < 25, (before, after)
        assert after.files <= before.files + 4  # frames on their way are files
        assert after.threads <= before.threads


@pytest.mark.prove
def test_twenty_thousand_clips_take_less_than_50_mb(video_list: VideoList) -> None:
    before, after, loader = soak(video_list, 2_000, 20_000)
    with loader:
        print(f"after 2,000 clips {before}\nafter {loader.stats().clips:,} clips {after}\n{loader.stats()}")
        assert after.own_mb - before.own_mb < 50
        assert after.workers_mb - before.workers_mb < 50
        assert after.files <= before.files + 4
        assert after.threads <= before.threads
