"""Opening videos and reading their packets: what decoding and probing both need to know about a file."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from pipelines.errors import DecodeError

# FFmpeg's own bound (MAX_NVOP_SIZE) on MPEG-4 packets that may show no new frame (packed B-frames, "not coded").
_MPEG4_PLACEHOLDER_BYTES = 19


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
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its first video stream (cover pictures do not count), decoding on one thread.

    Raises DecodeError where the file is missing, unreadable, not a video or has no video stream.
    """
    check_file(path)
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except (av.FFmpegError, ValueError, UnicodeError) as error:
        raise DecodeError(path, f"cannot be opened as a video ({reason_of(error)})") from None
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise DecodeError(path, "has no video stream")
        stream = streams[0]
        if stream.codec_context is None:
            raise DecodeError(path, "is in a codec that this FFmpeg cannot decode")
        stream.codec_context.thread_count = 1
        yield container, stream


@dataclass(frozen=True, slots=True)
class PacketScan:
    """The packets of a video stream in decode order."""

    packets: list[Packet]
    shown: list[bool]
    """Whether a packet becomes a displayed frame: not discarded by an edit list, nor one of VP8's hidden frames."""
    countable: bool
    """False where only decoding can tell which packets become frames."""

    @property
    def num_frames(self) -> int:
        return sum(self.shown)

    def ranks(self) -> dict[int, int] | None:
        """Presentation time → frame index; None where times are missing or repeated and so cannot tell."""
        times = [p.pts for p, shown in zip(self.packets, self.shown, strict=True) if shown]
        known = [t for t in times if t is not None]
        if not self.countable or len(set(known)) != len(times):
            return None
        return {time: rank for rank, time in enumerate(sorted(known))}


def scan_packets(container: InputContainer, stream: VideoStream) -> PacketScan:
    """Read all packets of the stream, up to the first place where the file cannot be read on."""
    packets = []
    try:
        for packet in container.demux(stream):
            if packet.size:
                packets.append(packet)
    except av.FFmpegError:
        pass  # a damaged tail: what came before it is what there is
    codec = stream.codec_context.codec.canonical_name
    shown = [not p.is_discard and not (codec == "vp8" and _hidden_vp8(p)) for p in packets]
    countable = codec != "mpeg4" or all(p.size > _MPEG4_PLACEHOLDER_BYTES for p in packets)
    return PacketScan(packets, shown, countable)


def quarter_turns(degrees: float) -> int:
    """Counter-clockwise quarter turns, 0 to 3, that display a frame whose display matrix says `degrees`."""
    return round(degrees / 90) % 4


def reason_of(error: Exception) -> str:
    """What an error of the system or of FFmpeg says, in a few words without the path."""
    known = {errno.ENOENT: "no such file", errno.EACCES: "permission denied"}
    number = getattr(error, "errno", None)
    return known.get(number or 0) or getattr(error, "strerror", None) or str(error) or type(error).__name__


def _hidden_vp8(packet: Packet) -> bool:
    return not bytes(packet)[0] >> 4 & 1  # show_frame, RFC 6386 section 9.1
