"""Long videos: only the groups of pictures that are wanted are read, with the pixels of a full decode, in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines import ClipSpec, Loader, VideoIndex, decode, probe
from pipelines.decode import Tally, decode_frames
from pipelines.errors import DecodeError
from pipelines.media import file_state, open_video
from pipelines.probe import VideoInfo
from pipelines.seeking import MIN_KEYFRAMES, Group, Layout, pack_layout, read_group
from tests.pipelines.videos import codecs, listed, loop_video, rotate_header, write_video

BIKES = "bikes_640x272.mp4"
TURNS = 20  # of its ten seconds
SPREAD = np.array([7, 700, 1260, 1985, 2501, 3333, 4040, 4999])
# Prints by how many megabytes the process's largest size grows while a clip is decoded.
MEASURED = """
import re, sys
from pathlib import Path
from pipelines.decode import decode_frames
from pipelines.probe import probe
def largest():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
path, way = sys.argv[1:]
layout = probe(path, None, None, False).layout
decode_frames(path, [0, 1000], layout=layout)
before = largest()
options = {"sought": {"layout": layout}, "scanned": {}, "held": {"held_bytes": 1 << 40}}[way]
decode_frames(path, range(0, 24000, 4000), **options)
print(largest() - before)
"""


@pytest.fixture(scope="module")
def long(real_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Over three minutes of H.264, 120 keyframes."""
    return loop_video(real_videos / "codecs" / BIKES, tmp_path_factory.mktemp("long") / "long.mp4", TURNS)


