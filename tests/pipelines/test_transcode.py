"""Copies show what their sources show, frame for frame and moment for moment; names, settings and labels never mix."""

from __future__ import annotations

import fcntl
import os
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipelines import VideoIndex, VideoList
from pipelines.decode import decode_frames
from pipelines.errors import DataError, SettingsError
from pipelines.media import open_video
from pipelines.probe import VideoInfo, probe
from pipelines.transcode import TranscodeSettings, TranscodeSummary, pick_encoder, transcode
from pipelines.transcode.encode import output_size, transcode_file
from tests.pipelines.videos import codecs, listed, rotate_header, write_frames, write_video


def run(videos: VideoList, out: Path, **settings: Any) -> TranscodeSummary:
    index = VideoIndex.build(videos, workers=0)
    return transcode(videos, index, out, TranscodeSettings(**settings), workers=2)


def copy_of(source: Path, tmp_path: Path, **settings: Any) -> tuple[Path, VideoInfo, VideoInfo]:
    """One copy, and what is known of source and copy."""
    before = probe(str(source), None, None, False)
    out = tmp_path / "copy.mp4"
    return out, before, transcode_file(str(source), str(out), before.num_frames, TranscodeSettings(**settings)).info


def moments(path: Path) -> list[Fraction]:
    with open_video(path) as (container, stream):
        return [frame.pts * frame.time_base for frame in container.decode(stream) if frame.pts is not None]


def psnr(source: Path, copy: Path, indices: list[int]) -> float:
    """Of the copy's frames against the source's scaled to their size, RGB, dB."""
    seen = decode_frames(copy, indices).astype(float)
    wanted = [
        av.VideoFrame.from_ndarray(frame, format="rgb24")
        .reformat(seen.shape[2], seen.shape[1], interpolation="BICUBIC", threads=1)
        .to_ndarray()
        for frame in decode_frames(source, indices)
    ]
    return float(10 * np.log10(255**2 / max(np.mean((np.stack(wanted) - seen) ** 2), 1e-9)))


