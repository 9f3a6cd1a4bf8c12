"""What is in one video file or frame folder: counted from its packets or images, never believed from a header."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median_low

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipelines.annotations import IMAGE_SUFFIXES
from pipelines.errors import DecodeError
from pipelines.media import (
    file_state,
    frame_ranks,
    has_times,
    is_countable,
    is_shown,
    open_video,
    quarter_turns,
    reason_of,
)
from pipelines.seeking import MIN_KEYFRAMES, Layout, pack_layout

TEMPLATES = (
    "{:05}.jpg",
    "img_{:05}.jpg",
    "image_{:05}.jpg",
    "{:06}.jpg",
    "frame_{:06}.jpg",
    "{:05}.png",
    "img_{:05}.png",
)


_Bytes = bytes  # which in VideoInfo names a field
_VOP_START = b"\0\0\1\xb6"  # begins a frame of MPEG-4, ISO/IEC 14496-2


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """One video as found on disk."""

    num_frames: int = 0
    fps: float = 0.0
    """Average frames a second; 0 where unknown, as for frame folders."""
    duration: float = 0.0
    """Seconds from the first frame's appearing to the last one's end; 0 where unknown."""
    variable_rate: bool = False
    """Whether some frames stay over a tenth longer than others, so that times do not follow from indices and `fps`."""
    width: int = 0
    """Pixels as displayed: a quarter turn has swapped the coded width and height."""
    height: int = 0
    rotation: int = 0
    """Degrees counter-clockwise, a multiple of 90 in 0…270, that turn decoded frames upright."""
    codec: str = ""
    """FFmpeg's name, or `images` for a frame folder."""
    pixel_format: str = ""
    keyframes: tuple[int, ...] = ()
    """Indices of the frames that decode without others."""
    packed_layout: _Bytes = b""
    """When each frame is shown and which are keyframes, packed, where decoding a few frames of the file need not read all of
    it: a format with times of display, and enough keyframes. Else empty."""
    exact: bool = True
    """Whether the file has one video stream and its packets, ordered by time, are its frames: then decoders that count
    packets, such as DALI's, mean the same frame by the same index. False with edit lists, hidden or untimed packets."""
    bytes: int = 0
    mtime: int = 0
    """Last change, nanoseconds."""
    template: str | None = None
    """Image names of a frame folder, counted from 1; None for a video file."""
    error: str | None = None
    """Why it cannot be read; None when it can."""

    @property
    def layout(self) -> Layout | None:
        """What `pipelines.decode` needs to seek in it; None where seeking would save nothing."""
        return Layout(self.bytes, self.mtime, self.packed_layout) if self.packed_layout else None


def probe(path: str, template: str | None, claimed: int | None, verify: bool) -> VideoInfo:
    """Look into one file or frame folder; trouble is reported in `error`, not raised.

    A video's first frame is decoded (for its true size and rotation) and the packets that become frames are counted.
    Where packets cannot tell (tiny ones in MPEG-4), and everywhere with `verify`, all frames are decoded and counted;
    with `verify`, a decoding failure on the way is an error.

    Args:
        path: the file or folder.
        template: image names of a frame folder, None to find out.
        claimed: frames of a frame folder by the list; None for as many as there are.
        verify: decode every frame.
    """
    place = Path(path)
    size, mtime = file_state(place)
    try:
        found = _probe_folder(place, template, claimed) if os.path.isdir(place) else _probe_video(place, verify)
    except DecodeError as error:
        found = VideoInfo(error=error.reason)
    return replace(found, bytes=size, mtime=mtime)


def probe_each(jobs: Sequence[tuple[str, str | None, int | None, bool]]) -> list[VideoInfo]:
    """`probe` of several files, given its arguments for each."""
    return [probe(*job) for job in jobs]


def _probe_video(path: Path, verify: bool) -> VideoInfo:
    with open_video(path, glance=True) as (container, stream):
        scan = _scan(container, stream)
        rate = stream.average_rate or stream.guessed_rate
        time_base = stream.time_base or Fraction(0)
        codec = stream.codec_context.codec.canonical_name
        alone = len(container.streams.video) == 1
        timed = has_times(container)
    count = len(scan.times)
    if not count:
        raise DecodeError(path, "has a video stream without frames")
    first = scan.first
    if verify or not scan.countable or first is None:
        count_all = verify or not scan.countable
        first, decoded, failure = _decode(path, count_all)
        if first is None:
            raise DecodeError(path, f"no frame of it decodes ({failure or codec})")
        if verify and failure:
            raise DecodeError(path, f"decoding fails after {decoded} of {count} frames ({failure})")
        count = decoded if count_all else count
    turns = quarter_turns(first.rotation)
    width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
    ranks = frame_ranks(scan.times) if scan.countable else None
    fps, duration, variable = float(rate or 0), 0.0, False
    if ranks is not None and len(ranks) > 1:
        duration, variable = _timing(list(ranks), scan.last_duration, time_base)
        rounding = 2 * float(time_base)
        if duration and (variable or not fps or abs(count / fps - duration) > rounding):
            fps = count / duration  # the header's rate is believed only where the packets' times say the same
    elif fps:
        duration = count / fps
    return VideoInfo(
        num_frames=count,
        fps=fps,
        duration=duration,
        variable_rate=variable,
        width=width,
        height=height,
        rotation=turns * 90,
        codec=codec,
        pixel_format=first.format.name,
        keyframes=tuple(sorted(ranks[time] if ranks and time is not None else place for place, time in scan.keys)),
        packed_layout=_layout(scan, ranks, codec) if timed and ranks is not None else b"",
        exact=alone and ranks is not None and scan.all_shown,
    )