@pytest.fixture
def every_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short videos have a layout too."""
    monkeypatch.setattr(probe, "MIN_KEYFRAMES", 1)


def info_of(path: Path) -> VideoInfo:
    return probe.probe(str(path), None, None, False)


def forbid(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise AssertionError(f"went on to {names}")

    for name in names:
        monkeypatch.setattr(decode, name, refuse)


def frames_at(path: Path, indices: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
    """By PyAV, which decodes and counts from the start."""
    with av.open(str(path), metadata_errors="ignore") as container:
        decoded = enumerate(container.decode(container.streams.video[0]))
        wanted = ((index, frame) for index, frame in decoded if index in indices)
        return {i: np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)) for i, frame in wanted}


def assert_same(
    path: Path, indices: Sequence[int], expected: Mapping[int, NDArray[np.uint8]], layout: Layout | None
) -> None:
    for index, frame in zip(indices, decode_frames(path, indices, layout=layout, held_bytes=0), strict=True):
        np.testing.assert_array_equal(frame, expected[index], f"{path.name} frame {index}")


def bytes_read(action: Callable[[], object]) -> int:
    """Of all files, by this process."""

    def so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = so_far()
    action()
    return so_far() - before


@pytest.mark.slow
@pytest.mark.usefixtures("every_layout")
def test_every_real_file_gives_the_frames_of_a_full_decode_sought_and_scanned(
    real_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    sought = 0
    for row in codecs(real_videos):
        count, path = int(row["decoded"] or 0), real_videos / "codecs" / row["file"]
        if count == 0 or row["error"]:
            continue
        layout = info_of(path).layout
        indices = [*rng.integers(0, count, 3).tolist(), count - 1, 0]
        expected = frames_at(path, indices)
        assert_same(path, indices, expected, None)
        if layout is not None:
            with monkeypatch.context() as patch:
                forbid(patch, "_decode_scanned", "_decode_from_start")
                assert_same(path, indices, expected, layout)
                assert_same(path, indices[:1], expected, layout)
            sought += 1
    assert sought >= 26  # all but .avi


def encode(target: Path, source: Path, codec: str, params: dict[str, str], **options: str) -> Path:
    """The first frames of a real video, small, in groups of 12 pictures."""
    with av.open(str(source)) as container, av.open(str(target), "w", options=options) as out:
        stream = out.add_stream(codec, rate=30, options={"g": "12", **params})
        stream.width, stream.height, stream.pix_fmt = 170, 128, "yuv420p"
        for number, frame in enumerate(container.decode(video=0)):
            if number == 100:
                break
            small = frame.reformat(170, 128, "yuv420p")
            small.pts, small.time_base, small.pict_type = number, Fraction(1, 30), 0
            out.mux(stream.encode(small))
        out.mux(stream.encode(None))
    return target


X264_OPEN = {"bf": "3", "x264-params": "open-gop=1:b-pyramid=normal:scenecut=0"}
X265_OPEN = {"preset": "ultrafast", "x265-params": "open-gop=1:keyint=12:bframes=4:scenecut=0:log-level=none"}
HIDDEN = {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "12"}


@pytest.mark.usefixtures("every_layout")
@pytest.mark.parametrize(
    ("name", "codec", "params", "options"),
    [
        ("open.mp4", "libx264", X264_OPEN, {}),
        ("open.mkv", "libx264", X264_OPEN, {}),
        ("no_index.mkv", "libx264", X264_OPEN, {"live": "1"}),
        ("fragments.mp4", "libx264", X264_OPEN, {"movflags": "frag_keyframe+empty_moov"}),
        ("pairs.mp4", "libx264", {**X264_OPEN, "g": "2"}, {}),
        ("all_key.mov", "libx264", {"g": "1"}, {}),
        ("open_hevc.mp4", "libx265", X265_OPEN, {}),
        ("open_hevc.mkv", "libx265", X265_OPEN, {}),
        ("hidden.webm", "libvpx-vp9", HIDDEN, {}),
        ("hidden8.webm", "libvpx", HIDDEN, {}),
        ("open_mpeg2.mkv", "mpeg2video", {"bf": "2"}, {}),
    ],
)
def test_each_frame_of_awkward_streams_and_containers_is_sought(
    real_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, codec: str, params: dict[str, str], options: dict[str, str],
) -> None:  # fmt: skip
    """Open groups, leading pictures, hidden frames, groups of one and two, no list of keyframes in the file."""
    path = encode(tmp_path / name, real_videos / "codecs" / "k400_SOX5yA1l24A.mp4", codec, params, **options)
    expected = frames_at(path, range(200))
    layout = info_of(path).layout
    assert layout is not None
    forbid(monkeypatch, "_decode_scanned", "_decode_from_start")
    for index in range(100):
        assert_same(path, [index], expected, layout)
    assert_same(path, [99, 3, 50, 3, 51], expected, layout)


@pytest.mark.usefixtures("every_layout")
def test_streams_without_any_whole_picture_are_still_decoded(real_videos: Path, tmp_path: Path) -> None:
    """Intra refresh: the 'keyframes' that such a file lists do not decode alone, so all ways but the longest fail."""
    params = {"x264-params": "intra-refresh=1"}
    path = encode(tmp_path / "a.mp4", real_videos / "codecs" / "k400_SOX5yA1l24A.mp4", "libx264", params)
    layout = info_of(path).layout
    assert layout is not None
    assert_same(path, [99, 30], frames_at(path, range(200)), layout)


@pytest.mark.usefixtures("every_layout")
def test_avi_has_no_layout_because_its_packets_have_other_times_after_a_seek(real_videos: Path) -> None:
    path = real_videos / "codecs" / "ucf101_v_SoccerJuggling_g23_c01.avi"
    assert len(info_of(path).keyframes) >= MIN_KEYFRAMES
    assert info_of(path).layout is None
    assert_same(path, [239, 17], frames_at(path, [239, 17]), None)  # two passes


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_of_a_long_video_only_the_wanted_groups_are_read_and_decoded(
    long: Path, real_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    source = real_videos / "codecs" / BIKES
    path = long if suffix == ".mp4" else loop_video(source, tmp_path / "long.mkv", TURNS)
    info = info_of(path)
    assert (info.num_frames, len(info.keyframes)) == (250 * TURNS, 6 * TURNS)
    forbid(monkeypatch, "_decode_scanned", "_decode_from_start")
    expected = frames_at(source, range(250))
    tally = Tally()
    frames: list[NDArray[np.uint8]] = []
    read = bytes_read(lambda: frames.extend(decode_frames(path, SPREAD, layout=info.layout, tally=tally)))
    assert read < 0.2 * info.bytes
    assert tally.frames <= 8 * 61  # the longest of its groups
    for index, frame in zip(SPREAD, frames, strict=True):
        np.testing.assert_array_equal(frame, expected[index % 250])


def test_the_frames_around_each_keyframe_of_a_long_video_are_the_right_ones(long: Path, real_videos: Path) -> None:
    expected = frames_at(real_videos / "codecs" / BIKES, range(250))
    info = info_of(long)
    near = sorted({min(max(key + step, 0), 4999) for key in info.keyframes[::7] for step in (-1, 0, 1)})
    for layout in (info.layout, None):
        for index, frame in zip(near, decode_frames(long, near, layout=layout, held_bytes=0), strict=True):
            np.testing.assert_array_equal(frame, expected[index % 250])


def test_what_wants_most_of_a_short_file_does_not_seek(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = info_of(long)
    assert info.layout is not None
    assert info.layout.groups(long, SPREAD.tolist(), whole_is_cheap=True) is not None
    assert info.layout.groups(long, range(0, 5000, 25), whole_is_cheap=True) is None
    forbid(monkeypatch, "_decode_sought")
    decode_frames(long, range(0, 300, 2), layout=Layout(*file_state(long), pack_layout(range(300), [0])))


def test_a_file_that_has_changed_is_decoded_by_what_is_in_it_now(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=200)
    old = info_of(path).layout
    assert old is not None
    write_video(path, frames=200, level=200)
    assert old.groups(path, [0], whole_is_cheap=False) is None
    assert decode_frames(path, [0, 150], layout=old, held_bytes=0).min() > 150


@pytest.mark.parametrize("shift", [-1, 1, 10**9])
def test_a_layout_that_is_not_the_files_is_found_out(tmp_path: Path, shift: int) -> None:
    path = write_video(tmp_path / "a.mp4", frames=200)
    with av.open(str(path)) as container:
        times = sorted(p.pts + shift for p in container.demux(video=0) if p.pts is not None)
    wrong = Layout(*file_state(path), pack_layout(times, times[::8]))
    assert_same(path, [3, 100, 199], frames_at(path, range(200)), wrong)
    with open_video(path) as (container, stream):
        assert list(read_group(container, stream, Group(times[80], {times[84]: 84}))) == []


def test_the_index_keeps_the_layout_of_long_videos_only(long: Path, tmp_path: Path) -> None:
    short = write_video(tmp_path / "short.mp4", frames=4 * MIN_KEYFRAMES)
    video_list = listed(tmp_path, [short, long])
    for _ in range(2):  # made, and read back
        index = VideoIndex.build(video_list, workers=0)
        infos = [index[entry] for entry in video_list.entries]
        assert infos[0].layout is None
        assert infos[1].layout == info_of(long).layout
        assert len(infos[1].packed_layout) < 1000


@pytest.mark.parametrize("degrees", [0, 90])
def test_the_loader_seeks(long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, degrees: int) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(long.read_bytes())
    rotate_header(path, degrees)
    os.link(path, tmp_path / "b.mp4")
    video_list = listed(tmp_path, ["a.mp4", "b.mp4"])
    index = VideoIndex.build(video_list, workers=0)
    spec = ClipSpec(num_segments=4, input_size=32, short_side=36)
    clips = []
    for refused in ((), ("_decode_scanned", "_decode_from_start")):
        with Loader(video_list, index, spec, batch_size=2, training=True, num_workers=0) as loader:
            forbid(monkeypatch, *refused)
            clips.append(next(iter(loader)).frames)
            assert not loader.failures
    assert clips[0].equal(clips[1])


@pytest.mark.usefixtures("every_layout")
def test_a_damaged_large_file_gives_what_precedes_and_is_not_decoded_from_its_start(
    real_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = real_videos / "codecs" / "corrupted.mp4"
    layout = info_of(path).layout
    forbid(monkeypatch, "_decode_from_start")
    for known in (layout, None):
        assert decode_frames(path, [0, 20], layout=known, held_bytes=0).shape == (2, 720, 1280, 3)
        with pytest.raises(DecodeError, match=r"corrupted\.mp4: frame 49 does not decode \(Invalid data"):
            decode_frames(path, [0, 49], layout=known, held_bytes=0)


@pytest.mark.slow
def test_a_large_file_is_not_held_in_memory(real_videos: Path, tmp_path: Path) -> None:
    path = loop_video(real_videos / "codecs" / "k400_WUzgd7C1pWA.mp4", tmp_path / "large.mp4", 90)
    megabytes = path.stat().st_size / 2**20
    assert path.stat().st_size > decode.HELD_BYTES
    grown = {}
    for way in ("sought", "scanned", "held"):
        result = subprocess.run(
            [sys.executable, "-c", MEASURED, path, way], check=True, capture_output=True, text=True,
            cwd=Path(decode.__file__).parents[1],
        )  # fmt: skip
        grown[way] = float(result.stdout)
    assert grown["held"] > 0.8 * megabytes
    assert max(grown["sought"], grown["scanned"]) < 0.3 * megabytes, grown
