"""One video made into a small .mp4 of short groups of pictures, and counted: what a worker process does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from pipelines.errors import DecodeError
from pipelines.media import open_video, quarter_turns, reason_of
from pipelines.probe import VideoInfo, probe
from pipelines.transcode.errors import EncoderError, OutputError
from pipelines.transcode.settings import LIBX264, TranscodeSettings

_BUFFER_BYTES = 1 << 20
_GUESSED_RATE = Fraction(25)  # frames a second where a file says nothing; its time stamps decide anyway
_FINEST_TICK = Fraction(1, 90_000)  # where a file's own is too fine for .mp4, whose time scale has 32 bits


@dataclass(frozen=True, slots=True)
class Transcoded:
    """A finished copy, still under its temporary name."""

    info: VideoInfo
    """As probed from the copy."""
    encoder: str
    """libx264 where NVENC was asked for and refused this video."""


def transcode_file(path: str, target: str, num_frames: int, settings: TranscodeSettings) -> Transcoded:
    """Write a copy of the video `path` to `target`, upright, with its time stamps, and check what was written.

    The picture is never enlarged; its sides become even. Colours keep their matrix, full range becomes limited, more bits
    become eight. Sound and further video streams are left out. Time stamps start at 0; where they are missing or do not rise
    a frame follows its predecessor by the average distance. NVENC refuses what is too small for it, and more files at
    once than its driver allows: such a video goes to libx264.

    Args:
        path: the source.
        target: a name that may be overwritten, ending in .mp4; nothing is left there on failure.
        num_frames: frames that the index counted in the source.
        settings: what to make.

    Raises:
        DecodeError: the source does not decode to `num_frames` frames, or its copy does not hold them.
        EncoderError: libx264 does not take it.
        OutputError: `target` cannot be written; this is no fault of the source.
    """
    source, out = Path(path), Path(target)
    try:
        try:
            return Transcoded(_encode(source, out, num_frames, settings), settings.encoder)
        except EncoderError:
            if settings.encoder == LIBX264:
                raise
            return Transcoded(_encode(source, out, num_frames, settings.with_encoder(LIBX264)), LIBX264)
    except BaseException:
        out.unlink(missing_ok=True)
        raise


def output_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height of the copy of a picture: the shorter side at most `short_side`, both even, 2 at least."""
    short, long = sorted((width, height))
    wanted = max(2, min(short, short_side) // 2 * 2)
    other = max(2, min(round(long * wanted / short / 2), long // 2) * 2)
    return (wanted, other) if width <= height else (other, wanted)


def _encode(source: Path, out: Path, num_frames: int, settings: TranscodeSettings) -> VideoInfo:
    with open_video(source) as (container, stream):
        try:
            with out.open("wb", buffering=_BUFFER_BYTES) as file:
                count = _copy(source, container, stream, file, num_frames, settings)
                file.flush()
                os.fsync(file.fileno())  # some file systems say only here that the disk is full or gone
        except av.FFmpegError as error:
            raise EncoderError(source, f"{settings.encoder} does not take it ({reason_of(error)})") from None
        except OSError as error:
            raise OutputError(out, reason_of(error)) from None
    if count != num_frames:
        raise DecodeError(source, f"{count} frames decode, its index counts {num_frames}")
    info = probe(str(out), None, None, False)
    if info.error is not None or info.num_frames != num_frames:
        found = info.error or f"has {info.num_frames} frames"
        raise DecodeError(source, f"its copy {found} where {num_frames} were written")
    return info


def _copy(
    source: Path,
    container: InputContainer,
    stream: VideoStream,
    file: BinaryIO,
    num_frames: int,
    settings: TranscodeSettings,
) -> int:
    """Decode, scale, turn and encode every frame; returns how many there were. FFmpeg's and the disk's errors pass."""
    frames = upright_frames(source, container, stream, settings.short_side, num_frames)
    first = next(frames, None)
    if first is None:
        raise DecodeError(source, "no frame of it decodes")
    rate, tick = clock_of(stream)
    count = 0
    with av.open(file, "w", format="mp4") as muxer:
        encoder = add_encoder(muxer, first, rate, tick, settings.encoder, settings.options())
        for frame in timed_frames(first, frames, tick, rate):
            muxer.mux(encoder.encode(frame))
            count += 1
        muxer.mux(encoder.encode(None))
    return count


def upright_frames(
    source: Path, container: InputContainer, stream: VideoStream, short_side: int, num_frames: int
) -> Iterator[VideoFrame]:
    """Every frame as yuv420p, scaled and turned as it is to be displayed; all of the first one's size.

    Raises DecodeError where decoding fails; it says after how many of `num_frames` frames.
    """
    reformatter = VideoReformatter()
    size: tuple[int, int] | None = None
    count = 0
    decoded = container.decode(stream)
    while True:
        try:
            frame = next(decoded, None)
        except (av.FFmpegError, ValueError) as error:
            raise DecodeError(
                source, f"decoding fails after {count} of {num_frames} frames ({reason_of(error)})"
            ) from None
        if frame is None:
            return
        count += 1
        turns = quarter_turns(frame.rotation)
        size = size or output_size(
            *((frame.height, frame.width) if turns % 2 else (frame.width, frame.height)), short_side
        )
        width, height = reversed(size) if turns % 2 else size
        full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
        scaled = reformatter.reformat(
            frame,
            width,
            height,
            "yuv420p",
            interpolation=Interpolation.BICUBIC,
            src_color_range=ColorRange.JPEG if full else None,
            dst_color_range=ColorRange.MPEG if full else None,
            dst_colorspace=Colorspace.ITU601 if frame.format.is_rgb else None,
            threads=1,
        )
        yield _turned(scaled, turns) if turns else scaled


def _turned(frame: VideoFrame, turns: int) -> VideoFrame:
    """A yuv420p frame of even size turned counter-clockwise by quarters, with the frame's time and colours."""
    flat = frame.to_ndarray()
    height, width = frame.height, frame.width
    planes = np.split(flat.reshape(-1), (height * width, height * width * 5 // 4))
    shapes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    upright = [np.rot90(plane.reshape(shape), turns) for plane, shape in zip(planes, shapes, strict=True)]
    turned = VideoFrame.from_ndarray(
        np.concatenate([plane.reshape(-1) for plane in upright]).reshape(-1, upright[0].shape[1]), format="yuv420p"
    )
    turned.pts, turned.time_base = frame.pts, frame.time_base
    turned.colorspace, turned.color_range = frame.colorspace, frame.color_range
    turned.color_trc, turned.color_primaries = frame.color_trc, frame.color_primaries
    return turned


def clock_of(stream: VideoStream) -> tuple[Fraction, Fraction]:
    """Frames a second, and seconds a tick, of a copy in .mp4."""
    rate = stream.average_rate or stream.guessed_rate or _GUESSED_RATE
    tick = stream.time_base or 1 / rate
    return rate, _FINEST_TICK if tick.denominator >= 1 << 31 else tick


def add_encoder(
    muxer: OutputContainer, first: VideoFrame, rate: Fraction, tick: Fraction, codec: str, options: dict[str, str]
) -> VideoStream:
    """A stream for frames of the first one's size and colours, encoded on one thread."""
    encoder = muxer.add_stream(codec, rate=rate, options=options)
    assert isinstance(encoder, VideoStream)
    encoder.width, encoder.height, encoder.pix_fmt = first.width, first.height, "yuv420p"
    context = encoder.codec_context
    context.time_base, context.thread_count = tick, 1
    # Without its matrix the copy would be shown, and trained on, in slightly other colours.
    context.colorspace, context.color_range = first.colorspace, first.color_range
    context.color_trc, context.color_primaries = first.color_trc, first.color_primaries
    return encoder


def timed_frames(
    first: VideoFrame, others: Iterator[VideoFrame], tick: Fraction, rate: Fraction
) -> Iterator[VideoFrame]:
    """The frames with strictly rising times from 0 in units of `tick`, and no wish for a picture type."""
    step = max(1, round(1 / (rate * tick)))
    start: Fraction | None = None
    last = -step
    frame: VideoFrame | None = first
    while frame is not None:
        stamped = last
        if frame.pts is not None and frame.time_base is not None:
            seconds = frame.pts * frame.time_base
            start = seconds if start is None else start
            stamped = round((seconds - start) / tick)
        # .avi files of MPEG-4 swap neighbours' times, joined files start again from 0, some have none.
        last = stamped if stamped > last else last + step
        frame.pts, frame.time_base, frame.pict_type = last, tick, PictureType.NONE
        yield frame
        frame = next(others, None)
