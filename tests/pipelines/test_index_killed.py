"""An index build that is killed, at any moment and as often as one likes, goes on where it was: nothing lost, nothing twice."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from pipelines import VideoIndex, VideoList
from pipelines.probe import probe
from tests.conftest import REPOSITORY

BUILD = """
import sys
from pipelines import VideoIndex, VideoList
print("started", flush=True)
tell = lambda done, total: print("at work", flush=True) if done == 1 else None
VideoIndex.build(VideoList.read(sys.argv[1]), workers=2, progress=tell)
"""


def rows(store: Path) -> set[str]:
    """The keys that a reader finds, each once."""
    if not store.exists():
        return set()
    with closing(sqlite3.connect(store, timeout=30)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return set()
        keys = [key for (key,) in connection.execute("SELECT key FROM videos")]
    assert len(set(keys)) == len(keys)
    return set(keys)


def kill_with_children_watched(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL; its decoding processes must then end by themselves."""
    children = psutil.Process(process.pid).children() if process.poll() is None else []
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []


@pytest.mark.parametrize(
    ("kills", "videos"),
    [
        pytest.param(2, 1500, marks=pytest.mark.slow),
        pytest.param(10, 8000, marks=[pytest.mark.prove, pytest.mark.timeout(900)]),
    ],
)
def test_a_killed_build_goes_on_where_it_was(real_videos: Path, tmp_path: Path, kills: int, videos: int) -> None:
    sources = sorted((real_videos / "fights").glob("*/*.mp4"))
    names = [f"{number:05}.mp4" for number in range(videos)]
    for number, name in enumerate(names):
        (tmp_path / name).symlink_to(sources[number % len(sources)])
    (tmp_path / "list.txt").write_text("".join(f"{name} 0\n" for name in names))
    store = tmp_path / "list.index.sqlite"
    moments = random.Random(0)
    known: set[str] = set()
    interrupted = 0
    while interrupted < kills:
        command = [sys.executable, "-c", BUILD, str(tmp_path / "list.txt")]
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            if interrupted % 4 != 3:  # else it dies while it begins
                process.stdout.readline()
            time.sleep(moments.uniform(0.0, 2.5))
            finished = process.poll() is not None
            kill_with_children_watched(process)
        found = rows(store)
        assert known <= found  # nothing lost
        if finished:  # a fast machine: begin anew
            assert len(found) == videos
            store.unlink()
            found = set()
        interrupted += not finished
        known = found
    probed: list[int] = []
    video_list = VideoList.read(tmp_path / "list.txt")
    index = VideoIndex.build(video_list, workers=2, progress=lambda done, total: probed.append(total))
    assert set(probed) <= {videos - len(known)}  # what was saved is not looked at again
    assert rows(store) == set(names)
    truth = [probe(str(source), None, None, False) for source in sources]
    assert [index[entry] for entry in video_list.entries] == [truth[number % len(sources)] for number in range(videos)]
    print(f"{interrupted} kills; {len(known)} of {videos} rows were there before the last run")