@pytest.mark.slow
def test_every_real_file_gets_a_copy_of_as_many_upright_frames(real_videos: Path, tmp_path: Path) -> None:
    rows = {row["file"]: row for row in codecs(real_videos)}
    videos = listed(tmp_path, list(rows), real_videos / "codecs")
    done = run(videos, tmp_path / "out")
    assert [(entry.id, reason) for entry, reason in done.unreadable] == [
        ("audio_only_nasa.mp3", "has no video stream"),
        ("corrupted.mp4", "decoding fails after 28 frames (Invalid data found when processing input)"),
    ]
    assert (done.written, done.kept, done.refused) == (35, 0, 0)
    sources = [entry for entry in videos.entries if entry.id not in ("audio_only_nasa.mp3", "corrupted.mp4")]
    assert [entry.label for entry in done.videos.entries] == [entry.label for entry in sources]
    for source, copy in zip(sources, done.videos.entries, strict=True):
        before, after = probe(str(source.path), None, None, False), done.index[copy]
        assert copy.id == str(Path(source.id).with_suffix(".mp4"))
        assert after.num_frames == int(rows[source.id]["decoded"]), copy.id
        assert after.keyframes == tuple(range(0, after.num_frames, 8)), copy.id
        assert (after.codec, after.pixel_format, after.rotation, after.exact) == ("h264", "yuv420p", 0, True), copy.id
        assert (after.width, after.height) == output_size(before.width, before.height, 256), copy.id
        last = after.num_frames - 1
        assert psnr(source.path, copy.path, [0, last // 2, last]) > 22, (
            copy.id
        )  # another frame or a wrong turn: under 20


def test_a_copy_is_smaller_upright_and_decodes_to_the_source_s_frames(real_videos: Path, tmp_path: Path) -> None:
    source = real_videos / "codecs" / "nasa_rotated.mp4"
    out, before, after = copy_of(source, tmp_path, short_side=180, gop=4)
    assert (before.width, before.height, before.rotation) == (270, 480, 90)
    assert (after.width, after.height, after.rotation) == (180, 320, 0)
    assert after.keyframes == (0, 4, 8, 12, 16)
    assert psnr(source, out, list(range(17))) > 33
    with av.open(str(out)) as container:
        assert len(container.streams) == 1


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_each_rotation_is_baked_in(tmp_path: Path, degrees: int) -> None:
    source = rotate_header(write_video(tmp_path / "a.mp4", frames=9), degrees)
    out, before, after = copy_of(source, tmp_path)
    assert before.rotation == degrees
    assert (after.rotation, after.width, after.height) == (0, before.width, before.height)
    assert psnr(source, out, list(range(9))) > 35


@pytest.mark.parametrize("name", ["phone_rot180_vfr.mp4", "vfr_gap_1080p_demo_skeleton.mp4", "k400_SOX5yA1l24A.mp4"])
def test_time_stamps_are_copied(real_videos: Path, tmp_path: Path, name: str) -> None:
    source = real_videos / "codecs" / name
    out, _, after = copy_of(source, tmp_path, short_side=64, crf=40)
    before, copied = moments(source), moments(out)
    assert len(copied) == after.num_frames
    assert [moment - before[0] for moment in before] == copied


def test_time_stamps_that_go_back_are_made_to_rise(real_videos: Path, tmp_path: Path) -> None:
    source = real_videos / "codecs" / "ucf101_v_ApplyEyeMakeup_g01_c01.avi"
    before = moments(source)
    assert before != sorted(before)
    out, _, _ = copy_of(source, tmp_path, short_side=64, crf=40)
    copied = moments(out)
    assert copied == sorted(set(copied))
    assert max(abs(a - before[0] - b) for a, b in zip(before, copied, strict=True)) <= Fraction(2, 25)


@pytest.mark.parametrize("kind", ["bt709", "full range", "rgb", "10 bit"])
def test_colours_stay(real_videos: Path, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source.mkv"
    if kind == "10 bit":
        source = real_videos / "codecs" / "h264_10bits.mp4"
    else:
        colours = np.stack(np.meshgrid(np.linspace(0, 255, 128), np.linspace(0, 255, 96), indexing="xy"), axis=-1)
        image = np.concatenate([colours, 255 - colours[..., :1]], axis=-1).astype(np.uint8)
        with av.open(str(source), "w") as container:
            codec, form, best = {
                "bt709": ("libx264", "yuv420p", {"crf": "1"}),
                "full range": ("mjpeg", "yuvj420p", {"qmin": "1", "qmax": "1"}),
                "rgb": ("ffv1", "bgr0", {}),
            }[kind]
            stream = container.add_stream(codec, rate=25, options=best)
            stream.width, stream.height, stream.pix_fmt = 128, 96, form
            stream.codec_context.thread_count = 1
            if kind == "bt709":
                stream.codec_context.colorspace = stream.codec_context.color_range = 1
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format=form, dst_colorspace="ITU709" if kind == "bt709" else None, threads=1)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    out, _, after = copy_of(source, tmp_path, crf=1, gop=1)
    assert after.pixel_format == "yuv420p"
    wanted, seen = (decode_frames(path, [0]).astype(float) for path in (source, out))
    assert np.abs((wanted - seen).mean(axis=(0, 1, 2))).max() < 2.5  # a wrong matrix or range: 5 and more
    if kind == "bt709":
        assert np.abs(wanted - seen).mean() < 0.5


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((1280, 720), 256, (456, 256)),
        ((720, 1280), 256, (256, 456)),
        ((340, 256), 256, (340, 256)),
        ((320, 240), 256, (320, 240)),
        ((427, 240), 256, (426, 240)),
        ((121, 81), 256, (120, 80)),
        ((257, 4001), 256, (256, 3986)),
        ((3, 1), 256, (2, 2)),
        ((300, 300), 100, (100, 100)),
    ],
)
def test_sizes_are_even_and_never_larger(size: tuple[int, int], short_side: int, expected: tuple[int, int]) -> None:
    assert output_size(*size, short_side) == expected


def test_a_wrong_count_is_the_source_s_fault_and_leaves_no_file(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=10)
    with pytest.raises(DataError, match=r"a\.mp4: 10 frames decode, its index counts 11"):
        transcode_file(str(source), str(tmp_path / "copy.mp4"), 11, TranscodeSettings())
    assert not (tmp_path / "copy.mp4").exists()


