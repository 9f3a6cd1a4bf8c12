"""One file decoded from end to end, and the first thing found wrong with it. Runs in a decoding process, which may die of it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from pipelines.errors import DecodeError
from pipelines.media import open_video, reason_of

UNREADABLE = "unreadable"
TRUNCATED = "truncated"
DAMAGED = "decode error"
MISCOUNTED = "frame count"

# A header's duration may count the last frame twice or not at all, and is rounded.
_TOLERANCE_FRAMES = 2.5
_TOLERANCE = 0.01

Trouble = tuple[str, str]  # kind, reason


def examine(path: str, template: str | None, expected: int | None) -> Trouble | None:
    """What is wrong with a video file or frame folder; None when every frame of it decodes cleanly.

    Kinds, the first that applies: `unreadable`, it cannot be opened or gives no frame; `truncated`, it ends before the last
    frame that it lists; `decode error`, a frame fails, or the decoder had to paper over damage in it; `frame count`, more or
    fewer frames come than expected. Damage that still makes a valid stream cannot be seen: VP8, for one, has no redundancy
    that would show it.

    Args:
        path: the file or folder.
        template: image names of a frame folder, counted from 1; None for a video file.
        expected: frames that the index counted; None not to compare.
    """
    place = Path(path)
    try:
        if template is not None:
            return _examine_images(place, template, expected or 0)
        missing = _missing_end(place)
        decoded, failure = _decode_all(place, strict=True)
        if missing:
            decoded, _ = _decode_all(place) if failure else (decoded, "")
            return TRUNCATED, f"{missing}; {decoded} frames decode"
        if failure:
            return _damage(place, decoded, failure, expected)
        if not decoded:
            return UNREADABLE, "no frame of it decodes"
    except DecodeError as error:
        return UNREADABLE, error.reason
    if expected is not None and decoded != expected:
        return MISCOUNTED, f"{decoded} frames decode, the index counted {expected}"
    return None


def _examine_images(folder: Path, template: str, count: int) -> Trouble | None:
    for number in range(1, count + 1):
        name = template.format(number)
        try:
            decoded, failure = _decode_all(folder / name, strict=True)
        except DecodeError as error:
            return DAMAGED, f"{name}: {error.reason}"
        if failure or not decoded:
            return DAMAGED, f"{name}: {failure or 'holds no image'}"
    return None


def _damage(path: Path, clean: int, failure: str, expected: int | None) -> Trouble:
    """Damage that a strict decoder refuses, told by what the ordinary one makes of it."""
    decoded, fatal = _decode_all(path)
    of = f" of {expected}" if expected is not None and expected > decoded else ""
    if not decoded:
        return UNREADABLE, f"no frame of it decodes ({fatal or failure})"
    if fatal:
        return DAMAGED, f"decoding fails after {decoded}{of} frames ({fatal})"
    return DAMAGED, f"damage at about frame {clean}, which decoders conceal ({failure}); {decoded}{of} frames decode"


def _decode_all(path: Path, strict: bool = False) -> tuple[int, str]:
    """Frames decoded, and what ended that early. `strict` stops at what is usually concealed."""
    decoded = 0
    with open_video(path) as (container, stream):
        if strict:
            stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
        try:
            for frame in container.decode(stream):
                if strict and frame.is_corrupt:
                    return decoded, "the decoder marks the frame as corrupt"
                decoded += 1
        except (av.FFmpegError, ValueError) as error:
            return decoded, reason_of(error)
    return decoded, ""


def _missing_end(path: Path) -> str:
    """How a file's own account of itself exceeds what can be read of it; empty where it does not."""
    read, end, broken = 0, None, False
    with open_video(path) as (container, stream):
        try:
            for packet in container.demux(stream):
                if packet.size:
                    read += 1
                    broken = packet.is_corrupt
                    if packet.pts is not None:
                        end = max(end or packet.pts, packet.pts + (packet.duration or 0))
        except av.FFmpegError:
            pass  # what is missing by then is counted below
        listed = sum(entry.size > 0 for entry in stream.index_entries)
        if listed > read:  # the tables of .mp4 and .avi have all frames
            return f"breaks off after {read} of {listed} frames"
        if broken:
            return f"breaks off within frame {read - 1}"
        claimed = _claimed_seconds(container, stream)
        if read and end is not None and claimed is not None and stream.time_base is not None:
            start = stream.start_time or 0
            seconds = float((end - start) * stream.time_base)
            if seconds < claimed - max(_TOLERANCE_FRAMES * seconds / read, _TOLERANCE * claimed):
                return f"breaks off after {seconds:.2f} of {claimed:.2f} seconds"
    return ""


def _claimed_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds of video by a Matroska header, which has no table of frames; None where it speaks of other streams too."""
    if container.format.name != "matroska,webm" or container.duration is None:
        return None
    if any(other.type == "audio" for other in container.streams):
        return _seconds(stream.metadata.get("DURATION", ""))
    return float(container.duration * Fraction(1, av.time_base))


def _seconds(clock: str) -> float | None:
    """`00:00:04.834000000`, as FFmpeg writes it for each stream."""
    try:
        hours, minutes, seconds = clock.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
