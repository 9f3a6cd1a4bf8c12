"""Opening videos and reading their packets: what decoding and probing both need to know about a file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from pipelines.errors import DecodeError

# FFmpeg's own bound (MAX_NVOP_SIZE) on MPEG-4 packets that may show no new frame (packed B-frames, "not coded").
_MPEG4_PLACEHOLDER_BYTES = 19
# FFmpeg's names of the formats whose packets carry the times of display, so that nothing about them has to be guessed.
_TIMED_FORMATS = frozenset(("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"))
_MANY_STREAMS = 64


def check_file(path: Path) -> None:
    """Raise DecodeError, with the reason, unless `path` is a regular file that can be opened and is not empty."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise DecodeError(path, "is a folder, not a video file")
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError(path, "is not a regular file")
        if status.st_size == 0:
            raise DecodeError(path, "is empty (0 bytes)")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise DecodeError(path, reason_of(error)) from None


@contextmanager
def open_video(path: Path, glance: bool = False) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first video stream (cover pictures do not count), decoding on one thread.

    Args:
        path: the file.
        glance: to look at packets and decode one frame, no more. Opening then costs a fifth, because FFmpeg does not decode
            frames to learn how long the decoder holds them back; in formats without times of display it does nonetheless.

    Raises DecodeError where the file is missing, unreadable, not a video or has no video stream.
    """
    check_file(path)
    try:
        container = (_open_without_decoding(path) if glance else None) or av.open(str(path), metadata_errors="ignore")
    except (av.FFmpegError, ValueError, UnicodeError) as error:
        raise DecodeError(path, f"cannot be opened as a video ({reason_of(error)})") from None
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise DecodeError(path, "has no video stream")
        stream = streams[0]
        if stream.codec_context is None:
            raise DecodeError(path, "is in a codec that this FFmpeg cannot decode")
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all  # their packets are not even read
        stream.codec_context.thread_count = 1
        yield container, stream


@dataclass(frozen=True, slots=True)
class PacketScan:
    """What the packets of a video stream are, in decode order."""

    times: list[int | None]
    """When each is shown, ticks."""
    keys: list[int]
    """Positions of the keyframes."""
    shown: list[bool]
    """Whether a packet becomes a displayed frame: not discarded by an edit list, nor one of VP8's hidden frames."""
    countable: bool
    """False where only decoding can tell which packets become frames."""
    packets: list[Packet]
    """Themselves, where they were to be held; else empty."""

    def ranks(self) -> dict[int, int] | None:
        """Presentation time → frame index; None where times are missing or repeated and so cannot tell."""
        times = [time for time, shown in zip(self.times, self.shown, strict=True) if shown]
        return frame_ranks(times) if self.countable else None


def scan_packets(container: InputContainer, stream: VideoStream, hold: bool = True) -> PacketScan:
    """Look at all packets of the stream, up to the first place where the file cannot be read on; `hold` keeps them."""
    codec = stream.codec_context.codec.canonical_name
    scan = PacketScan([], [], [], True, [])
    countable = True
    for position, packet in enumerate(read_packets(container, stream)):
        scan.times.append(packet.pts)
        scan.shown.append(is_shown(codec, packet))
        countable = countable and is_countable(codec, packet)
        if packet.is_keyframe:
            scan.keys.append(position)
        if hold:
            scan.packets.append(packet)
    return replace(scan, countable=countable)


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The stream's packets from where the container stands, up to the first place where the file cannot be read on."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except av.FFmpegError:
        pass  # a damaged tail: what came before it is what there is


def is_shown(codec: str, packet: Packet) -> bool:
    """Whether a packet becomes a displayed frame: neither cut away by an edit list nor one of VP8's hidden frames."""
    return not packet.is_discard and not (codec == "vp8" and _hidden_vp8(packet))


def is_countable(codec: str, packet: Packet) -> bool:
    """Whether a packet is surely one frame; only decoding tells for MPEG-4's placeholders."""
    return codec != "mpeg4" or packet.size > _MPEG4_PLACEHOLDER_BYTES


def frame_ranks(times: Iterable[int | None]) -> dict[int, int] | None:
    """Presentation time → frame index, of the times of all shown packets; None where one is missing or repeated."""
    times = list(times)
    known = {time for time in times if time is not None}
    if len(known) != len(times):
        return None
    return {time: rank for rank, time in enumerate(sorted(known))}


def has_times(container: InputContainer) -> bool:
    """Whether the format says when each packet is shown, so that it says the same wherever reading starts."""
    return container.format.name in _TIMED_FORMATS


def file_state(path: str | Path) -> tuple[int, int]:
    """(bytes, mtime in ns) that tell whether a path has changed; (0, 0) where there is nothing."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return 0, 0
    return status.st_size, status.st_mtime_ns


def quarter_turns(degrees: float) -> int:
    """Counter-clockwise quarter turns, 0 to 3, that display a frame whose display matrix says `degrees`."""
    return round(degrees / 90) % 4


def reason_of(error: Exception) -> str:
    """What an error of the system or of FFmpeg says, in a few words without the path."""
    known = {errno.ENOENT: "no such file", errno.EACCES: "permission denied"}
    number = getattr(error, "errno", None)
    return known.get(number or 0) or getattr(error, "strerror", None) or str(error) or type(error).__name__


def _open_without_decoding(path: Path) -> InputContainer | None:
    """The container, opened on what its header says alone; None for a format whose header says too little."""
    try:
        container = av.open(
            str(path),
            metadata_errors="ignore",
            options={"analyzeduration": "1"},
            stream_options=[{"skip_frame": "all"}] * _MANY_STREAMS,  # type: ignore[list-item]  # PyAV's stub says str
        )
    except (av.FFmpegError, ValueError):
        return None  # such as MPEG, whose streams show on reading; trouble comes up again on opening it in full
    if has_times(container):
        return container
    container.close()
    return None


def _hidden_vp8(packet: Packet) -> bool:
    return not bytes(packet)[0] >> 4 & 1  # show_frame, RFC 6386 section 9.1
