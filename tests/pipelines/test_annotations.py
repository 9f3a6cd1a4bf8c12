"""Lists are read as their writers meant, and a wrong line is named with file, line, text and what was expected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines import VideoList
from pipelines.errors import DataError, ListError


def write(folder: Path, text: str | bytes, labels: str | None = None) -> Path:
    path = folder / "train.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    if labels is not None:
        (folder / "labels.txt").write_text(labels)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.mp4 3\nb c.mp4 4\n", [("a.mp4", 3, None), ("b c.mp4", 4, None)]),
        ("a.mp4,3\r\nb, c.mp4, 4\r\n", [("a.mp4", 3, None), ("b, c.mp4", 4, None)]),
        ("a.mp4\t3\n\n  b.mp4   4  \n", [("a.mp4", 3, None), ("b.mp4", 4, None)]),
        ("\ufeffa.mp4 3\n", [("a.mp4", 3, None)]),
        ("dir/x 120 7\ndir/my clip 5 8\n", [("dir/x", 7, 120), ("dir/my clip", 8, 5)]),
        ("id1, 300, 5\nid2, 250, 6\n", [("id1", 5, 300), ("id2", 6, 250)]),
        ("a.mp4\nb c.mp4\n", [("a.mp4", None, None), ("b c.mp4", None, None)]),
        ("a.mp4 3\nclip 12 4\nb.mp4 5", [("a.mp4", 3, None), ("clip 12", 4, None), ("b.mp4", 5, None)]),
    ],
)
def test_separators_spaces_and_forms(
    tmp_path: Path, text: str, expected: list[tuple[str, int | None, int | None]]
) -> None:
    video_list = VideoList.read(write(tmp_path, text))
    assert [(e.id, e.label, e.num_frames) for e in video_list.entries] == expected
    assert [e.path for e in video_list.entries] == [tmp_path / id for id, _, _ in expected]
    assert video_list.name == "train"
    assert video_list.labels is None


def test_the_format_can_be_forced(tmp_path: Path) -> None:
    path = write(tmp_path, "clip 12 4\n")
    assert VideoList.read(path, format="videos").entries[0].id == "clip 12"
    assert VideoList.read(path, format="frames").entries[0].num_frames == 12


def test_a_path_that_ends_in_a_number_is_believed_when_it_exists(tmp_path: Path) -> None:
    (tmp_path / "clip 12").mkdir()
    assert VideoList.read(write(tmp_path, "clip 12 4\n")).entries[0].id == "clip 12"


def test_paths_start_at_the_root_unless_absolute(tmp_path: Path) -> None:
    video_list = VideoList.read(write(tmp_path, "a.mp4 0\n/b/c.mp4 1\n"), root="/data")
    assert [e.path for e in video_list.entries] == [Path("/data/a.mp4"), Path("/b/c.mp4")]


def test_class_names_come_from_labels_txt(tmp_path: Path) -> None:
    assert VideoList.read(write(tmp_path, "a.mp4 1\n", "jump\nrun far\n")).labels == ["jump", "run far"]


@pytest.mark.parametrize(
    ("text", "labels", "where", "words"),
    [
        ("a.mp4 1\nb.mp4\nc.mp4 2\n", None, ":2: ", ["'b.mp4'", "`path label`"]),
        ("a 10 1\nb 2\nc 10 2\n", None, ":2: ", ["'b 2'", "`path frames label`"]),
        ("a.mp4 1\nb.mp4 1.5\n", None, ":2: ", ["'b.mp4 1.5'"]),
        ("a.mp4 1\nb.mp4 -1\n", None, ":2: ", ["label -1", "negative"]),
        ("a 0 1\nb 5 1\n", None, ":1: ", ["0 frames"]),
        ("a.mp4 1\nb.mp4 2\n", "x\ny\n", ":2: ", ["label 2", "labels.txt", "from 0 to 1"]),
        ("a.mp4 1\nb.mp4 1\n\na.mp4 0\n", None, ":4: ", ["'a.mp4'", "line 1"]),
        (b"a.mp4 1\nb\xe9.mp4 1\n", None, ":2: ", ["0xe9", "UTF-8"]),
        ("", None, ": ", ["empty"]),
        ("\n \n", None, ": ", ["empty"]),
        ("a.mp4 0\n", "x\n\ny\n", "labels.txt:2: ", ["empty class name"]),
        ("a.mp4 0\n", "x\ny\nx\n", "labels.txt:3: ", ["'x'", "line 1"]),
    ],
)
def test_wrong_lists_name_file_line_and_remedy(
    tmp_path: Path, text: str | bytes, labels: str | None, where: str, words: list[str]
) -> None:
    with pytest.raises(ListError) as caught:
        VideoList.read(write(tmp_path, text, labels))
    message = str(caught.value)
    assert re.match(rf"{re.escape(str(tmp_path))}/(train|labels)\.txt", message)
    assert where in message
    for word in words:
        assert word in message


def test_missing_lists_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ListError, match="no such list"):
        VideoList.read(tmp_path / "nothing.txt")
    with pytest.raises(ListError, match="is a folder"):
        VideoList.read(tmp_path)
    with pytest.raises(DataError, match="image template"):
        VideoList.read(write(tmp_path, "a 5 1\n"), template="frame.jpg")


def test_a_folder_per_class(tmp_path: Path) -> None:
    for name in ("walk/b.mp4", "walk/a.webm", "walk/notes.txt", "walk/.hidden.mp4", "jump/seq/00001.jpg", ".git/x.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    video_list = VideoList.from_folder(tmp_path)
    assert video_list.labels == ["jump", "walk"]
    assert [(e.id, e.label) for e in video_list.entries] == [("jump/seq", 0), ("walk/a.webm", 1), ("walk/b.mp4", 1)]
    with pytest.raises(DataError, match="no videos"):
        VideoList.from_folder(tmp_path / "jump")
    with pytest.raises(DataError, match="not a folder"):
        VideoList.from_folder(tmp_path / "nothing")


def test_files_and_folders_by_name_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b/z.mp4", "b/a/y.WEBM", "b/.hidden.mp4", "b/.git/x.mp4", "b/notes.txt", "one.avi", "odd"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = VideoList.from_files("one.avi", Path("b"), "odd", "./b/z.mp4", "missing.mp4")
    assert [entry.id for entry in found.entries] == ["one.avi", "b/z.mp4", "b/a/y.WEBM", "odd", "missing.mp4"]
    assert {entry.label for entry in found.entries} == {None}
    assert (found.labels, found.source) == (None, None)


def test_no_files_at_all_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no videos in {re.escape(str(tmp_path))}: name video files"):
        VideoList.from_files(tmp_path)
    with pytest.raises(DataError, match="no videos in nothing"):
        VideoList.from_files()
