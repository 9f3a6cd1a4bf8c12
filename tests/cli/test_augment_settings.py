"""A recipe's augmentation reaches the loader: the map of mirrored labels is made from the list's own names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cli._data import Indexed, clip_spec, make_loader
from pipelines import VideoIndex, VideoList
from pipelines.errors import DataError
from tests.pipelines.videos import listed, write_video
from tin import recipes
from tin.distributed import World


@pytest.fixture
def videos(tmp_path: Path) -> VideoList:
    (tmp_path / "labels.txt").write_text("Turn left\nWave\nTurn right\n")
    return listed(tmp_path, [write_video(tmp_path / f"{number}.mp4").name for number in range(3)])


def settings(*overrides: str) -> recipes.Recipe:
    small = ("model.num_classes=3", "data.input_size=64", "data.short_side=80", "train.batch_size=3", "train.amp=off")
    return recipes.load("k400", [*small, *overrides])


def test_labels_are_exchanged_by_the_lists_own_names_in_training_alone(videos: VideoList) -> None:
    recipe = settings("data.flip_labels=labels")
    assert clip_spec(recipe, videos).flip_labels == (2, 1, 0)
    assert clip_spec(recipe).flip_labels is None
    assert clip_spec(settings(), videos).flip_labels is None


def test_a_flip_that_would_leave_sides_on_the_wrong_videos_is_said(
    videos: VideoList, caplog: pytest.LogCaptureFixture
) -> None:
    clip_spec(settings("data.flip=0"), videos)
    clip_spec(settings("data.flip_labels=labels"), videos)
    clip_spec(settings())
    assert not caplog.records
    clip_spec(settings(), videos)
    assert "2 class names have the word of a side, 'Turn left' for one" in caplog.text


def test_names_of_another_data_set_stop_the_run_before_it_starts(videos: VideoList) -> None:
    with pytest.raises(DataError, match="not that data set's labels"):
        clip_spec(settings("data.flip_labels=something-v2"), videos)


def test_everything_at_once_makes_a_loader(videos: VideoList) -> None:
    recipe = settings(
        "data.flip=1", "data.flip_labels=labels", "data.train_crop=random_resized", "data.crop_area=[0.3, 1]",
        "data.color_jitter={brightness=0.4, contrast=0.4}", "data.repeats=3", "data.class_balanced=0.5",
    )  # fmt: skip
    options: dict[str, Any] = {"device": torch.device("cpu"), "world": World(), "workers": 0}
    with make_loader(Indexed(videos, VideoIndex.build(videos)), recipe, training=True, **options) as loader:
        batches = list(loader)
    assert len(batches) == 3
    mirrored = {0: 2, 1: 1, 2: 0}  # the list's labels are its positions
    for batch in batches:
        assert batch.labels.tolist() == [mirrored[id] for id in batch.ids.tolist()]
        assert len(set(batch.ids.tolist())) == 1
        assert batch.frames.shape == (3 * 8, 3, 64, 64)
