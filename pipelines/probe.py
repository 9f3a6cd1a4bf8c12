"""What is in one video file or frame folder: counted from its packets or images, never believed from a header."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import av

from pipelines.annotations import IMAGE_SUFFIXES
from pipelines.errors import DecodeError
from pipelines.media import open_video, quarter_turns, reason_of, scan_packets

TEMPLATES = (
    "{:05}.jpg",
    "img_{:05}.jpg",
    "image_{:05}.jpg",
    "{:06}.jpg",
    "frame_{:06}.jpg",
    "{:05}.png",
    "img_{:05}.png",
)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """One video as found on disk."""

    num_frames: int = 0
    fps: float = 0.0
    """Average frames a second; 0 where unknown, as for frame folders."""
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


def probe(path: str, template: str | None, claimed: int | None, verify: bool) -> VideoInfo:
    """Look into one file or frame folder; trouble is reported in `error`, not raised.

    A video's first frame is decoded (for its true size and rotation) and the packets that become frames are counted.
    Where packets cannot tell (MPEG-4 with placeholder packets), and everywhere with `verify`, all frames are decoded
    and counted; with `verify`, a decoding failure on the way is an error.

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


def file_state(path: Path) -> tuple[int, int]:
    """(bytes, mtime in ns) that tell whether a path has changed; (0, 0) where there is nothing."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _probe_video(path: Path, verify: bool) -> VideoInfo:
    with open_video(path) as (container, stream):
        scan = scan_packets(container, stream)
        rate = stream.average_rate or stream.guessed_rate
        alone = len(container.streams.video) == 1
    if not scan.num_frames:
        raise DecodeError(path, "has a video stream without frames")
    count_all = verify or not scan.countable
    decoded, failure, first = 0, "", None
    with open_video(path) as (container, stream):
        try:
            for frame in container.decode(stream):
                first = first or frame
                decoded += 1
                if not count_all:
                    break
        except (av.FFmpegError, ValueError) as error:
            failure = reason_of(error)
        codec = stream.codec_context.codec.canonical_name
    if first is None:
        raise DecodeError(path, f"no frame of it decodes ({failure or codec})")
    if verify and failure:
        raise DecodeError(path, f"decoding fails after {decoded} of {scan.num_frames} frames ({failure})")
    turns = quarter_turns(first.rotation)
    width, height = (first.height, first.width) if turns % 2 else (first.width, first.height)
    ranks = scan.ranks()
    exact = alone and ranks is not None and all(scan.shown)
    ranks = ranks or {}
    keys = [
        ranks.get(p.pts, position) if p.pts is not None else position
        for position, (p, shown) in enumerate(zip(scan.packets, scan.shown, strict=True))
        if p.is_keyframe and shown
    ]
    return VideoInfo(
        num_frames=decoded if count_all else scan.num_frames,
        fps=float(rate) if rate else 0.0,
        width=width,
        height=height,
        rotation=turns * 90,
        codec=codec,
        pixel_format=first.format.name,
        keyframes=tuple(sorted(keys)),
        exact=exact,
    )


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
