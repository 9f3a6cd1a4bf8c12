"""The index counts what decodes, remembers it, and notices changes; a bad file is a line in it, never a crash."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines import VideoIndex, VideoList
from pipelines import index as index_module
from pipelines.errors import DataError
from tests.pipelines.videos import codecs, listed, write_frames, write_video


def test_every_real_file_is_counted_as_it_decodes(real_videos: Path, tmp_path: Path) -> None:
    rows = codecs(real_videos)
    video_list = listed(tmp_path, [row["file"] for row in rows], real_videos / "codecs")
    index = VideoIndex.build(video_list)
    assert index.store == tmp_path / "list.index.sqlite"
    for entry, row in zip(video_list.entries, rows, strict=True):
        info = index[entry]
        if row["error"] == "no video stream":
            assert info.error == "has no video stream"
            continue
        assert info.error is None, entry.id
        if row["error"]:
            assert info.num_frames == int(row["header"])  # only decoding can tell; see the verified index below
            continue
        assert info.num_frames == int(row["decoded"]), entry.id
        turned = abs(int(row["rot"])) == 90
        assert (info.height, info.width) == (
            (int(row["w"]), int(row["h"])) if turned else (int(row["h"]), int(row["w"]))
        )
        assert info.rotation == int(row["rot"]) % 360
        assert info.keyframes[0] == 0 or "discard" in entry.id
        assert info.bytes == entry.path.stat().st_size
    inexact = {entry.id for entry in video_list.entries if not index[entry].exact}
    assert {"discard_first_keyframe.mp4", "nasa_two_video_streams.mp4", "hmdb51_TrumanShow_wave.avi"} <= inexact
    assert not any(name.startswith(("k400", "vp", "rot", "bikes")) for name in inexact)


def test_an_index_of_files_by_name_is_kept_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither beside the videos, nor in the working folder, nor in the cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write_video(tmp_path / "clip.mp4", frames=9)
    video_list = VideoList.from_files("clip.mp4", "missing.mp4")
    index = VideoIndex.build(video_list, workers=0)
    assert (index.store, index[video_list.entries[0]].num_frames) == (None, 9)
    assert [entry.id for entry, _ in index.unreadable(video_list)] == ["missing.mp4"]
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    named = VideoIndex.build(video_list, tmp_path / "asked.sqlite", workers=0)
    assert named.store == tmp_path / "asked.sqlite"


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_tiny_packets_of_mpeg4_that_are_frames_are_counted(tmp_path: Path, suffix: str) -> None:
    """A still picture makes packets as small as the placeholders that show nothing."""
    path = write_video(tmp_path / f"still{suffix}", "mpeg4", frames=30, size=(48, 64), level=100)
    video_list = listed(tmp_path, [path.name])
    info = VideoIndex.build(video_list, workers=0)[video_list.entries[0]]
    assert (info.num_frames, info.exact, info.duration) == (30, False, pytest.approx(1.2))


def test_verifying_decodes_every_frame(real_videos: Path, tmp_path: Path) -> None:
    video_list = listed(tmp_path, ["corrupted.mp4", "hmdb51_TrumanShow_wave.avi"], real_videos / "codecs")
    assert VideoIndex.build(video_list, workers=0).unreadable(video_list) == []
    index = VideoIndex.build(video_list, workers=0, verify=True)
    ((entry, reason),) = index.unreadable(video_list)
    assert entry.id == "corrupted.mp4"
    assert "28 of 50" in reason
    assert index[video_list.entries[1]].num_frames == 48
    assert len(VideoIndex.build(video_list, workers=0).unreadable(video_list)) == 1  # what was verified stays known


def build_counting(video_list: VideoList, **options: object) -> tuple[VideoIndex, int]:
    calls: list[tuple[int, int]] = []
    index = VideoIndex.build(video_list, workers=0, progress=lambda *c: calls.append(c), **options)  # type: ignore[arg-type]
    assert [done for done, _ in calls] == list(range(1, len(calls) + 1))
    return index, len(calls)


def test_only_new_and_changed_files_are_probed_again(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"{name}.mp4", frames=10)
    video_list = listed(tmp_path, ["a.mp4", "b.mp4"])
    assert build_counting(video_list)[1] == 2
    assert build_counting(video_list)[1] == 0
    write_video(tmp_path / "b.mp4", frames=14)
    video_list = listed(tmp_path, ["a.mp4", "b.mp4", "c.mp4", "missing.mp4"])
    index, probed = build_counting(video_list)
    assert probed == 3
    assert index[video_list.entries[1]].num_frames == 14
    assert index[video_list.entries[3]].error == "no such file"
    shutil.copy(tmp_path / "a.mp4", tmp_path / "missing.mp4")
    index, probed = build_counting(video_list)
    assert probed == 1
    assert index.unreadable(video_list) == []


def test_moved_data_keep_their_index(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    write_video(tmp_path / "old" / "a.mp4")
    video_list = listed(tmp_path / "old", ["a.mp4"])
    assert build_counting(video_list)[1] == 1
    (tmp_path / "old").rename(tmp_path / "new")
    assert build_counting(VideoList.read(tmp_path / "new" / "list.txt"))[1] == 0


def test_where_the_list_cannot_be_written_beside_the_cache_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = tmp_path / "data"
    data.mkdir()
    write_video(data / "a.mp4")
    video_list = listed(data, ["a.mp4"])
    (data / "list.index.sqlite").mkdir()  # stands in the way, for root as well
    index, _ = build_counting(video_list)
    assert index.store is not None
    assert index.store.is_relative_to(tmp_path / "cache")
    assert build_counting(video_list)[1] == 0


def test_foreign_and_damaged_stores_are_refused_and_left_alone(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    video_list = listed(tmp_path, ["a.mp4"])
    text = (tmp_path / "list.txt").read_bytes()
    with pytest.raises(DataError, match=r"list\.txt.*delete it"):
        VideoIndex.build(video_list, store=tmp_path / "list.txt", workers=0)
    assert (tmp_path / "list.txt").read_bytes() == text
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE precious (x)")
    with pytest.raises(DataError, match="another program"):
        VideoIndex.build(video_list, store=tmp_path / "other.sqlite", workers=0)


def test_two_builders_and_readers_at_once(tmp_path: Path) -> None:
    names = [write_video(tmp_path / f"{number}.mp4", frames=5).name for number in range(12)]
    listed(tmp_path, names)
    script = (
        "import sys; from pipelines import VideoIndex, VideoList\n"
        "v = VideoList.read(sys.argv[1])\n"
        "for _ in range(5): print(sum(VideoIndex.build(v, workers=0)[e].num_frames for e in v.entries))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "list.txt")]
    builders = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for builder in builders:
        out, err = builder.communicate(timeout=120)
        assert builder.returncode == 0, err
        assert out.split() == ["60"] * 5


def test_special_files_are_errors_not_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "empty.mp4").touch()
    video_list = listed(tmp_path, ["pipe.mp4", "folder.mp4", "empty.mp4"])
    reasons = [reason for _, reason in VideoIndex.build(video_list, workers=1).unreadable(video_list)]
    assert reasons == ["is not a regular file", "is a folder without images", "is empty (0 bytes)"]


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may read everything: take another user's rights for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_no_permission_and_impossible_names_are_errors(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.mp4").chmod(0)
    (tmp_path / "closed").mkdir(mode=0)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    names = ["secret.mp4", "closed", "closed/a.mp4", "x" * 300 + ".mp4", "a\0b.mp4"]
    video_list = listed(tmp_path, names)
    with ordinary_user():
        index = VideoIndex.build(video_list, workers=0)
    reasons = [reason for _, reason in index.unreadable(video_list)]
    assert reasons[:3] == ["permission denied"] * 3
    assert "too long" in reasons[3]
    assert "null" in reasons[4]


def test_frame_folders(tmp_path: Path) -> None:
    write_frames(tmp_path / "plain", 5)
    write_frames(tmp_path / "img", 6, template="img_{:05}.jpg")
    write_frames(tmp_path / "odd", 3, template="x{}.jpg")
    (tmp_path / "l.txt").write_text("plain 4 0\nimg 7 1\nodd 3 2\n")
    video_list = VideoList.read(tmp_path / "l.txt")
    index = VideoIndex.build(video_list, workers=0)
    plain, img, odd = (index[entry] for entry in video_list.entries)
    assert (plain.num_frames, plain.template, plain.height, plain.width) == (4, "{:05}.jpg", 60, 80)
    assert img.error == "the list claims 7 frames, but 'img_00007.jpg' is missing"
    assert odd.error is not None
    assert "image template" in odd.error
    given = VideoList.read(tmp_path / "l.txt", template="x{}.jpg")
    assert VideoIndex.build(given, workers=0)[given.entries[2]].num_frames == 3


def test_a_store_of_another_version_is_built_again(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4")
    video_list = listed(tmp_path, ["a.mp4"])
    index, _ = build_counting(video_list)
    assert index.store is not None
    with sqlite3.connect(index.store) as connection:
        connection.execute("PRAGMA user_version = 999")
        connection.execute("ALTER TABLE videos DROP COLUMN fps")
    assert build_counting(video_list)[1] == 1
    assert build_counting(video_list)[1] == 0


HALF_WRITTEN = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 2")  # so that pages reach the file before the transaction ends
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE videos SET num_frames = -1, error = hex(zeroblob(2000))")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_writer_killed_in_the_middle_of_a_write_leaves_the_rows_as_they_were(tmp_path: Path) -> None:
    names = [write_video(tmp_path / f"{number}.mp4", frames=3).name for number in range(20)]
    video_list = listed(tmp_path, names)
    index, _ = build_counting(video_list)
    assert index.store is not None
    subprocess.run([sys.executable, "-c", HALF_WRITTEN, str(index.store)], check=False)
    assert index.store.with_name(index.store.name + "-journal").exists()
    again, probed = build_counting(video_list)
    assert probed == 0
    assert [again[entry].num_frames for entry in video_list.entries] == [3] * 20


def test_where_the_disk_answers_slowly_it_is_asked_many_things_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No disk across a network can be had here: its delay is added to the real answers."""
    (tmp_path / "real.mp4").write_bytes(bytes(7))
    names = [f"{number}.mp4" for number in range(600)]
    for name in names:
        (tmp_path / name).symlink_to("real.mp4")
    video_list = listed(tmp_path, [*names, "gone.mp4"])
    assert build_counting(video_list)[1] == 601
    asked_by: set[int] = set()
    real_state = index_module._state

    def slow_state(file: str) -> os.stat_result | None:
        asked_by.add(threading.get_ident())
        time.sleep(0.0005)
        return real_state(file)

    assert build_counting(video_list)[1] == 1  # the missing one is looked for again
    monkeypatch.setattr(index_module, "_state", slow_state)
    assert build_counting(video_list)[1] == 1
    assert len(asked_by) > 8
    (tmp_path / "599.mp4").unlink()
    (tmp_path / "599.mp4").write_bytes(bytes(8))
    assert build_counting(video_list)[1] == 2
