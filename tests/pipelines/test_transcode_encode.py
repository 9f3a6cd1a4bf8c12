"""A copy shows what its source shows, frame for frame and moment for moment."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipelines import VideoIndex
from pipelines.decode import decode_frames
from pipelines.errors import DataError, SettingsError
from pipelines.media import open_video
from pipelines.probe import VideoInfo, probe
from pipelines.transcode import TranscodeSettings, pick_encoder, transcode
from pipelines.transcode.encode import output_size, transcode_file
from tests.pipelines.videos import codecs, listed, rotate_header, write_video


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
    done = transcode(videos, VideoIndex.build(videos), tmp_path / "out")
    assert [(entry.id, reason) for entry, reason in done.unreadable] == [
        ("audio_only_nasa.mp3", "has no video stream"),
        ("corrupted.mp4", "decoding fails after 28 of 50 frames (Invalid data found when processing input)"),
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
