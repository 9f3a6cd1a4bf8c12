"""The figures of a list are those of its files, and the decode cost is what the decoder really does."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import ClipSpec, VideoIndex, VideoList
from pipelines.chart import draw_stats
from pipelines.cost import expected_decode_cost, frames_to_decode
from pipelines.decode import Tally, decode_frames
from pipelines.errors import DataError
from pipelines.probe import VideoInfo, probe
from pipelines.stats import VALUES, list_stats, quantiles
from tests.pipelines.videos import codecs, listed, write_frames

SPEC = ClipSpec()


def test_frames_to_decode_counts_groups_up_to_their_last_wanted_frame() -> None:
    info = VideoInfo(num_frames=40, keyframes=(0, 10, 20, 30))
    assert frames_to_decode(info, [0]) == 1
    assert frames_to_decode(info, [9]) == 10
    assert frames_to_decode(info, [10, 3]) == 5
    assert frames_to_decode(info, [12, 17, 17, 35]) == 8 + 6
    assert frames_to_decode(VideoInfo(num_frames=40), [39]) == 40
    assert frames_to_decode(VideoInfo(num_frames=40, keyframes=(5, 15)), [2, 7]) == 3 + 3
    assert frames_to_decode(VideoInfo(num_frames=40, template="{:05}.jpg"), [3, 3, 39]) == 2


@given(st.sets(st.integers(0, 59), min_size=1), st.sets(st.integers(1, 59)))
def test_frames_to_decode_is_the_number_of_frames_that_some_wanted_frame_needs(
    wanted: set[int], keys: set[int]
) -> None:
    info = VideoInfo(num_frames=60, keyframes=(0, *sorted(keys)))
    needed = {frame for w in wanted for frame in range(max(k for k in info.keyframes if k <= w), w + 1)}
    assert frames_to_decode(info, sorted(wanted)) == len(needed)


def test_expected_cost_is_one_of_keyframes_alone_and_grows_with_the_groups() -> None:
    costs = [
        expected_decode_cost(
            VideoInfo(num_frames=300, width=340, height=256, keyframes=tuple(range(0, 300, gop))), SPEC
        )
        for gop in (1, 4, 8, 32, 300)
    ]
    assert costs[0] == 1.0
    assert costs == sorted(costs)
    assert 2 < costs[1] < 3  # (1 + 2 + 3 + 4) / 4, since no group of four has two of the eight frames
    assert 30 < costs[-1] < 300 / 8


def test_testing_costs_what_its_own_frames_cost() -> None:
    info = VideoInfo(num_frames=80, width=340, height=256, keyframes=(0, 40))
    assert expected_decode_cost(info, SPEC, training=False) == (36 + 36) / 8  # frames 5, 15, … 35 and 45 … 75


@pytest.fixture(scope="module")
def real_list(real_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoList, VideoIndex]:
    folder = tmp_path_factory.mktemp("real")
    videos = listed(folder, [row["file"] for row in codecs(real_videos)], real_videos / "codecs")
    return videos, VideoIndex.build(videos)


def test_figures_are_those_of_the_files(real_list: tuple[VideoList, VideoIndex], real_videos: Path) -> None:
    stats = list_stats(*real_list, SPEC)
    rows = [row for row in codecs(real_videos) if row["codec"]]
    assert (stats.videos, stats.unreadable, stats.readable) == (len(rows) + 1, 1, len(rows))
    assert set(stats.values) == set(VALUES)
    assert stats.frames == sum(int(row["decoded"]) for row in rows) + 22  # corrupted.mp4 has 50 packets and decodes 28
    assert stats.bytes == sum((real_videos / "codecs" / row["file"]).stat().st_size for row in rows)
    assert stats.codecs == Counter({"libdav1d": "av1"}.get(row["codec"], row["codec"]) for row in rows)
    assert stats.rotations == Counter(int(row["rot"]) % 360 for row in rows)
    assert sum(stats.classes.values()) == len(rows)
    assert list(stats.classes.values()).count(0) == 1  # the class of the unreadable file is there, and empty
    found = quantiles(stats.values["frames"])
    assert (found["least"], found["most"]) == (3, 332)
    assert found["mean"] == pytest.approx(stats.frames / len(rows))


def test_durations_and_rates_are_those_of_the_files(real_list: tuple[VideoList, VideoIndex], real_videos: Path) -> None:
    videos, index = real_list
    uneven = set()
    for entry, row in zip(videos.entries, codecs(real_videos), strict=True):
        info = index[entry]
        if info.error is not None:
            continue
        if info.variable_rate:
            uneven.add(entry.id)
        elif row["fps"]:
            assert info.fps == pytest.approx(float(row["fps"]), rel=1e-4), entry.id
        assert info.duration == pytest.approx(info.num_frames / info.fps, rel=2e-3), entry.id
    assert uneven == {
        "no_duration.webm", "phone_rot180_vfr.mp4", "rawvideo_part_0.mp4", "vfr_gap_1080p_demo_skeleton.mp4",
        *(entry.id for entry in videos.entries if "hmdb51" in entry.id),  # after their first frame the time of one is empty
    }  # fmt: skip


def test_the_picture_is_a_png_whatever_the_list_lacks(real_list: tuple[VideoList, VideoIndex], tmp_path: Path) -> None:
    path = draw_stats(list_stats(*real_list, SPEC), tmp_path / "new" / "real.png")
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (1430, 770)
    write_frames(tmp_path / "f", 3)  # no labels, one length, no duration, no file size
    (tmp_path / "l.txt").write_text("f\n")
    videos = VideoList.read(tmp_path / "l.txt")
    stats = list_stats(videos, VideoIndex.build(videos, workers=0), SPEC)
    assert stats.classes == Counter()
    assert stats.values["decode cost"].tolist() == [3 / 8]
    assert draw_stats(stats, tmp_path / "f.png").stat().st_size > 1000


def test_nothing_readable_is_nothing_to_draw(tmp_path: Path) -> None:
    videos = listed(tmp_path, ["missing.mp4"])
    stats = list_stats(videos, VideoIndex.build(videos, workers=0), SPEC)
    assert stats.frames == 0
    with pytest.raises(DataError, match="no video of list is readable"):
        draw_stats(stats, tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "drops"),
    [
        ("ssv2_id166766_webm_named_mp4.mp4", False),
        ("odd321x241_vp9.mp4", False),
        ("ucf101_v_SoccerJuggling_g23_c01.avi", False),
        ("k400_arm_wrestling_demo.mp4", True),
    ],
)
def test_the_cost_is_what_the_decoder_does(real_videos: Path, name: str, drops: bool) -> None:
    """Of H.264 the decoder leaves out frames that no other refers to: there the cost is about the most that it may do."""
    path = real_videos / "codecs" / name
    info = probe(str(path), None, None, False)
    rng = np.random.default_rng(0)
    for _ in range(5):
        indices = rng.integers(0, info.num_frames, 4)
        tally = Tally()
        decode_frames(path, indices, tally=tally)
        expected = frames_to_decode(info, indices)
        assert len(set(indices.tolist())) <= tally.frames <= expected
        assert drops or tally.frames == expected
