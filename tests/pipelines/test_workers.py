"""Decoding processes that die or hang cost a retry or a named error, and nothing outlives the loader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import ClipSpec, Loader, VideoIndex
from pipelines.decode import decode_frames
from pipelines.errors import WorkerError
from pipelines.workers import WorkerPool
from tests.conftest import REPOSITORY
from tests.pipelines.videos import listed, write_video

PATIENCE = 60.0  # seconds until a test calls it a hang


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", frames=20)


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes some tenths of a second to decode whole: time to be killed in."""
    return write_video(tmp_path_factory.mktemp("video") / "long.mp4", frames=40, size=(1080, 1920))


def collect(pool: WorkerPool, count: int) -> list[Any]:
    results: list[Any] = []
    deadline = time.monotonic() + PATIENCE
    while len(results) < count:
        assert time.monotonic() < deadline, "hangs"
        results += pool.collect()
    return results


def gone(pid: int) -> bool:
    """Whether no such process is left; a zombie counts as left."""
    return not Path(f"/proc/{pid}").exists()


def wait_until_gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if all(gone(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def kill_while_decoding(pool: WorkerPool) -> None:
    """Kill the pool's one process once it has begun its task."""
    process = pool._processes[0]
    deadline = time.monotonic() + PATIENCE
    while process.since is None:
        assert time.monotonic() < deadline
        assert pool.collect(0.005) == []
    os.kill(process.popen.pid, signal.SIGKILL)


def test_frames_come_back_through_shared_memory_as_they_were(video: Path) -> None:
    pool = WorkerPool(2)
    for key in range(10):
        pool.submit(key, "decode", str(video), np.arange(key + 1))
    results = {key: value for key, value, error in collect(pool, 10) if error is None}
    pool.close()
    whole = decode_frames(video, range(10))
    for key in range(10):  # after the processes have gone
        np.testing.assert_array_equal(results[key], whole[: key + 1])


def test_a_killed_process_costs_one_retry(long_video: Path, video: Path) -> None:
    pool = WorkerPool(1)
    pool.submit("long", "decode", str(long_video), np.arange(40))
    pool.submit("short", "decode", str(video), np.arange(3))
    kill_while_decoding(pool)
    results = {key: (value, error) for key, value, error in collect(pool, 2)}
    pool.close()
    assert results["long"][0].shape == (40, 1080, 1920, 3)
    assert results["short"][0].shape == (3, 96, 160, 3)


def test_a_file_that_kills_two_processes_is_named_and_the_rest_goes_on(long_video: Path, video: Path) -> None:
    pool = WorkerPool(1)
    pool.submit("long", "decode", str(long_video), np.arange(40))
    pool.submit("short", "decode", str(video), np.arange(3))
    kill_while_decoding(pool)
    first = pool.pids[0]
    while pool.pids[0] == first:
        assert pool.collect(0.005) == []
    kill_while_decoding(pool)
    results = {key: (value, error) for key, value, error in collect(pool, 2)}
    pool.close()
    assert results["long"][0] is None
    assert f"{long_video}: the decoding process died of it twice (SIGKILL)" in str(results["long"][1])
    assert results["short"][1] is None


def test_a_hanging_process_is_ended_and_its_file_named(video: Path) -> None:
    pool = WorkerPool(1, task_seconds=0.5)
    pool.submit(0, "decode", str(video), np.arange(3))
    collect(pool, 1)
    os.kill(pool.pids[0], signal.SIGSTOP)
    pool.submit(1, "decode", str(video), np.arange(3))
    pool.submit(2, "decode", str(video), np.arange(3))
    results = {key: error for key, _, error in collect(pool, 2)}
    pool.close()
    assert f"{video}: not decoded within" in str(results[1])
    assert results[2] is None


def test_processes_that_never_start_are_an_error(monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    pool = WorkerPool(1)
    pool.submit(0, "decode", str(video), np.arange(3))
    with pytest.raises(WorkerError, match=r"do not start \(exit status 1\)"):
        collect(pool, 1)
    pool.close()


def test_a_loader_survives_the_death_of_its_processes_with_the_same_batches(tmp_path: Path) -> None:
    names = [write_video(tmp_path / f"{number}.mp4", frames=30).name for number in range(12)]
    video_list = listed(tmp_path, names)
    index = VideoIndex.build(video_list, workers=0)
    spec = ClipSpec(num_segments=2, input_size=32, short_side=36)

    def run(kill: bool) -> list[list[float]]:
        sums = []
        with Loader(video_list, index, spec, batch_size=2, training=True, num_workers=2, prefetch=1) as source:
            for batch in source:
                if kill and not sums:
                    for pid in source._resources.maker.pids:  # type: ignore[attr-defined]
                        os.kill(pid, signal.SIGKILL)
                sums.append([*batch.ids.tolist(), batch.frames.double().sum().item()])
            assert source.failures == []
        return sums

    assert run(kill=True) == run(kill=False)


def test_closing_leaves_no_process_thread_or_open_file(tmp_path: Path) -> None:
    names = [write_video(tmp_path / f"{number}.mp4").name for number in range(6)]
    video_list = listed(tmp_path, names)
    index = VideoIndex.build(video_list, workers=0)
    spec = ClipSpec(num_segments=2, input_size=32, short_side=36)

    def once(abandon: bool) -> None:
        source = Loader(video_list, index, spec, batch_size=2, training=True, num_workers=2)
        pids = source._resources.maker.pids  # type: ignore[attr-defined]
        assert not any(gone(pid) for pid in pids)
        for _ in source:
            if abandon:
                break
        if abandon:
            del source
        else:
            source.close()
        assert all(gone(pid) for pid in pids)

    once(False)  # libraries open what they open on first use
    before = len(os.listdir("/proc/self/fd"))
    once(False)
    once(True)
    assert len(os.listdir("/proc/self/fd")) <= before


SCRIPT = """
import sys
from pipelines import ClipSpec, Loader, VideoIndex, VideoList
video_list = VideoList.read(sys.argv[1])
loader = Loader(video_list, VideoIndex.build(video_list, workers=0), ClipSpec(num_segments=2, input_size=32, short_side=36),
                batch_size=2, training=True, num_workers=2)
print(*loader._resources.maker.pids, flush=True)
while True:
    for batch in loader:
        print("batch", flush=True)
        if sys.argv[2] == "error":
            raise RuntimeError("a bug in the user's loop")
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["interrupt", "kill", "error"])
def test_however_the_main_process_ends_its_processes_end(tmp_path: Path, end: str) -> None:
    listed(tmp_path, [write_video(tmp_path / f"{number}.mp4").name for number in range(6)])
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "list.txt"), end]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        assert process.stdout.readline() == "batch\n"
        if end != "error":
            process.send_signal(signal.SIGINT if end == "interrupt" else signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE)
    assert wait_until_gone(pids)
    if end == "interrupt":
        assert "KeyboardInterrupt" in errors
    if end == "error":
        assert "a bug in the user's loop" in errors
        assert process.returncode == 1
