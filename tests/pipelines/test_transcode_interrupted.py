"""However transcoding ends, running it again completes it: killed runs, dying workers, full disks."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from pipelines import VideoIndex, VideoList
from pipelines.transcode import TranscodeSettings, transcode
from pipelines.transcode.errors import OutputError
from pipelines.transcode.ledger import LEDGER, SCRATCH
from tests.conftest import REPOSITORY
from tests.pipelines.videos import listed, write_video

PATIENCE = 120.0  # seconds until a test calls it a hang
SCRIPT = """
import resource, sys
from pipelines import VideoIndex, VideoList
from pipelines.errors import DataError
from pipelines.transcode import transcode
videos = VideoList.read(sys.argv[1], root=sys.argv[2])
index = VideoIndex.build(videos, workers=0)
if len(sys.argv) > 4:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
try:
    transcode(videos, index, sys.argv[3], workers=2)
except DataError as error:
    sys.exit(str(error))
"""


def start(videos: VideoList, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(videos.source), str(videos.root), str(out), *more]
    return subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "hangs"
        time.sleep(0.002)


def finished(out: Path) -> dict[str, int]:
    """Time of change of each copy that has its name and its row."""
    try:
        lines = (out / LEDGER).read_text().split("\n")[:-1]
    except FileNotFoundError:
        return {}
    rows = [row for row in map(json.loads, lines) if "copy" in row]
    return {row["copy"]: row["state"][1] for row in rows if (out / row["copy"]).exists()}


def check_complete(videos: VideoList, out: Path) -> None:
    """Every video of the list once, whole, and nothing else in the folder."""
    copies = VideoList.read(out / f"{videos.name}.txt")
    assert [entry.label for entry in copies.entries] == [entry.label for entry in videos.entries]
    names = [str(Path(entry.id).with_suffix(".mp4")) for entry in videos.entries]
    assert [entry.id for entry in copies.entries] == names
    before, after = VideoIndex.build(videos, workers=0), VideoIndex.build(copies, workers=0, verify=True)
    for source, copy in zip(videos.entries, copies.entries, strict=True):
        assert (after[copy].num_frames, after[copy].error) == (before[source].num_frames, None), copy.id
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {*names, LEDGER, f"{videos.name}.txt", f"{videos.name}.index.sqlite"}
    rows = [json.loads(line) for line in (out / LEDGER).read_text().splitlines()]
    assert {row["copy"]: row["source"] for row in rows if "copy" in row} == {
        name: str(entry.path) for name, entry in zip(names, videos.entries, strict=True)
    }


def kill_and_complete(videos: VideoList, out: Path, kills: int, seed: int) -> None:
    """SIGKILL runs at random moments until `kills` have died of it, then let one finish."""
    rng = random.Random(seed)
    done = 0
    kept: dict[str, int] = {}
    while done < kills:
        process = start(videos, out)
        target = len(finished(out)) + rng.randrange(4)
        wait_for(lambda: len(finished(out)) >= target or process.poll() is not None)  # noqa: B023
        time.sleep(
            rng.random() * 0.1
        )  # a file takes some twentieths of a second; few enough for every kill to find work
        process.kill()
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGKILL, f"ended before it was killed, {done} kills done: {errors}"
        done += 1
        now = finished(out)
        assert kept.items() <= now.items()  # what was finished stays, untouched
        kept = now
    process = start(videos, out)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
    check_complete(videos, out)
    assert kept.items() <= finished(out).items()


def fights(real_videos: Path, folder: Path, count: int) -> VideoList:
    root = real_videos / "fights"
    files = sorted(root.rglob("*.mp4"), key=lambda path: (path.stat().st_size, path))[:count]
    return listed(folder, [path.relative_to(root) for path in files], root)


@pytest.mark.slow
def test_a_run_killed_twice_is_completed_by_the_next(real_videos: Path, tmp_path: Path) -> None:
    kill_and_complete(fights(real_videos, tmp_path, 14), tmp_path / "out", kills=2, seed=1)


@pytest.mark.prove
def test_a_run_killed_ten_times_is_completed_by_the_next(real_videos: Path, tmp_path: Path) -> None:
    videos = fights(real_videos, tmp_path, 60)
    kill_and_complete(videos, tmp_path / "out", kills=10, seed=int(time.time()))
    process = start(videos, tmp_path / "at once")
    assert process.wait(PATIENCE) == 0
    for entry in VideoList.read(tmp_path / "out" / "list.txt").entries:
        pieces, whole = (sha256((tmp_path / name / entry.id).read_bytes()) for name in ("out", "at once"))
        assert pieces.digest() == whole.digest(), entry.id


def test_what_a_killed_run_left_unfinished_is_removed(tmp_path: Path) -> None:
    videos = listed(tmp_path, [write_video(tmp_path / "a.mp4", frames=6).name])
    left = tmp_path / "out" / SCRATCH / "1-abc" / "0.mp4"
    process = start(videos, tmp_path / "out")
    assert process.wait(PATIENCE) == 0
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a video")
    process = start(videos, tmp_path / "out")
    assert process.wait(PATIENCE) == 0
    check_complete(videos, tmp_path / "out")


@contextmanager
def killing_workers(out: Path, name: str, times: int) -> Iterator[list[int]]:
    """SIGKILL the first `times` worker processes of this process that write the unfinished file `name`."""
    killed: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() and len(killed) < times:
            for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
                try:
                    status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    if int(status[1]) != os.getpid() or pid in killed:
                        continue
                    files = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
                except OSError:  # it has ended
                    continue
                if any(file.startswith(str(out / SCRATCH)) and Path(file).name == name for file in files):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> VideoList:
    """A list of a video that takes about a second, and two small ones."""
    folder = tmp_path_factory.mktemp("large")
    write_video(folder / "a.mp4", frames=60, size=(720, 1280))
    for name in ("b.mp4", "c.mp4"):
        write_video(folder / name, frames=6)
    return listed(folder, ["a.mp4", "b.mp4", "c.mp4"])


def test_a_worker_that_dies_costs_one_retry(large: VideoList, tmp_path: Path) -> None:
    index = VideoIndex.build(large, workers=0)
    with killing_workers(tmp_path / "out", "0.mp4", 1) as killed:
        done = transcode(large, index, tmp_path / "out", workers=1)
    assert len(killed) == 1
    assert (done.written, done.unreadable) == (3, [])
    check_complete(large, tmp_path / "out")


def test_a_video_that_kills_its_workers_is_left_out_and_tried_again_by_the_next_run(
    large: VideoList, tmp_path: Path
) -> None:
    out, index = tmp_path / "out", VideoIndex.build(large, workers=0)
    with killing_workers(out, "0.mp4", 2) as killed:
        done = transcode(large, index, out, workers=1)
    assert len(killed) == 2
    ((entry, reason),) = done.unreadable
    assert entry.id == "a.mp4"
    assert "died of it twice (SIGKILL)" in reason
    assert [entry.id for entry in done.videos.entries] == ["b.mp4", "c.mp4"]
    assert (out / "unreadable.txt").read_text() == f"list.txt\ta.mp4\t{reason}\n"
    done = transcode(large, index, out, workers=1)
    assert (done.written, done.kept, done.unreadable) == (1, 2, [])
    check_complete(large, out)


def test_a_file_size_limit_stops_the_run_and_loses_nothing(real_videos: Path, tmp_path: Path) -> None:
    videos = listed(tmp_path, ["rot_0.mov", "k400_SOX5yA1l24A.mp4", "rot_90.mov"], real_videos / "codecs")
    process = start(videos, tmp_path / "out", "200000")
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "cannot write" in errors
    assert "File too large; " in errors
    assert "of 3 videos are left: make room and run it again" in errors
    assert not (tmp_path / "out" / "k400_SOX5yA1l24A.mp4").exists()
    kept = finished(tmp_path / "out")
    process = start(videos, tmp_path / "out")
    assert process.wait(PATIENCE) == 0
    check_complete(videos, tmp_path / "out")
    assert kept.items() <= finished(tmp_path / "out").items()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs more rights than this user has")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_the_run_and_loses_nothing(real_videos: Path, tmp_path: Path) -> None:
    videos = listed(tmp_path, ["rot_0.mov", "rot_180.mov", "k400_SOX5yA1l24A.mp4"], real_videos / "codecs")
    index = VideoIndex.build(videos, workers=0)
    with small_disk(tmp_path / "disk", "1m"):
        out = tmp_path / "disk" / "out"
        out.mkdir()
        (tmp_path / "disk" / "ballast").write_bytes(bytes(700_000))
        with pytest.raises(OutputError, match=r"No space left on device; \d of 3 videos are left: make room and run"):
            transcode(videos, index, out, workers=1)
        assert set(finished(out)) == {"rot_0.mp4", "rot_180.mp4"}
        kept = finished(out)
        (tmp_path / "disk" / "ballast").unlink()
        done = transcode(videos, index, out, TranscodeSettings(), workers=1)
        assert (done.written, done.kept, done.unreadable) == (1, 2, [])
        check_complete(videos, out)
        assert kept.items() <= finished(out).items()
