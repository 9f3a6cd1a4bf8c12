"""Plain lists in all their spellings: what is read, what is refused and in which words, and that what is written reads back."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines import VideoList
from pipelines.errors import DataError, ListError
from pipelines.lists.formats import ListFormat, detect, read_rows
from pipelines.lists.plain import read_plain
from pipelines.prepare.writing import list_lines

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: len(f"{name}x".splitlines()) == 1 and len(name.splitlines()) == 1
)
AWKWARD = st.sampled_from(
    ["a.mp4 3",
     "clip 12", "a, 3", '"quoted"', " lead", "trail ", "12;x", "[x", "video label", "a.mp4 3 0.5", "\ufeffx", ",", "x,", "-", "7"]
)  # fmt: skip


def write(folder: Path, text: str | bytes, name: str = "train.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def error_of(path: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        VideoList.read(path, **options)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"a, b.mp4",3\n"c 7",4\n', [("a, b.mp4", 3, None), ("c 7", 4, None)]),
        ('"say ""hi"".mp4" 3\n"x.mp4".mp4 4\n', [('say "hi".mp4', 3, None), ('"x.mp4".mp4', 4, None)]),
        ("video_path,label\na.mp4,3\nb.mp4,4\n", [("a.mp4", 3, None), ("b.mp4", 4, None)]),
        ("video_id, num_frames, label_index\nxyz, 300, 5\n", [("xyz", 5, 300)]),
        ("path,frames,label\r\na.mp4,30,3\r\n", [("a.mp4", 3, 30)]),
        ("\ufeffpath label\na.mp4 3\n", [("a.mp4", 3, None)]),
        ('"a 5"\n"b 6"\n', [("a 5", None, None), ("b 6", None, None)]),
        ("a\t3 4\n", [("a", 4, 3)]),
        ("a -3 4\nb.mp4 5\nc.mp4 6\n", [("a -3", 4, None), ("b.mp4", 5, None), ("c.mp4", 6, None)]),
        ("ünï cödé.mp4 3\n视频/一.mp4 4\n", [("ünï cödé.mp4", 3, None), ("视频/一.mp4", 4, None)]),
    ],
)
def test_quotes_headers_and_other_scripts(
    tmp_path: Path, text: str, expected: list[tuple[str, int | None, int | None]]
) -> None:
    entries = VideoList.read(write(tmp_path, text)).entries
    assert [(e.id, e.label, e.num_frames) for e in entries] == expected


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a.mp4 3\nb.mp4 4 7\nc.mp4 1\n", 2),
        ("a.mp4 3 5\nb.mp4 4 7\nc.mp4 1 2 9\n", 3),
        ("a.mp4,3\nb.mp4,4,7,12,31\nc.mp4,1\n", 2),
        ("dir/a 120 3\ndir/b 90 4 6\ndir/c 80 1\n", 2),
        ("dir/a 120 3 5 7\ndir/b 90 4 6\ndir/c 80 1 2\n", 1),
        ('"a.mp4" 3\n"b.mp4" 3 4\n"c.mp4" 1\n', 2),
    ],
)
def test_several_labels_a_video_are_refused_by_that_name(tmp_path: Path, text: str, line: int) -> None:
    message = error_of(write(tmp_path, text))
    assert f"train.txt:{line}: " in message
    assert repr(text.splitlines()[line - 1]) in message
    assert "multi-label" in message


@pytest.mark.parametrize(
    "text", ["a.mp4 0 0 100\nb.mp4 1 20 60\n", "a.mp4 0 0.5 10.25\nb.mp4 1 2.0 6.5\n", "a.mp4 0 0.5\nb.mp4 1 2.0\n"]
)
def test_parts_of_videos_are_refused_with_a_remedy(tmp_path: Path, text: str) -> None:
    message = error_of(write(tmp_path, text))
    assert "train.txt:1: 'a.mp4 0 0" in message
    assert "`path label start end`" in message
    assert "ffmpeg -ss" in message


def test_the_disk_tells_paths_that_end_in_numbers_from_labels(tmp_path: Path) -> None:
    text = "walk 1 120 3\nwalk 2 90 3\nrun 100 4\n"
    path = write(tmp_path, text)
    assert "multi-label" in error_of(path)
    (tmp_path / "walk 2").mkdir()
    assert [(e.id, e.num_frames, e.label) for e in VideoList.read(path).entries] == [
        ("walk 1", 120, 3), ("walk 2", 90, 3), ("run", 100, 4),
    ]  # fmt: skip
    unlabelled = write(tmp_path, "walk 2\nwalk 3\n", "test.txt")
    assert [(e.id, e.label) for e in VideoList.read(unlabelled).entries] == [("walk 2", None), ("walk 3", None)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,path\n3,a.mp4\n", ["train.txt:", "expected"]),
        ("path,label,start,end\na.mp4,3,0,5\n", ["train.txt:1: ", "another order or number"]),
        ("path,label,frames\na.mp4,3,30\n", ["train.txt:1: ", "`path, frames, label`"]),
        ("path,label\n", ["is empty"]),
        ("path,frames,label\na -3 4\n", ["train.txt:2: ", "'a -3 4': -3 frames"]),
        ("a.mp4 3\n,4\n", ["train.txt:2: ", "no path"]),
    ],
)
def test_headers_and_fields_in_another_order_are_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    message = error_of(write(tmp_path, text), format="frames" if "-3" in text else "videos")
    for word in words:
        assert word in message


def test_names_without_suffix_are_looked_for_below_the_root(tmp_path: Path) -> None:
    for name in (
        "abseiling/abc_000010_000020.mkv",
        "zumba/def.webm",
        "zumba/other.mp4",
        "zumba/ghi_000001_000011.mp4.webm",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    path = write(
        tmp_path, "video_id, num_frames, label_index\nabc, 300, 0\ndef, 299, 399\nghi, 300, 399\ngone, 300, 7\n"
    )
    entries = VideoList.read(path).entries
    assert [e.id for e in entries] == ["abc", "def", "ghi", "gone"]
    assert [e.path.relative_to(tmp_path).as_posix() for e in entries] == [
        "abseiling/abc_000010_000020.mkv", "zumba/def.webm", "zumba/ghi_000001_000011.mp4.webm", "gone",
    ]  # fmt: skip
    assert [e.label for e in entries] == [0, 399, 399, 7]


def test_a_root_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    entries = VideoList.read(write(tmp_path, "a 30 0\nb 30 1\n"), root=tmp_path / "later").entries
    assert [e.path for e in entries] == [tmp_path / "later" / "a", tmp_path / "later" / "b"]


def test_paths_that_are_there_are_taken_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.mp4").touch()
    entries = VideoList.read(write(tmp_path, "a 30 0\nb 30 1\n")).entries
    assert [e.path for e in entries] == [tmp_path / "a", tmp_path / "b"]


@settings(deadline=None)
@given(
    names=st.lists(NAMES | AWKWARD, min_size=1, max_size=8, unique=True),
    frames=st.booleans(),
    labels=st.booleans(),
    number=st.integers(0, 10**6),
)
@example(names=["a.mp4 3", "b.mp4 4"], frames=False, labels=False, number=0)
@example(names=["a\t3", "b -3", "c \u0663", "d\u00a07"], frames=False, labels=True, number=4)
@example(names=["12;x"], frames=False, labels=False, number=0)
@example(names=["\ufeffx"], frames=False, labels=False, number=0)
@example(names=["path label"], frames=False, labels=False, number=0)
def test_whatever_is_written_reads_back(names: list[str], frames: bool, labels: bool, number: int) -> None:
    out = Path("/lists")
    wanted = [
        (f"/lists/{name}", number + 1 if frames and labels else None, number if labels else None) for name in names
    ]
    wanted = [row for row in wanted if Path(row[0]).as_posix() == row[0] and "/." not in row[0]]  # not `a//b` or `a/.`
    lines = list_lines(wanted, out)
    text = "".join(f"{line}\n" for line in lines).encode().decode("utf-8-sig")
    assert detect(text) == "auto"
    if lines:
        rows = read_plain(Path("x.txt"), text, None, Path("/nowhere"))
        assert [(row.id, row.frames, row.label) for row in rows] == [
            (p.removeprefix("/lists/"), f, n) for p, f, n in wanted
        ]


@settings(deadline=None)
@given(st.text(st.sampled_from('a1 ,;"-.\n[]{}:\tmp4é'), max_size=60), st.sampled_from(get_args(ListFormat)))
def test_any_text_is_rows_or_one_clear_error(tmp_path_factory: pytest.TempPathFactory, text: str, format: str) -> None:
    path = write(tmp_path_factory.getbasetemp(), text, "any.txt")
    try:
        _, rows = read_rows(path, format, path.parent)  # type: ignore[arg-type]
    except ListError as error:
        named, rows = error.path, []
    else:
        named = path
        assert rows
    assert named == path
    assert all(row.id for row in rows)
