"""Official Kinetics and Something-Something files read as they are, whatever the copy of the videos looks like."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import ClipSpec, Loader, VideoIndex, VideoList
from pipelines.errors import DataError, ListError
from pipelines.lists.files import Listing, locate
from pipelines.lists.kinetics import read_kinetics
from pipelines.lists.labels import labels_beside, read_label_map
from pipelines.lists.rows import Row
from tests.pipelines.videos import write_frames

ITEM = '{"id": "1", "template": "Holding [something]"}'
HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    "name",
    [
        "---QUuC4vJs_000084_000094.mp4",
        "---QUuC4vJs.mp4",
        "---QUuC4vJs_84_94.webm",
        "petting animal (not cat)/---QUuC4vJs_000084_000094.mkv",
        "petting_animal_(not_cat)/---QUuC4vJs.mp4",
        "val_256/petting_animal_(not_cat)/---QUuC4vJs_000084_000094.mp4.webm",
        "compress/videos/val/petting animal (not cat)/---QUuC4vJs.MP4",
        "rawframes_val/petting_animal_(not_cat)/---QUuC4vJs_000084_000094/img_00001.jpg",
    ],
)
def test_a_kinetics_video_is_found_in_every_arrangement(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name, "train/zumba/abcdefghijk_000001_000011.mp4", "notes/readme.txt")
    text = f'{HEADER}"petting animal (not cat)",---QUuC4vJs,84,94,validate,0\nzumba,lmnopqrstuv,0,10,validate,0\n'
    videos = VideoList.read(write(tmp_path, "val.csv", text))
    assert videos.labels == ["petting animal (not cat)", "zumba"]
    found, gone = videos.entries
    assert found.path == (tmp_path / name if not name.endswith(".jpg") else (tmp_path / name).parent)
    assert (found.id, found.label) == ("---QUuC4vJs_000084_000094", 0)
    assert (gone.id, gone.label, gone.path) == (
        "lmnopqrstuv_000000_000010",
        1,
        tmp_path / "lmnopqrstuv_000000_000010.mp4",
    )


def test_kinetics_columns_may_stand_in_any_order_and_a_test_file_has_no_labels(tmp_path: Path) -> None:
    path = write(
        tmp_path, "test.csv", "youtube_id,time_start,time_end,split\r\nabc,1.0,11.0,test\r\n\r\ndef,2,12,test\r\n"
    )
    videos = VideoList.read(path)
    assert [(entry.id, entry.label) for entry in videos.entries] == [
        ("abc_000001_000011", None),
        ("def_000002_000012", None),
    ]
    assert videos.labels is None


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("zumba,abc,0", "'zumba,abc,0': expected label,youtube_id,time_start,time_end"),
        ("zumba,abc,zero,10,train,0", "expected label,youtube_id"),
        ("zumba,,0,10,train,0", "expected label,youtube_id"),
        (",abc,0,10,train,0", "expected label,youtube_id"),
        ("abseiling,ok,0,10,train,0", "'ok_000000_000010' is already on line 2, with another label"),
    ],
)
def test_a_wrong_kinetics_row_is_named(tmp_path: Path, row: str, words: str) -> None:
    path = write(tmp_path, "train.csv", f"{HEADER}zumba,ok,0,10,train,0\n{row}\n")
    with pytest.raises(ListError) as caught:
        VideoList.read(path)
    assert f"{path}:3: " in str(caught.value)
    assert words in str(caught.value)


def test_a_row_that_an_official_file_repeats_counts_once(tmp_path: Path) -> None:
    path = write(
        tmp_path, "train.csv", f"{HEADER}zumba,ok,0,10,train,0\nzumba,ok,0,10,train,0\nzumba,ok,10,20,train,0\n"
    )
    assert [entry.id for entry in VideoList.read(path).entries] == ["ok_000000_000010", "ok_000010_000020"]


def test_several_splits_in_one_kinetics_file_are_no_list(tmp_path: Path) -> None:
    path = write(tmp_path, "all.csv", f"{HEADER}zumba,a,0,10,train,0\nzumba,b,0,10,validate,0\n")
    with pytest.raises(DataError, match=r"several splits \(train, val\).*tin-cli data prepare k400"):
        VideoList.read(path)


def test_kinetics_classes_come_from_a_label_map_where_one_is_given(tmp_path: Path) -> None:
    path = write(tmp_path, "val.csv", f"{HEADER}air drumming,a,0,10,val,0\n")
    names = write(tmp_path, "map.txt", "abseiling\nair_drumming\nzumba\n")
    assert [entry.label for entry in VideoList.read(path, labels=names).entries] == [1]
    with pytest.raises(
        ListError, match=r"val\.csv:2: .*'air drumming' is not one of the 1 classes of .*; did you mean"
    ):
        VideoList.read(path, labels=["air drummin"])


def something(folder: Path) -> None:
    write(
        folder,
        "something-something-v1-labels.csv",
        "Turning something upside down\nHolding something\nDropping something, then lifting it\n",
    )
    write(
        folder,
        "something-something-v1-train.csv",
        "100218;Holding something\n24413;Turning something upside down\n7;Dropping something, then lifting it\n",
    )
    write(folder, "something-something-v1-test.csv", "55\n66\n")
    write(
        folder,
        "labels.json",
        json.dumps(
            {"Holding something": "0", "Turning something upside down": "1", "Putting something onto something": "2"}
        ),
    )
    items = [
        {"id": "74225", "label": "holding a cup", "template": "Holding [something]", "placeholders": ["a cup"]},
        {"id": "116154", "label": "putting a pen onto a book", "template": "Putting [something] onto [something]"},
    ]
    write(folder, "train.json", json.dumps(items, indent=2))
    write(folder, "test.json", json.dumps([{"id": "1"}, {"id": "2"}]))


def test_classes_that_differ_in_an_underscore_are_two(tmp_path: Path) -> None:
    path = write(tmp_path, "val.csv", f"{HEADER}air drumming,a,0,10,val,0\nair_drumming,b,0,10,val,0\n")
    assert [entry.label for entry in VideoList.read(path).entries] == [0, 1]


def test_another_part_of_the_same_kinetics_video_is_not_taken(tmp_path: Path) -> None:
    touch(tmp_path, "abc_000099_000109.mp4")
    path = write(tmp_path, "val.csv", f"{HEADER}zumba,abc,0,10,val,0\n")
    write(tmp_path, "labels.csv", "not Kinetics\n")
    (entry,) = VideoList.read(path).entries
    assert (entry.path.name, entry.label) == ("abc_000000_000010.mp4", 0)


def test_something_v1_means_frame_folders_and_v2_files_where_both_are_there(tmp_path: Path) -> None:
    something(tmp_path)
    touch(tmp_path, *(f"{kind}" for id in ("7", "74225") for kind in (f"frames/{id}/00001.jpg", f"videos/{id}.webm")))
    v1 = VideoList.read(tmp_path / "something-something-v1-train.csv").entries[2]
    v2 = VideoList.read(tmp_path / "train.json").entries[0]
    assert (v1.path, v2.path) == (tmp_path / "frames" / "7", tmp_path / "videos" / "74225.webm")


def test_frame_folders_and_hidden_folders_are_not_entered(tmp_path: Path) -> None:
    touch(
        tmp_path, "frames/x/00001.jpg", "frames/other/deep/y.mp4", ".trash/y.mp4", "images/1.jpg", "images/deep/y.mp4"
    )
    rows = [Row(line, name, 0, None, (name,)) for line, name in enumerate("xy")]
    assert locate(rows, tmp_path) == [str(tmp_path / "frames" / "x"), None]


def test_something_v1_and_v2_keep_their_own_orders_of_classes(tmp_path: Path) -> None:
    something(tmp_path)
    v1 = VideoList.read(tmp_path / "something-something-v1-train.csv")
    assert [(entry.id, entry.label) for entry in v1.entries] == [("100218", 1), ("24413", 0), ("7", 2)]
    assert v1.labels == ["Turning something upside down", "Holding something", "Dropping something, then lifting it"]
    v2 = VideoList.read(tmp_path / "train.json")
    assert [(entry.id, entry.label) for entry in v2.entries] == [("74225", 0), ("116154", 2)]
    assert v2.entries[0].path == tmp_path / "74225.webm"
    assert [entry.label for entry in VideoList.read(tmp_path / "test.json").entries] == [None, None]
    assert [entry.id for entry in VideoList.read(tmp_path / "something-something-v1-test.csv").entries] == ["55", "66"]


def test_something_v1_frame_folders_are_decoded_from_the_official_csv(tmp_path: Path) -> None:
    something(tmp_path / "annotations")
    for name, frames in (("100218", 9), ("24413", 12), ("55", 4)):
        write_frames(tmp_path / "20bn" / name, frames)
    videos = VideoList.read(tmp_path / "annotations" / "something-something-v1-train.csv", root=tmp_path)
    index = VideoIndex.build(videos, workers=0)
    assert [(index[entry].num_frames, index[entry].template) for entry in videos.entries[:2]] == [
        (9, "{:05}.jpg"),
        (12, "{:05}.jpg"),
    ]
    assert [entry.id for entry, _ in index.unreadable(videos)] == ["7"]
    with Loader(
        videos,
        index,
        ClipSpec(num_segments=4, input_size=32, short_side=40),
        batch_size=2,
        training=False,
        num_workers=0,
    ) as loader:
        assert [batch.labels.tolist() for batch in loader] == [[1, 0]]


def test_something_v2_finds_webm_and_renamed_files_and_decodes_them(real_videos: Path, tmp_path: Path) -> None:
    something(tmp_path / "labels")
    videos_folder = tmp_path / "20bn-something-something-v2"
    videos_folder.mkdir()
    (videos_folder / "74225.mp4").symlink_to(real_videos / "codecs" / "ssv2_id166766_webm_named_mp4.mp4")
    (videos_folder / "116154.webm").symlink_to(real_videos / "codecs" / "vp9_640x480.webm")
    videos = VideoList.read(tmp_path / "labels" / "train.json", root=tmp_path)
    index = VideoIndex.build(videos, workers=0)
    assert index.unreadable(videos) == []
    assert [index[entry].codec for entry in videos.entries] == ["vp9", "vp9"]


def test_classes_without_a_file_that_numbers_them_are_refused(tmp_path: Path) -> None:
    something(tmp_path)
    for name in ("labels.json", "something-something-v1-labels.csv"):
        (tmp_path / name).unlink()
    for name, suffix in (("something-something-v1-train.csv", "csv"), ("train.json", "json")):
        with pytest.raises(ListError, match=rf"-labels\.{suffix}\) there or name it; V1 and V2 order"):
            VideoList.read(tmp_path / name)
    write(
        tmp_path,
        "labels.txt",
        "Holding something\nTurning something upside down\nDropping something, then lifting it\n",
    )
    assert [entry.label for entry in VideoList.read(tmp_path / "something-something-v1-train.csv").entries] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[\n {"id": "1", "template": "Holding [something]"},\n {"name": "2"}\n]', 3, '{"name": "2"}'),
        ('[\n {"id": "1", "template": "Holding [something]"},\n {"id": "2"}\n]', 3, "'2' has no class"),
        (f'[\n {ITEM},\n\n {{"id": "1", "template": "Turning something upside down"}}\n]', 4, "already on line 2, with another label"),
        (f'[\n {ITEM},\n {{"id": "2", "template": "Holdin [something]"}}\n]', 3, "did you mean 'Holding something'"),
        ('[\n {"id": "1", "template": "Holding [something]"},\n {"id": "2"\n', 4, "is not JSON"),
        ('{"Holding something": "0"}', 1, "expected a list"),
        ('{"---QUuC4vJs": {"annotations": {"label": "zumba"}}}', 1, "of Kinetics the csv files are read"),
    ],
)  # fmt: skip
def test_a_wrong_item_of_v2_is_named_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    something(tmp_path)
    path = write(tmp_path, "validation.json", text)
    with pytest.raises(ListError) as caught:
        VideoList.read(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert words in str(caught.value)


def test_a_wrong_line_of_v1_is_named(tmp_path: Path) -> None:
    something(tmp_path)
    path = tmp_path / "something-something-v1-train.csv"
    path.write_text("1;Holding something\n2;Holding somethin\n")
    with pytest.raises(ListError, match=r"train\.csv:2: .*did you mean 'Holding something'"):
        VideoList.read(path)
    path.write_text("1;Holding something\n2\n")
    with pytest.raises(ListError, match=r"train\.csv:2: '2' has no class"):
        VideoList.read(path, format="sthv1")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("labels.txt", "b\na c\n", ["b", "a c"]),
        ("classes.txt", "1 b\n0 a c\n", ["a c", "b"]),
        ("classes.txt", "a c,0\nb,1\n", ["a c", "b"]),
        ("k400.csv", "id,name\n0,abseiling\n1,air drumming\n", ["abseiling", "air drumming"]),
        ("k400.csv", 'name,id\n"arm, wrestling",1\n"b",0\n', ["b", "arm, wrestling"]),
        ("v1.csv", "Lifting one end, then dropping it\nHolding something\n", ["Lifting one end, then dropping it", "Holding something"]),
        ("ucf.txt", "1 Apply\n2 Archery\n", ["1 Apply", "2 Archery"]),
        ("digits.txt", "digit 0\ndigit 1\n", ["digit 0", "digit 1"]),
        ("v2.json", '{"Holding something": "1", "Dropping something": "0"}', ["Dropping something", "Holding something"]),
        ("numbers.json", '{"1": "b", "0": "a"}', ["a", "b"]),
        ("names.json", '["b", "a"]', ["b", "a"]),
        ("pytorchvideo.json", '{"\\"air drumming\\"": 1, "abseiling": 0}', ["abseiling", "air drumming"]),
    ],
)  # fmt: skip
def test_label_maps_in_the_forms_they_come_in(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    assert read_label_map(write(tmp_path, name, text)) == expected


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.json", '{"a": 0, "b": 2}', "labels from 0 on"),
        ("x.json", '["a", "a"]', "no label map"),
        ("x.json", '{"a": 0,\n}', "x.json:2: is not JSON"),
        ("x.txt", "a\n\nb\n", "x.txt:2: an empty class name"),
        ("x.txt", "a\nb\na\n", "x.txt:3: class 'a' is already on line 1"),
        ("x.txt", "", "no class names"),
    ],
)
def test_files_that_are_no_label_map_are_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(ListError) as caught:
        read_label_map(write(tmp_path, name, text))
    assert words in str(caught.value)


def test_the_official_label_file_of_a_list_is_known_by_name(tmp_path: Path) -> None:
    something(tmp_path)
    v1, v2 = tmp_path / "something-something-v1-labels.csv", tmp_path / "labels.json"
    assert labels_beside(tmp_path / "something-something-v1-validation.csv", "sthv1") == v1
    assert labels_beside(tmp_path / "validation.json", "sthv2") == v2
    assert labels_beside(tmp_path / "test-answers.csv", "sthv1") == v2


def test_of_several_candidates_class_then_split_then_name_decide(tmp_path: Path) -> None:
    touch(tmp_path, "val/zumba/x.mp4", "train/zumba/x.mp4", "train/jumping/x.mp4", "val/jumping/x.mp4", "a/x.mp4")

    def found(label: int, split: str | None) -> str:
        (place,) = locate([Row(1, "x", label, None, ("x",), split)], tmp_path, classes=["zumba", "jumping"])
        assert place is not None
        return Path(place).relative_to(tmp_path).as_posix()

    assert found(0, "train") == "train/zumba/x.mp4"
    assert found(0, "val") == "val/zumba/x.mp4"
    assert found(1, "val") == "val/jumping/x.mp4"
    assert found(1, None) == "train/jumping/x.mp4"


def test_folders_are_listed_once_however_many_videos_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"video {number}" for number in range(300)]
    touch(tmp_path, *(f"{number % 3}/{name}.mp4" for number, name in enumerate(names)))
    listed: list[str] = []
    looked: list[str] = []
    scandir, listdir, stat = os.scandir, os.listdir, os.stat
    monkeypatch.setattr(os, "scandir", lambda path: (listed.append(str(path)), scandir(path))[1])
    monkeypatch.setattr(os, "listdir", lambda path: (listed.append(str(path)), listdir(path))[1])
    monkeypatch.setattr(os, "stat", lambda path, **options: (looked.append(str(path)), stat(path, **options))[1])
    folders = sorted([str(tmp_path), *(str(tmp_path / str(number)) for number in range(3))])
    rows = [Row(1, name, 0, None, (name, "other")) for name in names]
    assert None not in locate(rows, tmp_path)
    assert (sorted(listed), sorted(looked)) == (folders, folders)
    listed.clear()
    listing = Listing()
    assert {
        Path(listing.find(f"{tmp_path}/{number % 3}/{name}.avi") or "").suffix for number, name in enumerate(names)
    } == {".mp4"}
    assert sorted(listed) == folders[1:]


def test_links_in_a_circle_and_closed_folders_do_not_stop_the_search(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/x.mp4", "closed/y.mp4")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "closed").chmod(0)
    try:
        assert locate([Row(1, "x", 0, None, ("x",))], tmp_path) == [str(tmp_path / "a" / "b" / "x.mp4")]
    finally:
        (tmp_path / "closed").chmod(0o755)
    with pytest.raises(DataError, match="cannot look into"):
        locate([Row(1, "x", 0, None, ("x",))], tmp_path / "nowhere")


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"'), min_size=1).filter(
                str.strip
            ),
            st.from_regex(r"[A-Za-z0-9_-]{11}", fullmatch=True),
            st.integers(0, 99_999),
        ),
        min_size=1,
    )
)
def test_any_kinetics_csv_reads_as_it_was_meant(videos: list[tuple[str, str, int]]) -> None:
    text = HEADER + "".join(f'"{label}",{id},{start},{start + 10},train,1\n' for label, id, start in videos)
    rows = read_kinetics(Path("train.csv"), text)
    assert [(row.label, row.names[2], row.split) for row in rows] == [
        (label.strip(), id, "train") for label, id, _ in videos
    ]
    assert [row.id for row in rows] == [f"{id}_{start:06d}_{start + 10:06d}" for _, id, start in videos]
