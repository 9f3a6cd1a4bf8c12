"""Where the frames of a long video lie, as the index remembers it: so that decoding a few of them need not read the whole file."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from pipelines.media import file_state, is_shown

# With fewer keyframes than this a clip of a few frames needs most of the file anyway. Seeks to 8 of 16 groups cost some 2 % less
# than a look at all packets (10 µs each), those to 8 of 40 groups of 8 frames 13 % less.
MIN_KEYFRAMES = 16
# Nor is there much to save where more than this part of the frames is decoded, as in testing with many clips.
_MOST = 0.5


def pack_layout(times: Iterable[int], keys: Collection[int]) -> bytes:
    """The presentation times of a video's frames, rising, and which of them are `keys` (keyframes), in few bytes.

    An hour at a constant rate takes 1 to 9 kB, one whose every frame has a length of its own up to 200.
    """
    at = np.fromiter(times, np.int64)
    steps = np.diff(at, prepend=0)
    is_key = np.isin(at, np.fromiter(keys, np.int64))
    return zlib.compress((2 * steps + is_key).tobytes())


@dataclass(frozen=True, slots=True)
class Group:
    """A group of pictures with wanted frames."""

    key: int | None
    """Presentation time of the keyframe that it starts with, ticks of the stream; None for the start of the file."""
    wanted: dict[int, int]
    """Presentation time → frame index of what is wanted."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the index knows of a video's frames. Good while the file has the same size and time of change."""

    size: int
    mtime: int
    packed: bytes

    def groups(self, path: Path, wanted: Iterable[int], *, whole_is_cheap: bool) -> list[Group] | None:
        """The groups that hold the frames with the indices `wanted`, rising; None where the file has changed, or has no such
        frames, or, with `whole_is_cheap`, where seeking would save little."""
        if (self.size, self.mtime) != file_state(path):
            return None
        steps = np.frombuffer(zlib.decompress(self.packed), np.int64)
        times, keys = np.cumsum(steps >> 1), np.flatnonzero(steps & 1)
        indices = np.unique(np.fromiter(wanted, np.int64))
        if indices[-1] >= len(times):
            return None
        starts = np.searchsorted(keys, indices, side="right") - 1
        groups = []
        decoded = 0
        for start in np.unique(starts).tolist():
            inside = indices[starts == start]
            first = int(keys[start]) if start >= 0 else 0
            key = int(times[first]) if start >= 0 else None
            groups.append(Group(key, dict(zip(times[inside].tolist(), inside.tolist(), strict=True))))
            decoded += int(inside[-1]) - first + 1
        return groups if decoded <= _MOST * len(times) or not whole_is_cheap else None


def read_group(container: InputContainer, stream: VideoStream, group: Group) -> Iterator[Packet]:
    """The packets from the group's keyframe to the last that is wanted, in decode order; none where seeking does not find it.

    The first packet is the keyframe that the index saw, by its time. Where the container lists only some keyframes, the place
    that is sought lies before it; what is read up to the group is not given. A frame that is stored after the next keyframe
    but shown before it (open groups) belongs to this one.
    """
    codec = stream.codec_context.codec.canonical_name
    left = set(group.wanted)
    latest, passed = max(left), 0
    for packet in _from_key(container, stream, group.key):
        yield packet
        if packet.pts in left and is_shown(codec, packet):
            left.discard(packet.pts)
        if packet.is_keyframe and packet.pts is not None and packet.pts > latest:
            passed += 1
        if not left or passed > 1:
            return


def _from_key(container: InputContainer, stream: VideoStream, key: int | None) -> Iterator[Packet]:
    """The packets from the keyframe that is shown at `key`, from where the container stands for None; none where it is not met."""
    if key is not None:
        container.seek(key, stream=stream)
    met = key is None
    for packet in container.demux(stream):
        if not met and packet.is_keyframe and packet.pts is not None:
            if key is not None and packet.pts > key:
                return
            met = packet.pts == key
        if met and packet.size:
            yield packet
