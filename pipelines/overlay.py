"""A copy of a video with what a network sees in it drawn over its lower edge."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

from pipelines.errors import DecodeError
from pipelines.media import open_video, reason_of
from pipelines.transcode.encode import add_encoder, clock_of, timed_frames, upright_frames
from pipelines.transcode.errors import EncoderError, OutputError
from pipelines.transcode.settings import LIBX264

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

SUFFIXES = (".mp4", ".m4v", ".mov")
"""Of files that `draw_predictions` writes: one format by three names."""

# With macroblock-tree rate control the bytes depend on what this process encoded before (pipelines.transcode.settings).
_OPTIONS = {"crf": "20", "preset": "veryfast", "mbtree": "0"}
_ANY_SIDE = 1 << 15  # no picture is made smaller
_FONT_PIXELS = (9, 30)
_LINES_A_SIDE = 18  # a line of text takes so many parts of the shorter side, within the limits above
_LARGEST_PART = 0.5  # of the picture, that the panel may cover
_GROUND, _BAR, _TEXT = (0, 0, 0, 140), (46, 110, 200, 200), (255, 255, 255, 255)  # RGB and opacity


def draw_predictions(source: Path, out: Path, lines: Sequence[tuple[str, float]], num_frames: int) -> None:
    """Write the video with a line of text for each prediction, over a bar as long as its score.

    The copy is H.264 in an .mp4, upright, with the source's times of its frames (so at its speed, where that varies too) from 0 on,
    its size but for an odd row or column, its colours in eight bits and without sound. As many lines are drawn as fit into the lower
    half of the picture, one at least. The same source gives the same bytes.

    Args:
        source: a video file.
        out: the copy, written whole or not at all; folders that are missing are made.
        lines: texts and scores in 0…1, best first.
        num_frames: frames of the source, for messages.

    Raises:
        DecodeError: the source does not decode to its end; EncoderError: libx264 does not take it.
        OutputError: `out` cannot be written.
    """
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open_video(source) as (container, stream), part.open("wb") as file:
            frames = upright_frames(source, container, stream, _ANY_SIDE, num_frames)
            first = next(frames, None)
            if first is None:
                raise DecodeError(source, "no frame of it decodes")
            rate, tick = clock_of(stream)
            panel = _panel(lines, first)
            _encode(
                file, first, (_drawn(frame, panel) for frame in timed_frames(first, frames, tick, rate)), rate, tick
            )
        os.replace(part, out)
    except av.FFmpegError as error:
        raise EncoderError(source, f"{LIBX264} does not take it ({reason_of(error)})") from None
    except OSError as error:
        raise OutputError(out, reason_of(error)) from None
    finally:
        with suppress(OSError):  # also where it never was, because its folder is none
            part.unlink()


def _encode(file: BinaryIO, first: VideoFrame, frames: Iterator[VideoFrame], rate: Fraction, tick: Fraction) -> None:
    with av.open(file, "w", format="mp4") as muxer:
        encoder = add_encoder(muxer, first, rate, tick, LIBX264, _OPTIONS)
        for frame in frames:
            muxer.mux(encoder.encode(frame))
        muxer.mux(encoder.encode(None))


# ---------------------------------------------------------------------------------------------------------------------
# the panel


@dataclass(frozen=True)
class _Panel:
    """What is drawn, as yuv420p planes of even size, and how opaque each of their pixels is (0…255)."""

    planes: tuple[NDArray[np.uint16], ...]
    opacity: tuple[NDArray[np.uint16], ...]


def _panel(lines: Sequence[tuple[str, float]], frame: VideoFrame) -> _Panel:
    from matplotlib.font_manager import findfont
    from PIL import Image, ImageDraw, ImageFont

    size = min(max(min(frame.width, frame.height) // _LINES_A_SIDE, _FONT_PIXELS[0]), _FONT_PIXELS[1])
    font = ImageFont.truetype(findfont("DejaVu Sans"), size)  # comes with matplotlib; Latin, Greek, Cyrillic and more
    step = round(1.4 * size)
    fitting = max(1, int(_LARGEST_PART * frame.height) // step)
    lines = lines[:fitting]
    height = min(frame.height, len(lines) * step + size // 2)
    picture = Image.new("RGBA", (frame.width, height + height % 2), _GROUND)
    draw = ImageDraw.Draw(picture)
    for number, (text, score) in enumerate(lines):
        top = size // 4 + number * step
        if length := round(score * frame.width):
            draw.rectangle((0, top, length - 1, top + step - max(2, size // 6)), fill=_BAR)
        shown = _beginning_of(f"{100 * score:.1f} %  {text}", font, frame.width - size)
        draw.text((size // 2, top + size // 16), shown, fill=_TEXT, font=font)
    pixels = np.asarray(picture)
    yuv = VideoReformatter().reformat(
        VideoFrame.from_ndarray(np.ascontiguousarray(pixels[..., :3]), format="rgb24"),
        format="yuv420p",
        dst_colorspace=Colorspace.ITU601,
        threads=1,
    )
    opacity = pixels[..., 3].astype(np.uint16)
    halved = opacity.reshape(opacity.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3)).astype(np.uint16)
    planes = _planes(yuv.to_ndarray(), yuv.width, yuv.height)
    return _Panel(tuple(plane.astype(np.uint16) for plane in planes), (opacity, halved, halved))


def _beginning_of(text: str, font: FreeTypeFont, width: int) -> str:
    """As much of the text as fits into `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _drawn(frame: VideoFrame, panel: _Panel) -> VideoFrame:
    """The frame with the panel at its lower edge."""
    flat = frame.to_ndarray()
    for plane, over, opacity in zip(_planes(flat, frame.width, frame.height), panel.planes, panel.opacity, strict=True):
        under = plane[-len(over) :]
        under[:] = (under * (255 - opacity) + over * opacity + 127) // 255
    drawn = VideoFrame.from_ndarray(flat, format="yuv420p")
    drawn.pts, drawn.time_base, drawn.pict_type = frame.pts, frame.time_base, frame.pict_type
    drawn.colorspace, drawn.color_range = frame.colorspace, frame.color_range
    drawn.color_trc, drawn.color_primaries = frame.color_trc, frame.color_primaries
    return drawn


def _planes(flat: NDArray[Any], width: int, height: int) -> list[NDArray[np.uint8]]:
    """Views of the three planes of a yuv420p array of even size, bytes."""
    shapes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    parts = np.split(flat.reshape(-1), (height * width, height * width * 5 // 4))
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
