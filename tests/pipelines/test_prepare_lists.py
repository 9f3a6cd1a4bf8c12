"""Official files and users' lists to canonical lists: what is written, what is counted as missing, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import VideoIndex, VideoList
from pipelines.errors import DataError
from pipelines.prepare import prepare_lists, prepare_official, split_folder
from tests.pipelines.videos import write_frames

HEADER = "label,youtube_id,time_start,time_end,split\n"


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture
def kinetics(real_videos: Path, tmp_path: Path) -> Path:
    """A copy of real videos with class folders for training and a flat folder for validation, some missing."""
    root = tmp_path / "k400"
    fights = {name: sorted((real_videos / "fights" / name).glob("*.mp4")) for name in ("fight", "nofight")}
    rows: dict[str, list[str]] = {"train": [], "val": []}
    for label, (name, files) in zip(("punching person (boxing)", "hugging"), fights.items(), strict=True):
        for number, file in enumerate(files[:5]):
            id = f"{name[:2]}-{number}_______"[:11]
            rows["train"].append(f"{label},{id},{number},{number + 10},train")
            if number < 3:
                place = root / "videos" / "train" / label.replace(" ", "_") / f"{id}_{number:06d}_{number + 10:06d}.mp4"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(file)
        id = f"val-{name}___"[:11]
        rows["val"].append(f"{label},{id},7,17,validate")
        (root / "videos" / "val").mkdir(parents=True, exist_ok=True)
        (root / "videos" / "val" / f"{id}.mp4").symlink_to(files[5])
    rows["val"].append("zumba,nowhere-abc,1,11,validate")
    for split, lines in rows.items():
        write(root / "annotations", f"kinetics_{split}.csv", HEADER + "\n".join(lines) + "\n")
    write(root / "annotations", "kinetics_test.csv", "youtube_id,time_start,time_end,split\nabcdefghijk,0,10,test\n")
    return root


def test_kinetics_lists_hold_what_is_there_and_say_what_is_not(kinetics: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    prepared = prepare_official("k400", kinetics, out)
    assert prepared.labels == ("hugging", "punching person (boxing)", "zumba")
    assert {split: (found.listed, found.written, len(found.missing)) for split, found in prepared.lists.items()} == {
        "train": (10, 6, 4), "val": (3, 2, 1), "test": (1, 0, 1),
    }  # fmt: skip
    assert not (out / "test.txt").exists()
    assert (out / "missing.txt").read_text().splitlines() == [
        *(f"{split} {id}" for split, found in prepared.lists.items() for id in found.missing)
    ]
    assert "val nowhere-abc_000001_000011" in (out / "missing.txt").read_text()
    notes = "\n".join(prepared.notes)
    assert "1 of 3 classes have no video at all: zumba" in notes
    assert "3 classes where k400 has 400: train with --num-classes 3" in notes
    train, val = VideoList.read(out / "train.txt"), VideoList.read(out / "val.txt")
    assert train.labels == list(prepared.labels)
    assert [entry.label for entry in train.entries] == [1, 1, 1, 0, 0, 0]
    assert [entry.label for entry in val.entries] == [1, 0]
    for videos in (train, val):
        assert VideoIndex.build(videos, workers=0).unreadable(videos) == []


def test_the_official_csv_and_the_prepared_list_agree(kinetics: Path, tmp_path: Path) -> None:
    prepare_official("k400", kinetics, tmp_path / "lists")
    direct = VideoList.read(kinetics / "annotations" / "kinetics_val.csv", root=kinetics)
    assert [(e.path, e.label) for e in direct.entries if e.path.exists()] == [
        (e.path, e.label) for e in VideoList.read(tmp_path / "lists" / "val.txt").entries
    ]
    assert len(direct.entries) == 3


def test_lists_are_made_again_when_more_videos_have_come_but_never_over_others(kinetics: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    prepare_official("k400", kinetics, out)
    prepare_official("k400", kinetics, out)
    touch(kinetics, "videos/val/nowhere-abc.mp4")
    with pytest.raises(DataError, match=r"val\.txt exists and says something else; remove it"):
        prepare_official("k400", kinetics, out)
    for name in ("train.txt", "val.txt"):
        (out / name).unlink()
    assert prepare_official("k400", kinetics, out).lists["val"].missing == ()
    assert "nowhere" not in (out / "missing.txt").read_text()


def test_all_splits_in_one_kinetics_file(kinetics: Path, tmp_path: Path) -> None:
    folder = kinetics / "annotations"
    rows = [(folder / f"kinetics_{split}.csv").read_text().partition("\n")[2] for split in ("train", "val")]
    one = write(tmp_path, "k700.csv", HEADER + "".join(rows))
    prepared = prepare_official("k400", kinetics, tmp_path / "lists", annotations=one)
    assert {split: found.listed for split, found in prepared.lists.items()} == {"train": 10, "val": 3}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("train.csv", f"{HEADER}zumba,other,0,10,train\n", "both hold train videos"),
        ("more.csv", f"{HEADER}zumba,other,0,10,holdout\n", "more.csv:2: 'other_000000_000010': neither its column `split`"),
    ],
)  # fmt: skip
def test_official_folders_that_leave_a_doubt_are_refused(
    kinetics: Path, tmp_path: Path, name: str, text: str, words: str
) -> None:
    write(kinetics / "annotations", name, text)
    with pytest.raises(DataError) as caught:
        prepare_official("k400", kinetics, tmp_path / "lists")
    assert words in str(caught.value)
    assert not (tmp_path / "lists").exists()


def test_a_wrong_folder_is_said_at_once(kinetics: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"none of the 14 listed videos is in .*empty.*such as 'fi-0_______"):
        prepare_official("k400", tmp_path / "empty", tmp_path / "lists", annotations=kinetics / "annotations")
    with pytest.raises(DataError, match=r"no official files of sthv2 in .*--annotations"):
        prepare_official("sthv2", kinetics, tmp_path / "lists")


def test_something_v1_with_frame_folders_and_a_test_list_without_labels(tmp_path: Path) -> None:
    root = tmp_path / "v1"
    write(root, "something-something-v1-labels.csv", "Turning something upside down\nHolding something\n")
    write(
        root,
        "something-something-v1-train.csv",
        "3;Holding something\n12;Turning something upside down\n4;Holding something\n",
    )
    write(root, "something-something-v1-validation.csv", "5;Holding something\n")
    write(root, "something-something-v1-test.csv", "6\n7\n")
    for name in ("3", "12", "5", "6"):
        write_frames(root / "20bn-something-something-v1" / name, 3)
    prepared = prepare_official("sthv1", root, root)
    assert {split: (found.listed, found.written) for split, found in prepared.lists.items()} == {
        "train": (3, 2), "val": (1, 1), "test": (2, 1),
    }  # fmt: skip
    assert (root / "train.txt").read_text() == "20bn-something-something-v1/3 1\n20bn-something-something-v1/12 0\n"
    assert (root / "test.txt").read_text() == "20bn-something-something-v1/6\n"
    assert (root / "labels.txt").read_text() == "Turning something upside down\nHolding something\n"
    train = VideoList.read(root / "train.txt")
    index = VideoIndex.build(train, workers=0)
    assert [index[entry].num_frames for entry in train.entries] == [3, 3]
    assert VideoList.read(root / "test.txt").entries[0].label is None


def something_v2(folder: Path) -> None:
    write(folder, "labels.json", json.dumps({"Holding something": "0", "Turning something upside down": "1"}))
    for split, ids in (("train", ("1", "2")), ("validation", ("3",))):
        items = [{"id": id, "template": "Holding [something]", "label": "holding x"} for id in ids]
        write(folder, f"{split}.json", json.dumps(items))
    write(folder, "test.json", json.dumps([{"id": "4"}, {"id": "5"}]))


def test_something_v2_test_videos_get_the_published_answers(tmp_path: Path) -> None:
    something_v2(tmp_path / "labels")
    touch(tmp_path / "videos", "1.webm", "2.mp4", "3.webm", "4.webm", "5.webm")
    prepared = prepare_official("sthv2", tmp_path / "videos", tmp_path / "a", annotations=tmp_path / "labels")
    assert [entry.label for entry in VideoList.read(tmp_path / "a" / "test.txt").entries] == [None, None]
    assert [found.missing for found in prepared.lists.values()] == [(), (), ()]
    assert prepared.missing_file is None
    assert not (tmp_path / "a" / "missing.txt").exists()
    answers = write(tmp_path / "labels", "test-answers.csv", "4;Turning something upside down\n5;Holding something\n")
    prepare_official("sthv2", tmp_path / "videos", tmp_path / "b", annotations=tmp_path / "labels")
    assert [entry.label for entry in VideoList.read(tmp_path / "b" / "test.txt").entries] == [1, 0]
    answers.write_text("4;Turning something upside down\n")
    prepared = prepare_official("sthv2", tmp_path / "videos", tmp_path / "c", annotations=tmp_path / "labels")
    assert any("does not answer all of" in note for note in prepared.notes)


def test_a_video_that_lies_in_two_split_folders_is_taken_from_its_own(tmp_path: Path) -> None:
    something_v2(tmp_path)
    touch(tmp_path, "train/1.webm", "train/2.webm", "train/3.webm", "val/3.webm", "val/1.webm")
    prepare_official("sthv2", tmp_path, tmp_path)
    lists = [VideoList.read(tmp_path / f"{split}.txt").entries for split in ("train", "val")]
    assert [[entry.id for entry in entries] for entries in lists] == [["train/1.webm", "train/2.webm"], ["val/3.webm"]]


def test_nothing_missing_any_more_empties_the_file_of_the_missing(tmp_path: Path) -> None:
    touch(tmp_path, "v/a.mp4")
    path = write(tmp_path, "list.txt", "a.mp4 0\nb.mp4 1\n")
    out = tmp_path / "lists"
    assert prepare_lists({"train": path}, out, root=tmp_path / "v").missing_file == out / "missing.txt"
    touch(tmp_path, "v/b.mp4")
    (out / "train.txt").unlink()
    assert prepare_lists({"train": path}, out, root=tmp_path / "v").missing_file is None
    assert (out / "missing.txt").read_text() == ""


def test_own_lists_lose_what_is_missing_and_find_other_suffixes(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    touch(root, "walk/a.webm", "walk/b.mp4", "run/c.mp4", "run/d e.mkv")
    train = write(tmp_path, "ann.csv", "path,label\nwalk/a.mp4,0\nwalk/b.mp4,0\nrun/gone.mp4,1\n")
    val = write(tmp_path, "val_list.txt", "run/c.mp4 300 1\nrun/d e.mkv 200 1\nwalk/b.mp4 120 0\n")
    labels = write(tmp_path, "names.json", '{"walk": 0, "run": 1, "swim": 2}')
    prepared = prepare_lists({"train": train, "val": val}, tmp_path / "out", root=root, labels=labels)
    assert (tmp_path / "out" / "train.txt").read_text() == f"{root}/walk/a.webm 0\n{root}/walk/b.mp4 0\n"
    assert (tmp_path / "out" / "val.txt").read_text().splitlines()[1] == f"{root}/run/d e.mkv 1"
    assert (tmp_path / "out" / "missing.txt").read_text() == "train run/gone.mp4\n"
    assert prepared.labels == ("walk", "run", "swim")
    assert prepared.notes == (
        "1 videos have another suffix than the list says; they are listed as they are",
        "1 videos are in train.txt and in val.txt",
        "1 classes have no video to train on: run",
        "1 of 3 classes have no video at all: swim",
    )


def test_frame_counts_of_frame_folders_are_kept(tmp_path: Path) -> None:
    write_frames(tmp_path / "a", 5)
    write_frames(tmp_path / "walk 2", 5)
    path = write(tmp_path, "frames.txt", "a 4 0\nwalk 2 5 1\n")
    prepare_lists({"train": path}, tmp_path)
    assert (tmp_path / "train.txt").read_text() == 'a 4 0\n"walk 2" 5 1\n'
    assert [entry.num_frames for entry in VideoList.read(tmp_path / "train.txt").entries] == [4, 5]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"train": "a.mp4 0\n", "val": "b.mp4 1 2 3\n"}, "val.txt:1: 'b.mp4 1 2 3'"),
        ({"train": f"{HEADER}zumba,a,0,10,validate\n"}, "is given for train, but holds videos of val"),
        ({"train": "nowhere.mp4 0\n"}, "none of the 1 listed videos"),
    ],
)
def test_own_lists_that_cannot_be_right_are_refused(tmp_path: Path, files: dict[str, str], words: str) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    paths = {split: write(tmp_path, f"{split}.txt", text) for split, text in files.items()}
    with pytest.raises(DataError) as caught:
        prepare_lists(paths, tmp_path / "out")
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_lists_with_different_class_names_are_not_mixed(tmp_path: Path) -> None:
    for folder, names in (("one", "walk\nrun\n"), ("two", "run\nwalk\n")):
        touch(tmp_path / folder, "a.mp4")
        write(tmp_path / folder, "labels.txt", names)
        write(tmp_path / folder, "list.txt", "a.mp4 0\n")
    files = {"train": tmp_path / "one" / "list.txt", "val": tmp_path / "two" / "list.txt"}
    with pytest.raises(DataError, match="name different classes"):
        prepare_lists(files, tmp_path / "out")
    with pytest.raises(DataError, match="nothing to prepare"):
        prepare_lists({}, tmp_path / "out")


def test_a_folder_that_is_split_already_keeps_its_split(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    touch(
        root,
        "train/walk/a.mp4",
        "train/walk/b.mp4",
        "train/run/c.mp4",
        "validation/run/d.mp4",
        "test/swim/e.mp4",
        "readme.txt",
    )
    (root / "train" / "swim").mkdir()
    split = split_folder(root, tmp_path / "lists")
    assert split.given
    assert (split.labels, split.train, split.val, split.test) == (
        ("run", "swim", "walk"),
        (1, 0, 2),
        (1, 0, 0),
        (0, 1, 0),
    )
    assert [entry.label for entry in VideoList.read(tmp_path / "lists" / "test.txt").entries] == [1]
    assert VideoList.read(tmp_path / "lists" / "val.txt").entries[0].path == root / "validation" / "run" / "d.mp4"


def test_a_folder_with_train_and_test_alone_gives_a_part_of_train_to_val(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    touch(root, *(f"train/walk/{number}.mp4" for number in range(8)), "test/walk/x.mp4")
    split = split_folder(root, tmp_path / "lists", val=0.25)
    assert (split.train, split.val, split.test) == ((6,), (2,), (1,))


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "train/walk/a.mp4", "val/walk/b.mp4", "validation/walk/c.mp4")
    with pytest.raises(DataError, match="several folders for val: val, validation"):
        split_folder(tmp_path, tmp_path / "lists")


FILE_NAMES = st.text(
    st.sampled_from("ab 12,.-_'\"#;[é一"), min_size=1, max_size=10
).filter(lambda name: name == name.strip() and not name.startswith("."))  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(FILE_NAMES, st.sets(FILE_NAMES, min_size=2, max_size=4), min_size=1, max_size=3), st.booleans())
def test_prepared_folders_read_back_whatever_the_names(classes: dict[str, set[str]], inside: bool) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder) / "videos"
        for name, videos in classes.items():
            touch(root, *(f"{name}/{video}.mp4" for video in videos))
        out = root if inside else Path(folder) / "lists"
        split = split_folder(root, out)
        read = [(entry.path, entry.label) for entry in both(out)]
        wanted = [
            (root / name / f"{video}.mp4", split.labels.index(name)) for name in classes for video in classes[name]
        ]
        assert sorted(read) == sorted(wanted)
        # Those lists, prepared once more, say the same.
        again = Path(folder) / "again"
        prepare_lists({"train": out / "train.txt", "val": out / "val.txt"}, again)
        assert [(entry.path, entry.label) for entry in both(again)] == read
        assert VideoList.read(again / "val.txt").labels == list(split.labels)


def both(folder: Path) -> Iterator:
    for split in ("train", "val"):
        yield from VideoList.read(folder / f"{split}.txt").entries


def test_a_relative_output_folder_means_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "v/walk/a.mp4", "v/walk/b.mp4")
    monkeypatch.chdir(tmp_path)
    split_folder("v", "v", val=0.5)
    assert sorted(os.listdir("v")) == ["labels.txt", "train.txt", "val.txt", "walk"]
    assert (tmp_path / "v" / "train.txt").read_text() in ("walk/a.mp4 0\n", "walk/b.mp4 0\n")
    split_folder("v", "lists", val=0.5)
    assert (tmp_path / "lists" / "train.txt").read_text().startswith(f"{tmp_path}/v/walk/")