def test_what_nvenc_refuses_goes_to_libx264(tmp_path: Path) -> None:
    encoder, reason = pick_encoder()
    assert encoder in ("libx264", "h264_nvenc")
    assert reason
    assert pick_encoder("libx264") == ("libx264", "as asked")
    source = write_video(tmp_path / "a.mp4", frames=10, size=(16, 16))  # smaller than any NVENC takes
    made = transcode_file(str(source), str(tmp_path / "copy.mp4"), 10, TranscodeSettings(encoder="h264_nvenc"))
    assert (made.encoder, made.info.num_frames) == ("libx264", 10)
    if encoder == "libx264":
        with pytest.raises(SettingsError, match=r"h264_nvenc does not work here \(.+\); use auto"):
            pick_encoder("h264_nvenc")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"short_side": 255}, "short_side 255: give an even number"),
        ({"gop": 0}, "gop 0: give 1 to 1000"),
        ({"crf": 0}, "crf 0: give 1"),
        ({"preset": "p4"}, "preset 'p4' is none of libx264's: give one of ultrafast"),
        ({"encoder": "x264"}, "encoder 'x264': give one of libx264"),
    ],
)
def test_impossible_settings_name_the_field(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        TranscodeSettings(**settings)


def test_two_sources_never_share_a_name_and_keep_theirs(tmp_path: Path) -> None:
    for name in ("a.avi", "a.mkv", "a.mp4", "x/a.avi", "a.avi.mp4", "plain"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(write_video(tmp_path / "any.mp4", frames=5), tmp_path / name)
    done = run(listed(tmp_path, ["a.avi", "x/a.avi"]), tmp_path / "out")
    assert [entry.id for entry in done.videos.entries] == ["a.mp4", "x/a.mp4"]
    names = ["a.mkv", "a.mp4", "a.avi.mp4", "a.avi", "x/a.avi", "plain", str(tmp_path / "any.mp4")]
    done = run(listed(tmp_path, names), tmp_path / "out")
    assert [entry.id for entry in done.videos.entries] == [
        "a.mkv.mp4", "a.mp4.mp4", "a.avi.mp4", "a.mp4", "x/a.mp4", "plain.mp4", "any.mp4",
    ]  # fmt: skip
    assert (done.written, done.kept) == (5, 2)


def test_a_source_outside_the_root_stays_inside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    write_video(tmp_path / "a.mp4", frames=5)
    done = run(listed(tmp_path / "lists", ["../a.mp4", str(tmp_path / "lists" / ".." / "a.mp4")]), tmp_path / "out")
    inside = str(tmp_path / "a.mp4").lstrip("/")
    assert [entry.id for entry in done.videos.entries] == [inside, f"{inside}.mp4"]
    assert all(entry.path.resolve().is_relative_to(tmp_path / "out") for entry in done.videos.entries)


def test_lists_with_equal_names_inside_share_a_folder_without_overwriting(tmp_path: Path) -> None:
    for part, level in (("train", 0), ("val", 255)):
        (tmp_path / part).mkdir()
        write_video(tmp_path / part / "a.mp4", frames=5, level=level)
        (tmp_path / f"{part}.txt").write_text("a.mp4 0\nmissing.mp4 0\n")
    (tmp_path / "labels.txt").write_text("clapping hands\n")
    for part in ("train", "val"):
        run(VideoList.read(tmp_path / f"{part}.txt", root=tmp_path / part), tmp_path / "out")
    train, val = (VideoList.read(tmp_path / "out" / f"{part}.txt") for part in ("train", "val"))
    assert train.labels == val.labels == ["clapping hands"]
    assert [entry.id for entry in (*train.entries, *val.entries)] == ["a.mp4", "a.mp4.mp4"]
    assert decode_frames(train.entries[0].path, [0]).mean() < 5
    assert decode_frames(val.entries[0].path, [0]).mean() > 250
    reasons = (tmp_path / "out" / "unreadable.txt").read_text()
    assert reasons == "train.txt\tmissing.mp4\tno such file\nval.txt\tmissing.mp4\tno such file\n"
    write_video(tmp_path / "val" / "missing.mp4", frames=5)
    run(VideoList.read(tmp_path / "val.txt", root=tmp_path / "val"), tmp_path / "out")
    assert (tmp_path / "out" / "unreadable.txt").read_text() == "train.txt\tmissing.mp4\tno such file\n"


def test_only_what_is_missing_or_changed_is_copied_again(tmp_path: Path) -> None:
    names = [write_video(tmp_path / f"{name}.mp4", frames=6).name for name in "abcd"]
    videos, out = listed(tmp_path, names), tmp_path / "out"
    first = run(videos, out)
    assert (first.written, first.kept) == (4, 0)
    times = {name: (out / name).stat().st_mtime_ns for name in names}
    again = run(videos, out)
    assert (again.written, again.kept, again.bytes) == (0, 4, first.bytes)
    write_video(tmp_path / "a.mp4", frames=9)
    (out / "b.mp4").unlink()
    (out / "c.mp4").write_bytes((out / "c.mp4").read_bytes()[:-10])
    done = run(videos, out)
    assert (done.written, done.kept) == (3, 1)
    assert [done.index[entry].num_frames for entry in done.videos.entries] == [9, 6, 6, 6]
    assert (out / "d.mp4").stat().st_mtime_ns == times["d.mp4"]


def test_sources_may_be_deleted_or_moved_once_they_are_copied(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    names = [write_video(tmp_path / "old" / f"{name}.mp4", frames=6).name for name in "ab"]
    run(listed(tmp_path / "old", names), tmp_path / "out")
    (tmp_path / "old" / "a.mp4").unlink()
    (tmp_path / "old").rename(tmp_path / "new")
    done = run(listed(tmp_path / "new", ["b.mp4"]), tmp_path / "out")
    assert (done.written, done.kept) == (0, 1)
    (tmp_path / "new").rename(tmp_path / "old")
    done = run(listed(tmp_path / "old", names), tmp_path / "out")
    assert (done.written, done.kept, done.unreadable) == (0, 2, [])


@pytest.fixture
def finished(tmp_path: Path) -> tuple[VideoList, Path]:
    """A list of one video and the folder of its copy."""
    (tmp_path / "data").mkdir()
    videos = listed(tmp_path / "data", [write_video(tmp_path / "data" / "a.mp4", frames=6).name])
    run(videos, tmp_path / "out")
    return videos, tmp_path / "out"


def test_other_settings_are_refused_by_name(finished: tuple[VideoList, Path]) -> None:
    videos, out = finished
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()}
    with pytest.raises(
        DataError, match=r"out holds videos transcoded with gop 8, not 16, crf 23, not 20; give the same"
    ):
        run(videos, out, gop=16, crf=20)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.is_file()} == before


def test_a_folder_of_something_else_is_refused(finished: tuple[VideoList, Path]) -> None:
    videos, out = finished
    before = videos.source.read_bytes()
    with pytest.raises(DataError, match="data is not empty and holds no transcoded videos"):
        run(videos, videos.root)
    assert videos.source.read_bytes() == before
    (videos.root / "b.avi").write_bytes((videos.root / "a.mp4").read_bytes())
    (out / "b.mp4").write_text("precious")
    with pytest.raises(DataError, match=r"b\.mp4 is in the way and not this command's"):
        run(listed(videos.root, ["a.mp4", "b.avi"]), out)
    assert (out / "b.mp4").read_text() == "precious"


def test_another_list_of_the_name_and_other_labels_are_refused(
    finished: tuple[VideoList, Path], tmp_path: Path
) -> None:
    videos, out = finished
    (tmp_path / "other").mkdir()
    shutil.copy(videos.root / "a.mp4", tmp_path / "other")
    with pytest.raises(DataError, match=r"out/list\.txt is made of .*data/list\.txt; rename the list"):
        run(listed(tmp_path / "other", ["a.mp4"]), out)
    (out / "labels.txt").write_text("clapping\n")
    (tmp_path / "other" / "labels.txt").write_text("waving\n")
    with pytest.raises(DataError, match="names other classes"):
        run(listed(tmp_path / "other", ["a.mp4"], name="val.txt"), out)
    with pytest.raises(DataError, match="rename it"):
        run(listed(tmp_path / "other", ["a.mp4"], name="unreadable.txt"), out)


def test_two_runs_at_once_are_refused(finished: tuple[VideoList, Path]) -> None:
    videos, out = finished
    with (out / "transcode.jsonl").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is transcoding into"):
            run(videos, out)
    assert run(videos, out).kept == 1


def test_a_line_cut_short_is_forgotten_and_a_foreign_one_is_named(finished: tuple[VideoList, Path]) -> None:
    videos, out = finished
    ledger = out / "transcode.jsonl"
    whole = ledger.read_bytes()
    (cut,) = (line for line in whole.splitlines(True) if line.startswith(b'{"copy"'))
    ledger.write_bytes(whole.replace(cut, b"") + cut[:-20])
    with pytest.raises(DataError, match=r"a\.mp4 is in the way"):  # no row says whose it is
        run(videos, out)
    (out / "a.mp4").unlink()
    assert run(videos, out).written == 1
    ledger.write_bytes(ledger.read_bytes() + b"what\n")
    with pytest.raises(DataError, match=r"transcode\.jsonl:\d: not a line that this command wrote"):
        run(videos, out)


def test_images_and_lists_without_a_readable_video_are_refused(tmp_path: Path) -> None:
    write_frames(tmp_path / "frames", 3)
    (tmp_path / "l.txt").write_text("frames 3 0\n")
    with pytest.raises(DataError, match="frames is a folder of images: transcode takes lists of video files"):
        run(VideoList.read(tmp_path / "l.txt"), tmp_path / "out")
    (tmp_path / "bad.mp4").write_text("nothing")
    with pytest.raises(DataError, match=r"none of the 2 videos can be read; the first, bad\.mp4: cannot be opened"):
        run(listed(tmp_path, ["bad.mp4", "missing.mp4"]), tmp_path / "out2")


def test_a_list_without_labels_stays_one_and_names_keep_their_spaces(tmp_path: Path) -> None:
    (tmp_path / "riding a bike").mkdir()
    write_video(tmp_path / "riding a bike" / "two, three 4.mp4", frames=5)
    (tmp_path / "l.txt").write_text("riding a bike/two, three 4.mp4\n")
    done = run(VideoList.read(tmp_path / "l.txt"), tmp_path / "out")
    (entry,) = VideoList.read(tmp_path / "out" / "l.txt").entries
    assert (entry.id, entry.label) == ("riding a bike/two, three 4.mp4", None)
    assert done.index[done.videos.entries[0]].num_frames == 5
    assert os.path.exists(tmp_path / "out" / "l.index.sqlite")
