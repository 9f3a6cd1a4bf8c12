"""`tin-cli data prepare`: copies of real videos as users have them, to lists that train, test and index take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import VideoList

HEADER = "label,youtube_id,time_start,time_end,split\n"


@pytest.fixture
def copy(real_videos: Path, tmp_path: Path) -> Path:
    """Kinetics as it is after a download: links to real files in class folders, and the official csv files."""
    folder = real_videos / "fights"
    lines = {"train": [HEADER], "val": [HEADER]}
    for name in ("fight", "nofight"):
        for number, file in enumerate(sorted((folder / name).glob("*.mp4"))[:6]):
            split = "val" if number > 3 else "train"
            id = f"{name[:5]:_<9}-{number}"
            lines[split].append(f"{name} scene,{id},{number},{number + 10},{split}\n")
            if number != 1:
                place = (
                    tmp_path / "k400" / split / f"{name}_scene" / f"{id}_{number:06d}_{number + 10:06d}{file.suffix}"
                )
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(file)
    for split, rows in lines.items():
        (tmp_path / "k400" / f"{split}.csv").write_text("".join(rows))
    return tmp_path / "k400"


def test_kinetics_from_the_official_files_to_an_index(cli: Callable, copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    result = cli("data", "prepare", "k400", copy, "--out", out)
    assert (result.status, result.err) == (0, "")
    table = [line.split() for line in result.out.splitlines()]
    assert ["train", "8", "listed", "6", "there", "2", "missing", f"{out}/train.txt"] in table
    assert ["val", "4", "listed", "4", "there", "0", "missing", f"{out}/val.txt"] in table
    assert f"2 classes in {out}/labels.txt" in result.out
    assert f"the missing videos are named in {out}/missing.txt" in result.out
    assert "note: 2 classes where k400 has 400: train with --num-classes 2" in result.out
    assert (out / "labels.txt").read_text() == "fight scene\nnofight scene\n"
    result = cli("data", "index", out / "train.txt")
    assert "6 of 6 videos readable" in result.out


def test_index_reads_the_official_file_itself(cli: Callable, copy: Path) -> None:
    result = cli("data", "index", copy / "train.csv", "--root", copy, "--format", "kinetics")
    assert result.status == 0
    assert "6 of 8 videos readable" in result.out
    assert "fight____-1_000001_000011: " in result.out


@pytest.mark.slow
def test_a_copy_trains_and_its_official_csv_is_scored(cli: Callable, copy: Path, tmp_path: Path) -> None:
    out, small = tmp_path / "lists", ("--set", "data.input_size=32", "--set", "data.short_side=40", "--workers", 1)
    assert cli("data", "prepare", "k400", copy, "--out", out).status == 0
    result = cli(
        "train", "--recipe", "tin_motion", "--data", out, "--num-classes", 2, "--epochs", 1, "--batch-size", 3,
        "--work-dir", tmp_path / "run", *small,
    )  # fmt: skip
    assert result.status == 0, result.err
    result = cli(
        "test", "--checkpoint", tmp_path / "run" / "best.pt", "--list", copy / "train.csv", "--root", copy,
        "--format", "kinetics", "--out", tmp_path / "result.json", "--workers", 1,
    )  # fmt: skip
    assert result.status == 0, result.err
    assert "6 of 8 videos scored, 2 failed" in result.out
    assert json.loads((tmp_path / "result.json").read_text())


def test_something_v2_finds_its_files_in_a_folder_named_labels(
    cli: Callable, real_videos: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "v2" / "labels"
    labels.mkdir(parents=True)
    (tmp_path / "v2" / "166766.mp4").symlink_to(real_videos / "codecs" / "ssv2_id166766_webm_named_mp4.mp4")
    (labels / "labels.json").write_text('{"Holding something": "1", "Turning something": "0"}')
    for split in ("train", "validation"):
        (labels / f"{split}.json").write_text('[{"id": "166766", "template": "Holding [something]"}]')
    result = cli("data", "prepare", "sthv2", tmp_path / "v2", "--out", tmp_path / "lists")
    assert (result.status, result.err) == (0, "")
    assert "note: 1 videos are in train.txt and in val.txt" in result.out
    assert [entry.label for entry in VideoList.read(tmp_path / "lists" / "val.txt").entries] == [1]


def test_own_lists(cli: Callable, copy: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("fight____-4 300 0\nnofig____-5 300 1\ngone_______ 300 1\n")
    (tmp_path / "map.json").write_text('{"fighting": 0, "peace": 1}')
    out = tmp_path / "lists"
    result = cli(
        "data", "prepare", "list", "--val", tmp_path / "ids.txt", "--root", copy, "--labels", tmp_path / "map.json", "--out", out
    )  # fmt: skip
    assert (result.status, result.err) == (0, "")
    videos = VideoList.read(out / "val.txt")
    assert [(entry.path.name, entry.label) for entry in videos.entries] == [
        ("fight____-4_000004_000014.mp4", 0), ("nofig____-5_000005_000015.mp4", 1),
    ]  # fmt: skip
    assert videos.labels == ["fighting", "peace"]
    assert (out / "missing.txt").read_text() == "val gone_______\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4 1\nb.mp4 1 2\nc.mp4 0\n", "ids.txt:2: 'b.mp4 1 2': 2 numbers after the path; expected `path label`. A list with several"),
        ("a.mp4 1\nb.mp4 1 2\n", "ids.txt:1: 'a.mp4 1': expected `path frames label`, as in most lines of the list; several labels"),
        ("a.mp4 0 0.0 4.5\n", "ids.txt:1: 'a.mp4 0 0.0 4.5': looks like `path label start end`"),
        ("a.mp4 1\nb.mp4\n", "ids.txt:2: 'b.mp4': expected `path label`, as in most lines of the list"),
        ("gone.mp4 1\n", "none of the 1 listed videos is in"),
    ],
)  # fmt: skip
def test_wrong_lists_are_one_clear_line(cli: Callable, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "ids.txt").write_text(text)
    result = cli("data", "prepare", "list", "--train", tmp_path / "ids.txt", "--out", tmp_path / "out")
    assert result.status == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
