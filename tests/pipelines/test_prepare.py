"""Folders of videos to lists: what is chosen, what is written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.annotations import VideoList
from pipelines.errors import DataError
from pipelines.prepare import split_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Names alone decide a split, so the files are empty."""
    for name, count in (("walk", 8), ("run fast", 5), ("jump", 1)):
        for number in range(count):
            path = tmp_path / "videos" / name / f"clip {number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "videos" / "walk" / "notes.txt").touch()
    (tmp_path / "videos" / "walk" / ".hidden.mp4").touch()
    (tmp_path / "videos" / "papers").mkdir()
    return tmp_path / "videos"


def test_split_is_stratified_and_complete(root: Path, tmp_path: Path) -> None:
    split = split_folder(root, tmp_path / "lists", val=0.25)
    assert split.labels == ("jump", "run fast", "walk")
    assert (split.train, split.val) == ((1, 4, 6), (0, 1, 2))
    assert (split.ignored, split.empty) == (1, ("papers",))
    train, val = (VideoList.read(tmp_path / "lists" / f"{name}.txt") for name in ("train", "val"))
    assert train.labels == val.labels == ["jump", "run fast", "walk"]
    paths = [entry.path for entry in train.entries + val.entries]
    assert sorted(paths) == sorted(root.glob("*/clip*.mp4"))
    for entry in train.entries + val.entries:
        assert entry.label is not None
        assert entry.path.parent.name == split.labels[entry.label]


def test_split_depends_on_the_seed_alone_and_not_on_other_classes(root: Path, tmp_path: Path) -> None:
    def val_of(out: str, seed: int) -> list[str]:
        split_folder(root, tmp_path / out, val=0.4, seed=seed)
        return [f"{e.path.parent.name}/{e.path.name}" for e in VideoList.read(tmp_path / out / "val.txt").entries]

    first = val_of("a", 0)
    assert val_of("b", 0) == first
    assert any(val_of(f"s{seed}", seed) != first for seed in (1, 2, 3))
    (root / "climb").mkdir()
    for name in ("x.avi", "y.avi"):
        (root / "climb" / name).touch()
    assert [path for path in val_of("c", 0) if not path.startswith("climb/")] == first


def test_paths_are_relative_inside_the_output_folder_and_absolute_elsewhere(root: Path, tmp_path: Path) -> None:
    split_folder(root, root)
    assert (root / "val.txt").read_text().splitlines()[0].startswith("run fast/clip ")
    split_folder(root, tmp_path / "lists")
    assert (tmp_path / "lists" / "val.txt").read_text().splitlines()[0].startswith(f"{root}/run fast/clip ")


def test_the_same_split_again_is_fine_and_other_lists_are_never_overwritten(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    split_folder(root, out, val=0.25)
    split_folder(root, out, val=0.25)
    before = (out / "train.txt").read_text()
    with pytest.raises(DataError, match=r"train\.txt exists and says something else"):
        split_folder(root, out, val=0.6)
    assert (out / "train.txt").read_text() == before


def test_even_an_extreme_part_leaves_both_lists_something(root: Path, tmp_path: Path) -> None:
    assert split_folder(root, tmp_path / "low", val=0.001).val == (0, 1, 1)
    assert split_folder(root, tmp_path / "high", val=0.999).train == (1, 1, 1)


@pytest.mark.parametrize("val", [0.0, 1.0, -0.5, 2.0])
def test_impossible_parts_are_refused(root: Path, tmp_path: Path, val: float) -> None:
    with pytest.raises(DataError, match="must lie between 0 and 1"):
        split_folder(root, tmp_path / "lists", val=val)


def test_folders_without_enough_videos_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    (root / "only").mkdir(parents=True)
    with pytest.raises(DataError, match="no videos in"):
        split_folder(root, tmp_path / "lists")
    (root / "only" / "one.mp4").touch()
    with pytest.raises(DataError, match="nothing is left to validate on"):
        split_folder(root, tmp_path / "lists")
    with pytest.raises(DataError, match="is not a folder"):
        split_folder(tmp_path / "missing", tmp_path / "lists")


@pytest.mark.parametrize("name", ["two\nlines.mp4", b"latin\xe9.mp4"])
def test_names_that_no_list_can_hold_are_refused(root: Path, tmp_path: Path, name: str | bytes) -> None:
    folder = root / "walk"
    (folder / (name if isinstance(name, str) else name.decode("utf-8", "surrogateescape"))).touch()
    with pytest.raises(DataError, match="rename it"):
        split_folder(root, tmp_path / "lists")
    assert not (tmp_path / "lists").exists()


def test_output_that_cannot_be_written_is_one_clear_error(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write the lists to"):
        split_folder(root, tmp_path / "file" / "lists")


def test_real_folder_of_fights(real_videos: Path, tmp_path: Path) -> None:
    split = split_folder(real_videos / "fights", tmp_path)
    assert split.labels == ("fight", "nofight")
    assert [a + b for a, b in zip(split.train, split.val, strict=True)] == [
        len(list((real_videos / "fights" / name).glob("*.mp4"))) for name in split.labels
    ]
    assert split.val == (8, 8)
