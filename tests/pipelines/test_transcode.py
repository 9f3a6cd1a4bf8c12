"""A folder of copies: names, settings, labels and lists never mix, and nothing is made twice."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines import VideoIndex, VideoList
from pipelines.decode import decode_frames
from pipelines.errors import DataError
from pipelines.transcode import TranscodeSettings, TranscodeSummary, transcode
from tests.pipelines.videos import listed, write_frames, write_video


def run(videos: VideoList, out: Path, **settings: Any) -> TranscodeSummary:
    index = VideoIndex.build(videos, workers=0)
    return transcode(videos, index, out, TranscodeSettings(**settings), workers=2)


def test_two_sources_never_share_a_name_and_keep_theirs(tmp_path: Path) -> None:
    for name in ("a.avi", "a.mkv", "a.mp4", "x/a.avi", "a.avi.mp4", "plain"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(write_video(tmp_path / "any.mp4", frames=5), tmp_path / name)
    done = run(listed(tmp_path, ["a.avi", "x/a.avi"]), tmp_path / "out")
    assert [entry.id for entry in done.videos.entries] == ["a.mp4", "x/a.mp4"]
    names = ["a.mkv", "a.mp4", "a.avi.mp4", "a.avi", "x/a.avi", "plain", str(tmp_path / "any.mp4")]
    done = run(listed(tmp_path, names), tmp_path / "out")
    assert [entry.id for entry in done.videos.entries] == [
        "a.mkv.mp4", "a.mp4.mp4", "a.avi.mp4", "a.mp4", "x/a.mp4", "plain.mp4", "any.mp4",
    ]  # fmt: skip
    assert (done.written, done.kept) == (5, 2)


def test_a_source_outside_the_root_stays_inside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    write_video(tmp_path / "a.mp4", frames=5)
    done = run(listed(tmp_path / "lists", ["../a.mp4", str(tmp_path / "lists" / ".." / "a.mp4")]), tmp_path / "out")
    assert [entry.id for entry in done.videos.entries] == ["a.mp4", "a.mp4.mp4"]
    assert all(entry.path.resolve().is_relative_to(tmp_path / "out") for entry in done.videos.entries)


def test_absolute_paths_become_places_below_the_folder_that_holds_them_and_stay(tmp_path: Path) -> None:
    """Also where a later list shows that this folder lies higher, and where a name within the root is the same."""
    for name in ("data/new/x/a.mp4", "data/new/y/a.mp4", "data/old/a.mp4", "lists/x/a.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / name, frames=5)
    data, out = tmp_path / "data", tmp_path / "out"
    names: list[str | Path] = [data / "new/x/a.mp4", data / "new/y/a.mp4"]
    done = run(listed(tmp_path / "lists", names), out)
    assert [entry.id for entry in done.videos.entries] == ["x/a.mp4", "y/a.mp4"]
    names += [data / "old/a.mp4", "x/a.mp4"]
    for written, kept in ((2, 2), (0, 4)):
        done = run(listed(tmp_path / "lists", names), out)
        assert [entry.id for entry in done.videos.entries] == ["x/a.mp4", "y/a.mp4", "old/a.mp4", "x/a.mp4.mp4"]
        assert (done.written, done.kept) == (written, kept)
    one = run(listed(tmp_path / "lists", [data / "old/a.mp4"]), tmp_path / "other")
    assert [entry.id for entry in one.videos.entries] == ["a.mp4"]


def test_lists_with_equal_names_inside_share_a_folder_without_overwriting(tmp_path: Path) -> None:
    for part, level in (("train", 0), ("val", 255)):
        (tmp_path / part).mkdir()
        write_video(tmp_path / part / "a.mp4", frames=5, level=level)
        (tmp_path / f"{part}.txt").write_text("a.mp4 0\nmissing.mp4 0\n")
    (tmp_path / "labels.txt").write_text("clapping hands\n")
    for part in ("train", "val"):
        run(VideoList.read(tmp_path / f"{part}.txt", root=tmp_path / part), tmp_path / "out")
    train, val = (VideoList.read(tmp_path / "out" / f"{part}.txt") for part in ("train", "val"))
    assert train.labels == val.labels == ["clapping hands"]
    assert [entry.id for entry in (*train.entries, *val.entries)] == ["a.mp4", "a.mp4.mp4"]
    assert decode_frames(train.entries[0].path, [0]).mean() < 5
    assert decode_frames(val.entries[0].path, [0]).mean() > 250
    reasons = (tmp_path / "out" / "unreadable.txt").read_text()
    assert reasons == "train.txt\tmissing.mp4\tno such file\nval.txt\tmissing.mp4\tno such file\n"
    write_video(tmp_path / "val" / "missing.mp4", frames=5)
    run(VideoList.read(tmp_path / "val.txt", root=tmp_path / "val"), tmp_path / "out")
    assert (tmp_path / "out" / "unreadable.txt").read_text() == "train.txt\tmissing.mp4\tno such file\n"


def test_only_what_is_missing_or_changed_is_copied_again(tmp_path: Path) -> None:
    names = [write_video(tmp_path / f"{name}.mp4", frames=6).name for name in "abcd"]
    videos, out = listed(tmp_path, names), tmp_path / "out"
    first = run(videos, out)
    assert (first.written, first.kept) == (4, 0)
    times = {name: (out / name).stat().st_mtime_ns for name in names}
    again = run(videos, out)
    assert (again.written, again.kept, again.bytes) == (0, 4, first.bytes)
    write_video(tmp_path / "a.mp4", frames=9)
    (out / "b.mp4").unlink()
    (out / "c.mp4").write_bytes((out / "c.mp4").read_bytes()[:-10])
    done = run(videos, out)
    assert (done.written, done.kept) == (3, 1)
    assert [done.index[entry].num_frames for entry in done.videos.entries] == [9, 6, 6, 6]
    assert (out / "d.mp4").stat().st_mtime_ns == times["d.mp4"]


def test_sources_may_be_deleted_or_moved_once_they_are_copied(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    names = [write_video(tmp_path / "old" / f"{name}.mp4", frames=6).name for name in "ab"]
    run(listed(tmp_path / "old", names), tmp_path / "out")
    (tmp_path / "old" / "a.mp4").unlink()
    (tmp_path / "old").rename(tmp_path / "new")
    done = run(listed(tmp_path / "new", ["b.mp4"]), tmp_path / "out")
    assert (done.written, done.kept) == (0, 1)
    (tmp_path / "new").rename(tmp_path / "old")
    done = run(listed(tmp_path / "old", names), tmp_path / "out")
    assert (done.written, done.kept, done.unreadable) == (0, 2, [])


@pytest.fixture
def finished(tmp_path: Path) -> tuple[VideoList, Path]:
    """A list of one video and the folder of its copy."""
    (tmp_path / "data").mkdir()
    videos = listed(tmp_path / "data", [write_video(tmp_path / "data" / "a.mp4", frames=6).name])
    run(videos, tmp_path / "out")
    return videos, tmp_path / "out"


def test_other_settings_are_refused_by_name(finished: tuple[VideoList, Path]) -> None:
    videos, out = finished
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    with pytest.raises(
        DataError, match=r"out holds videos transcoded with gop 8, not 16, crf 23, not 20; give the same"
    ):
        run(videos, out, gop=16, crf=20)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()} == before


def test_a_folder_of_something_else_is_refused(finished: tuple[VideoList, Path]) -> None:
    videos, out = finished
    before = videos.source.read_bytes()
    with pytest.raises(DataError, match="data is not empty and holds no transcoded videos"):
        run(videos, videos.root)
    assert videos.source.read_bytes() == before
    (videos.root / "b.avi").write_bytes((videos.root / "a.mp4").read_bytes())
    (out / "b.mp4").write_text("precious")
    with pytest.raises(DataError, match=r"b\.mp4 is in the way and not this command's"):
        run(listed(videos.root, ["a.mp4", "b.avi"]), out)
    assert (out / "b.mp4").read_text() == "precious"


def test_another_list_of_the_name_and_other_labels_are_refused(
    finished: tuple[VideoList, Path], tmp_path: Path
) -> None:
    videos, out = finished
    (tmp_path / "other").mkdir()
    shutil.copy(videos.root / "a.mp4", tmp_path / "other")
    with pytest.raises(DataError, match=r"out/list\.txt is made of .*data/list\.txt; rename the list"):
        run(listed(tmp_path / "other", ["a.mp4"]), out)
    (out / "labels.txt").write_text("clapping\n")
    (tmp_path / "other" / "labels.txt").write_text("waving\n")
    with pytest.raises(DataError, match="names other classes"):
        run(listed(tmp_path / "other", ["a.mp4"], name="val.txt"), out)
    with pytest.raises(DataError, match="rename it"):
        run(listed(tmp_path / "other", ["a.mp4"], name="unreadable.txt"), out)


def test_two_runs_at_once_are_refused(finished: tuple[VideoList, Path]) -> None:
    videos, out = finished
    with (out / "transcode.jsonl").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is transcoding into"):
            run(videos, out)
    assert run(videos, out).kept == 1


def test_a_line_cut_short_is_forgotten_and_a_foreign_one_is_named(finished: tuple[VideoList, Path]) -> None:
    videos, out = finished
    ledger = out / "transcode.jsonl"
    whole = ledger.read_bytes()
    (cut,) = (line for line in whole.splitlines(True) if line.startswith(b'{"copy"'))
    ledger.write_bytes(whole.replace(cut, b"") + cut[:-20])
    with pytest.raises(DataError, match=r"a\.mp4 is in the way"):  # no row says whose it is
        run(videos, out)
    (out / "a.mp4").unlink()
    assert run(videos, out).written == 1
    ledger.write_bytes(ledger.read_bytes() + b"what\n")
    with pytest.raises(DataError, match=r"transcode\.jsonl:\d: not a line that this command wrote"):
        run(videos, out)


def test_images_and_lists_without_a_readable_video_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "frames", 3)
    (tmp_path / "l.txt").write_text("frames 3 0\n")
    with pytest.raises(DataError, match="frames is a folder of images: transcode takes lists of video files"):
        run(VideoList.read(tmp_path / "l.txt"), tmp_path / "out")
    (tmp_path / "bad.mp4").write_text("nothing")
    with pytest.raises(DataError, match=r"none of the 2 videos can be read; the first, bad\.mp4: cannot be opened"):
        run(listed(tmp_path, ["bad.mp4", "missing.mp4"]), tmp_path / "out2")


def test_a_list_without_labels_stays_one_and_names_keep_their_spaces(tmp_path: Path) -> None:
    (tmp_path / "riding a bike").mkdir()
    write_video(tmp_path / "riding a bike" / "two, three 4.mp4", frames=5)
    (tmp_path / "l.txt").write_text("riding a bike/two, three 4.mp4\n")
    done = run(VideoList.read(tmp_path / "l.txt"), tmp_path / "out")
    (entry,) = VideoList.read(tmp_path / "out" / "l.txt").entries
    assert (entry.id, entry.label) == ("riding a bike/two, three 4.mp4", None)
    assert done.index[done.videos.entries[0]].num_frames == 5
    assert os.path.exists(tmp_path / "out" / "l.index.sqlite")