@dataclass
class _Scan:
    """What one pass over the packets of a video tells; the packets themselves are not kept."""

    times: list[int | None] = field(default_factory=list)
    """Presentation times of the shown packets, in decode order."""
    keys: list[tuple[int, int | None]] = field(default_factory=list)
    """(position among all packets, time) of the shown keyframes."""
    first: VideoFrame | None = None
    """The frame of the first packet; None where that packet alone gives none."""
    last_duration: int = 0
    """How long the frame that is shown last stays, ticks; 0 where unknown."""
    countable: bool = True
    all_shown: bool = True


def _scan(container: InputContainer, stream: VideoStream) -> _Scan:
    """Read all packets of the stream, up to the first place where the file cannot be read on; decode the first."""
    scan = _Scan()
    context = stream.codec_context
    codec = context.codec.canonical_name
    position, latest = 0, -(1 << 63)
    try:
        for packet in _packets(container, stream, scan):
            if position == 0:
                scan.first = _only_frame(stream, packet)
            maybe = not is_countable(codec, packet)
            scan.countable = scan.countable and not (maybe and _VOP_START in bytes(packet))
            if is_shown(codec, packet) and not maybe:
                time = packet.pts
                scan.times.append(time)
                if packet.is_keyframe:
                    scan.keys.append((position, time))
                if time is not None and time > latest:
                    latest, scan.last_duration = time, packet.duration or 0
            else:
                scan.all_shown = False
            position += 1
    except av.FFmpegError:
        pass  # a damaged tail: what came before it is what there is
    return scan


def _layout(scan: _Scan, ranks: Collection[int], codec: str) -> bytes:
    keys = {time for _, time in scan.keys if time is not None}
    unpacked = codec == "mpeg4" and not scan.all_shown  # the file's own packets are others
    return pack_layout(ranks, keys) if len(keys) >= MIN_KEYFRAMES and not unpacked else b""


def _packets(container: InputContainer, stream: VideoStream, scan: _Scan) -> Iterator[av.Packet]:
    """The packets of a stream; where MPEG-4 packs two frames into one and a placeholder into the next, one for each."""
    codec, unpack = stream.codec_context.codec.canonical_name, None
    if codec == "mpeg4":
        unpack = BitStreamFilterContext("mpeg4_unpack_bframes", stream)
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if unpack is None:
            yield packet
            continue
        scan.all_shown = scan.all_shown and is_countable(codec, packet)
        try:
            yield from unpack.filter(packet)
        except av.FFmpegError:
            yield packet  # damaged: the decoder may still make something of it


def _only_frame(stream: VideoStream, packet: av.Packet) -> VideoFrame | None:
    context = stream.codec_context
    context.options = {**context.options, "skip_loop_filter": "all"}  # of its pixels nothing is wanted
    try:
        frames = context.decode(packet) or context.decode(None)
    except (av.FFmpegError, ValueError):
        return None
    return frames[0] if frames else None


def _decode(path: Path, everything: bool) -> tuple[VideoFrame | None, int, str]:
    """The first frame, frames decoded (no more than one unless `everything`), and what ended that early."""
    first, decoded = None, 0
    with open_video(path) as (container, stream):
        try:
            for frame in container.decode(stream):
                first = first or frame
                decoded += 1
                if not everything:
                    break
        except (av.FFmpegError, ValueError) as error:
            return first, decoded, reason_of(error)
    return first, decoded, ""


def _timing(times: Sequence[int], last: int, time_base: Fraction) -> tuple[float, bool]:
    """(duration in seconds, whether the rate varies) of two or more rising times in ticks; the last frame stays `last`."""
    gaps = [late - early for early, late in pairwise(times)]
    typical = median_low(gaps)
    # Where a frame takes five ticks or more, times that were rounded to ticks differ by one and still mean a constant rate.
    allowed = max(1.0, typical / 10) if typical >= 5 else 0.0
    duration = float((times[-1] - times[0] + (last or typical)) * time_base)
    return duration, max(gaps) - min(gaps) > allowed


def _probe_folder(path: Path, template: str | None, claimed: int | None) -> VideoInfo:
    try:
        names = {p.name for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES}
    except OSError as error:
        raise DecodeError(path, reason_of(error)) from None
    if not names:
        raise DecodeError(path, "is a folder without images")
    for candidate in (template,) if template else TEMPLATES:
        if candidate.format(1) in names:
            template = candidate
            break
    else:
        wanted = f"{template.format(1)!r}" if template else f"{TEMPLATES[0].format(1)!r} or {TEMPLATES[1].format(1)!r}"
        raise DecodeError(path, f"has no first image {wanted}; it has {min(names)!r}: give the list's image template")
    count = 1
    while template.format(count + 1) in names:
        count += 1
    if claimed is not None and claimed > count:
        raise DecodeError(path, f"the list claims {claimed} frames, but {template.format(count + 1)!r} is missing")
    image = path / template.format(1)
    with open_video(image) as (container, stream):
        try:
            first = next(container.decode(stream), None)
        except (av.FFmpegError, ValueError):
            first = None
    if first is None:
        raise DecodeError(path, f"its first image {image.name!r} does not decode")
    return VideoInfo(
        num_frames=claimed or count,
        width=first.width,
        height=first.height,
        codec="images",
        pixel_format=first.format.name,
        template=template,
    )
