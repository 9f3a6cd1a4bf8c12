"""The deep check names every kind of damage; a process that crashes or hangs on a file is a finding and not the end."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipelines import VideoIndex
from pipelines.check import Finding, check_deep, findings_of
from tests.pipelines.damage import KINDS, damage
from tests.pipelines.videos import codecs, listed, write_frames, write_video


def check(folder: Path, names: list[str], root: Path | None = None, **options: float) -> dict[str, Finding]:
    video_list = listed(folder, names, root)
    index = VideoIndex.build(video_list, workers=0)
    return {finding.id: finding for finding in check_deep(video_list, index, workers=1, **options)}  # type: ignore[arg-type]


def test_of_real_files_just_the_two_bad_ones_are_found(real_videos: Path, tmp_path: Path) -> None:
    small = [r["file"] for r in codecs(real_videos) if int(r["w"] or 0) * int(r["h"] or 0) < 640 * 480]
    found = check(tmp_path, [*small, "corrupted.mp4"], real_videos / "codecs")
    assert {name: finding.kind for name, finding in found.items()} == {
        "audio_only_nasa.mp3": "unreadable",
        "corrupted.mp4": "decode error",
    }
    assert "fails after 28 of 50 frames" in found["corrupted.mp4"].reason


def cut(path: Path, part: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])


def test_files_that_break_off_are_told_from_damaged_ones(real_videos: Path, tmp_path: Path) -> None:
    source = real_videos / "codecs"
    names = ["hmdb51_TrumanShow_wave.avi", "ssv2_id166766_webm_named_mp4.mp4", "phone_rot180_vfr.mp4", "rot_90.mov"]
    for name in names:
        shutil.copy(source / name, tmp_path)
    cut(tmp_path / names[0], 0.9)
    cut(tmp_path / names[1], 0.9)
    cut(tmp_path / names[2], 0.9)
    data = bytearray((tmp_path / names[3]).read_bytes())
    at = data.index(b"mdat") + 3000
    data[at : at + 200] = bytes(200)
    (tmp_path / names[3]).write_bytes(data)
    found = check(tmp_path, names)
    assert [found[name].kind for name in names] == ["truncated", "truncated", "truncated", "decode error"]
    assert "breaks off after" in found[names[2]].reason
    assert "of 25 frames" in found[names[2]].reason
    assert "seconds; " in found[names[1]].reason


def test_a_file_that_changed_behind_the_index_has_another_frame_count(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=10)
    video_list = listed(tmp_path, ["a.mp4"])
    index = VideoIndex.build(video_list, workers=0)
    write_video(tmp_path / "a.mp4", frames=14)
    (finding,) = check_deep(video_list, index, workers=0)
    assert (finding.kind, finding.reason) == ("frame count", "14 frames decode, the index counted 10")


def test_frame_folders_are_decoded_image_by_image(tmp_path: Path) -> None:
    write_frames(tmp_path / "good", 4)
    write_frames(tmp_path / "bad", 4)
    cut(tmp_path / "bad" / "00003.jpg", 0.5)
    (tmp_path / "l.txt").write_text("good 4 0\nbad 4 1\n")
    (finding,) = check(tmp_path, ["good", "bad"]).values()
    assert (finding.id, finding.kind) == ("bad", "decode error")
    assert finding.reason.startswith("00003.jpg: ")


def test_without_decoding_the_index_tells_what_it_knows(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", frames=4)
    video_list = listed(tmp_path, ["a.mp4", "missing.mp4"])
    found = findings_of(video_list, VideoIndex.build(video_list, workers=0))
    assert found == [Finding("missing.mp4", "unreadable", "no such file")]


@pytest.fixture(scope="module")
def slow_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes some tenths of a second to decode: time to be signalled in."""
    return write_video(tmp_path_factory.mktemp("slow") / "slow.mp4", frames=60, size=(720, 1280))


@contextmanager
def signal_whoever_opens(path: Path, number: int) -> Iterator[None]:
    """Send a signal to every child process that has `path` open, once each, for as long as this lasts."""
    stop = threading.Event()

    def watch() -> None:
        met: set[int] = set()
        while not stop.is_set():
            for child in psutil.Process().children():
                if child.pid not in met and opened(child.pid, path):
                    met.add(child.pid)
                    os.kill(child.pid, number)
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def opened(pid: int, path: Path) -> bool:
    try:
        return any(os.path.samefile(fd, path) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.exists())
    except OSError:
        return False


def test_a_crash_is_a_finding_that_names_the_signal_and_the_rest_is_checked(slow_video: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4")
    write_video(tmp_path / "cut.avi", "mpeg4")
    cut(tmp_path / "cut.avi", 0.7)
    with signal_whoever_opens(slow_video, signal.SIGSEGV):
        found = check(tmp_path, ["good.mp4", str(slow_video), "cut.avi"])
    assert {name: finding.kind for name, finding in found.items()} == {str(slow_video): "crash", "cut.avi": "truncated"}
    assert "SIGSEGV" in found[str(slow_video)].reason


def test_a_hang_is_a_finding_after_the_time_for_one_file(slow_video: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4")
    with signal_whoever_opens(slow_video, signal.SIGSTOP):
        found = check(tmp_path, ["good.mp4", str(slow_video)], seconds=2.0)
    assert {name: finding.kind for name, finding in found.items()} == {str(slow_video): "hang"}
    assert "within 2 seconds" in found[str(slow_video)].reason


def test_of_files_damaged_in_every_way_all_are_found_that_show_it(real_videos: Path, tmp_path: Path) -> None:
    """One file in each codec, damaged in each way; doubled and renamed ones are sound as far as a decoder can tell."""
    sources = ["hmdb51_TrumanShow_wave.avi", "h265_video.mp4", "ssv2_id166766_webm_named_mp4.mp4"]
    made = {
        name: kind for source in sources for kind, name in damage(real_videos / "codecs" / source, tmp_path).items()
    }
    found = check(tmp_path, list(made))
    assert set(made.values()) == set(KINDS)
    missed = {(name, kind) for name, kind in made.items() if name not in found}
    sound = {"doubled", "renamed"} | ({"forbidden"} if os.geteuid() == 0 else set())  # root may read everything
    assert {kind for _, kind in missed} <= sound
    kinds = {kind: {finding.kind for name, finding in found.items() if made[name] == kind} for kind in KINDS}
    for kind in ("empty", "folder", "noise", "headless"):
        assert kinds[kind] <= {"unreadable", "decode error"}
