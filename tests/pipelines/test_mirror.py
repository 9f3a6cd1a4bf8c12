"""Labels that name a side change with the flip: pairs are found by text, in any order, and nothing else moves."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import ClipSpec, VideoEntry, VideoInfo, make_plan
from pipelines.errors import DataError, SettingsError
from pipelines.mirror import NOT_FLIPPED, SHIPPED, from_texts, mirror_classes
from pipelines.motion.scene import CLASSES

# The order that version 1 gives them among its 174, with some that must not be touched.
SOMETHING = [
    "Holding something",
    "Turning the camera left while filming something",
    "Turning the camera right while filming something",
    "Pushing something from left to right",
    "Pushing something from right to left",
    "Pulling something from right to left",
    "Pulling something from left to right",
    "Laying something on the table on its side, not upright",
    "Plugging something into something but pulling it right out as you remove your hand",
]
INFO = VideoInfo(num_frames=300, fps=30.0, width=427, height=240, codec="h264")


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("order", [range(9), range(8, -1, -1), [4, 8, 0, 2, 6, 1, 3, 7, 5]])
def test_something_pairs_by_text_in_the_order_of_either_version(
    name: str, order: Any, caplog: pytest.LogCaptureFixture
) -> None:
    labels = [SOMETHING[number] for number in order]
    partners = [labels[partner] for partner in mirror_classes(name, labels, 9)]
    pairs = {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5}
    assert partners == [SOMETHING[pairs.get(number, number)] for number in order]
    assert not caplog.records  # pulling it right out is no side


def test_names_that_are_not_the_data_sets_are_refused() -> None:
    with pytest.raises(DataError, match="no class 'Pulling something from left to right'"):
        mirror_classes("something-v2", ["left", "right"], 2)
    with pytest.raises(DataError, match=r"put labels\.txt"):
        mirror_classes("something-v1", None, 174)
    with pytest.raises(DataError, match="2 class names for 3 classes"):
        mirror_classes("labels", ["left", "right"], 3)


def test_other_names_pair_by_whole_words_and_the_lonely_are_said(caplog: pytest.LogCaptureFixture) -> None:
    labels = [
        "Swiping Left", "swiping right", "turn_left", "turn_right", "Counter-clockwise", "clockwise", "copyright leftover",
        "left-handed serve", "look leftwards",
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING, "pipelines"):
        result = mirror_classes("labels", labels, len(labels))
    assert result == (1, 0, 3, 2, 5, 4, 6, NOT_FLIPPED, NOT_FLIPPED)
    assert "2 of 9 classes name a side" in caplog.text
    assert "left-handed serve; look leftwards" in caplog.text


def test_the_bundled_data_set_mirrors_as_its_scenes_do() -> None:
    result = from_texts(CLASSES)
    swapped = {CLASSES[a]: CLASSES[b] for a, b in enumerate(result) if a != b}
    assert swapped == {"left": "right", "right": "left", "clockwise": "anticlockwise", "anticlockwise": "clockwise"}


def test_names_that_read_alike_are_refused() -> None:
    with pytest.raises(DataError, match="classes 0 and 2 have the same name"):
        from_texts(["Turn  left", "turn right", "turn left"])


@given(st.lists(st.lists(st.sampled_from(["left", "right", "up", "clockwise"]), max_size=4), max_size=8))
def test_maps_made_from_names_pair_up(words: list[list[str]]) -> None:
    labels = sorted({" ".join(name) for name in words})
    result = from_texts(labels)
    assert all(result[partner] == number for number, partner in enumerate(result) if partner != NOT_FLIPPED)
    assert not labels or ClipSpec(flip_labels=result).flip_labels == result


def test_files_name_pairs_and_classes_that_must_not_be_flipped(tmp_path: Path) -> None:
    path = tmp_path / "mirror.txt"
    path.write_text("0 3\n\n2\n")
    assert mirror_classes(path, None, 5) == (3, 1, NOT_FLIPPED, 0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1\n1 2\n", r":2: '1 2': class 1 is named twice, so the map does not pair up"),
        ("0 0\n", r":1: '0 0': class 0 is named twice"),
        ("0 5\n", r":1: '0 5': there is no class 5, they are 0…4"),
        ("left right\n", r":1: 'left right': expected two class numbers"),
        ("0 1 2\n", r":1: '0 1 2': expected two class numbers"),
    ],
)
def test_files_that_do_not_pair_up_are_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mirror.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"mirror\.txt{message}"):
        mirror_classes(path, None, 5)


def test_a_name_that_is_neither_known_nor_a_file_says_what_is() -> None:
    with pytest.raises(DataError, match="none of labels, something-v1, something-v2, and cannot be read as a file"):
        mirror_classes("something-v3", ["a"], 1)


def test_flipped_clips_take_the_partners_label_and_others_are_not_flipped() -> None:
    spec = ClipSpec(flip=0.5, flip_labels=(1, 0, 2, NOT_FLIPPED))
    for label, mirrored in ((0, 1), (1, 0), (2, 2)):
        plans = [plan(spec, label, id) for id in range(400)]
        flipped = sum(bool(p.flips[0]) for p in plans)
        assert 140 < flipped < 260
        assert all(p.label == (mirrored if p.flips[0] else label) for p in plans)
    assert not any(plan(spec, 3, id).flips[0] for id in range(400))
    assert {plan(spec, 3, id).label for id in range(20)} == {3}
    assert (
        sum(bool(plan(spec, None, id).flips[0]) for id in range(400)) > 140
    )  # without labels there is nothing to exchange


def test_the_map_changes_no_other_draw() -> None:
    for id in range(20):
        plain, mapped = plan(ClipSpec(), 0, id), plan(ClipSpec(flip_labels=(1, 0)), 0, id)
        assert np.array_equal(plain.indices, mapped.indices)
        assert np.array_equal(plain.boxes, mapped.boxes)
        assert np.array_equal(plain.flips, mapped.flips)
        assert plan(ClipSpec(flip_labels=(1, 0)), 0, id, training=False).label == 0


@pytest.mark.parametrize(
    ("flip_labels", "word"),
    [
        ((1, 2, 0), "does not pair up"),
        ((0, 5), "class 1 to 5"),
        ((-2, 0), "class 0 to -2"),
        ((1, -1), "does not pair up"),
    ],
)
def test_maps_that_do_not_pair_up_are_refused(flip_labels: tuple[int, ...], word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        ClipSpec(flip_labels=flip_labels)


def test_a_label_outside_the_map_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"flip_labels has 2 classes, but a\.mp4 is of class 7"):
        plan(ClipSpec(flip=1, flip_labels=(1, 0)), 7, 0)


def plan(spec: ClipSpec, label: int | None, id: int, *, training: bool = True) -> Any:
    return make_plan(VideoEntry(Path("a.mp4"), label, "a.mp4"), INFO, spec, training=training, seed=0, epoch=0, id=id)
