"""Decoding just the wanted frames of a video with PyAV, on one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from pipelines.errors import DecodeError
from pipelines.media import PacketScan, file_state, open_video, quarter_turns, read_packets, reason_of, scan_packets
from pipelines.seeking import Group, Layout, read_group

Frames = NDArray[np.uint8]
Allocate = Callable[[tuple[int, ...]], Frames]

# Above this many bytes the packets of a file are not held in memory: what its layout does not tell takes two passes over it.
HELD_BYTES = 1 << 26
# Decoders that drop an unwanted unreferenced frame and nothing else; libdav1d (AV1) loses frames next to it.
_DROPPING = frozenset(("h264", "hevc"))


@dataclass
class Tally:
    """What decoding has cost."""

    frames: int = 0
    """Frames that came out of the decoder, wanted or not."""
    seconds: float = 0.0
    """Of processor time; whoever calls `decode_frames` measures it."""


def decode_frames(
    path: str | Path,
    indices: Sequence[int] | NDArray[np.int64],
    *,
    layout: Layout | None = None,
    allocate: Allocate | None = None,
    tally: Tally | None = None,
    held_bytes: int = HELD_BYTES,
) -> Frames:
    """The frames at `indices` (from 0, in display order; any order, repeats allowed).

    Only the groups of pictures that hold a wanted frame are decoded, and in them no unreferenced frame that nobody
    wants; frames are known by their time stamps. With a layout, which long videos have in the index, these groups are
    sought and nothing else is read. Without, or where seeking does not find them, all packets are read first. Where time
    stamps cannot be trusted the file is decoded from its start and frames are counted. All give the same pixels. Display
    rotation is applied, by the nearest quarter turn.

    Args:
        path: a video file in any format of PyAV's FFmpeg.
        indices: T frame indices.
        layout: the index's, `VideoInfo.layout`. One of a file that has changed since is not used.
        allocate: makes the result from its shape; numpy.empty by default.
        tally: frames that come out of the decoder are added to it, also where it fails.
        held_bytes: of a larger file no packets are held in memory.

    Returns:
        uint8 (T, H, W, 3), RGB. Frames of another size than the first one's are resized to it.

    Raises:
        DecodeError: the file cannot be opened or decoded, or has no frame at one of `indices`; with path and counts.
    """
    path = Path(path)
    wanted = np.asarray(indices, dtype=np.int64)
    if wanted.size == 0 or wanted.min() < 0:
        raise DecodeError(path, f"cannot decode frames {wanted.tolist()}: ask for one or more indices from 0")
    out = _Output(path, wanted, allocate or (lambda shape: np.empty(shape, np.uint8)))
    out.tally = tally if tally is not None else out.tally
    hold = file_state(path)[0] <= held_bytes
    ways: list[Callable[[Path, bool, _Output], bool]] = [partial(_decode_scanned, hold=hold)]
    sought = layout.groups(path, out.missing, whole_is_cheap=hold) if layout is not None else None
    if sought is not None:
        ways.insert(0, partial(_decode_sought, groups=sought))
    for way in ways:
        # At a glance H.264 may lose frames, where neither the container nor the stream says how far it reorders them.
        for glance in (True, False):
            if not way(path, glance, out):
                break
            if out.complete:
                return out.finish()
    if out.trouble and not hold:  # from the start it would come to the same, after a long time
        raise DecodeError(path, f"frame {min(out.missing)} does not decode ({out.trouble})")
    out.clear()
    with open_video(path) as (container, stream):
        _decode_from_start(container, stream, out)
    return out.finish()


class _Output:
    """The result being filled."""

    def __init__(self, path: Path, indices: NDArray[np.int64], allocate: Allocate) -> None:
        self.path, self.allocate, self.count = path, allocate, len(indices)
        self.places: dict[int, list[int]] = {}
        for place, index in enumerate(indices.tolist()):
            self.places.setdefault(index, []).append(place)
        self.last = max(self.places)
        self.missing = set(self.places)
        self.array: Frames | None = None
        self.size = (0, 0)
        self.tally = Tally()
        self.trouble = ""
        """What the decoder said where it failed within groups of pictures; empty where it has not."""

    @property
    def complete(self) -> bool:
        return not self.missing

    def clear(self) -> None:
        self.missing = set(self.places)

    def put(self, index: int, frame: VideoFrame) -> None:
        if index not in self.missing:
            return
        turns = quarter_turns(frame.rotation)
        if self.array is None:
            self.size = frame.width, frame.height
            height, width = (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
            self.array = self.allocate((self.count, height, width, 3))
        # One thread: by default each conversion starts as many as there are cores, and on small frames they race (PyAV 18).
        image = frame.to_ndarray(format="rgb24", width=self.size[0], height=self.size[1], threads=1)
        first, *others = self.places[index]
        self.array[first] = np.rot90(image, turns)
        for place in others:
            self.array[place] = self.array[first]
        self.missing.discard(index)

    def finish(self) -> Frames:
        assert self.array is not None
        return self.array


def _decode_from_start(container: InputContainer, stream: VideoStream, out: _Output) -> None:
    number = 0
    try:
        for frame in container.decode(stream):
            out.put(number, frame)
            out.tally.frames += 1
            number += 1
            if number > out.last:
                return
    except (av.FFmpegError, ValueError) as error:
        reason = reason_of(error)
        raise DecodeError(
            out.path, f"decoding failed after {number} frames ({reason}); frame {out.last} was wanted"
        ) from None
    raise DecodeError(out.path, f"only {number} frames decode; frame {out.last} was wanted")


def _decode_sought(path: Path, glance: bool, out: _Output, *, groups: list[Group]) -> bool:
    """Fill `out` from groups that are sought in the file; it stays incomplete where they are not found, or are damaged."""
    with open_video(path, glance) as (container, stream):
        missing = (group for group in groups if not out.missing.isdisjoint(group.wanted.values()))
        _decode_runs(stream, ((read_group(container, stream, group), group.wanted) for group in missing), out)
    return True


def _decode_scanned(path: Path, glance: bool, out: _Output, *, hold: bool) -> bool:
    """Fill `out` after a look at all packets, which are held or else read once more; it stays incomplete where the stream is
    damaged. False where time stamps do not tell frames."""
    with open_video(path, glance) as (container, stream):
        scan = scan_packets(container, stream, hold)
        ranks = scan.ranks()
        if ranks is None or out.last >= len(ranks):
            return False
        times = {time: rank for time, rank in ranks.items() if rank in out.missing}
        if hold:
            _decode_runs(stream, ((scan.packets[run], times) for run in _runs(scan, times)), out)
            return True
    with open_video(path, glance) as (container, stream):
        packets = enumerate(read_packets(container, stream))
        _decode_runs(stream, ((_between(packets, run), times) for run in _runs(scan, times)), out)
    return True


def _decode_runs(stream: VideoStream, runs: Iterable[tuple[Iterable[Packet], dict[int, int]]], out: _Output) -> None:
    """Decode runs of packets that start at keyframes, each with presentation time → frame index of what is wanted of it."""
    context = stream.codec_context
    dropping = context.codec.canonical_name in _DROPPING
    out.trouble = ""
    try:
        for packets, times in runs:
            for packet in packets:
                # Dropping a frame that no other refers to changes no other frame's pixels.
                context.skip_frame = "NONREF" if dropping and packet.pts not in times else "DEFAULT"
                _take(context.decode(packet), times, out)
            context.skip_frame = "DEFAULT"
            _take(context.decode(None), times, out)
            context.flush_buffers()
    except (av.FFmpegError, ValueError) as error:
        out.trouble = reason_of(error)


def _take(frames: list[VideoFrame], times: dict[int, int], out: _Output) -> None:
    out.tally.frames += len(frames)
    for frame in frames:
        if frame.pts is not None and frame.pts in times:
            out.put(times[frame.pts], frame)


def _between(packets: Iterator[tuple[int, Packet]], run: slice) -> Iterator[Packet]:
    """Those of the numbered packets that are in the run; what comes before is passed over."""
    for position, packet in packets:
        if position >= run.start:
            yield packet
        if position == run.stop - 1:
            return


def _runs(scan: PacketScan, times: dict[int, int]) -> Iterator[slice]:
    """Runs of packets, in decode order, that give the frames at `times`.

    A run starts at a keyframe that is shown no later than the wanted frame: frames that follow a keyframe in the file
    but precede it on screen need the group before.
    """
    keys = [(position, time) for position in scan.keys if (time := scan.times[position]) is not None]
    needed = sorted(
        (max((key for key, shown_at in keys if key <= position and shown_at <= time), default=0), position)
        for position, time in enumerate(scan.times)
        if time is not None and time in times and scan.shown[position]
    )
    runs: list[list[int]] = []
    for first, last in needed:
        if runs and first <= runs[-1][1] + 1:
            runs[-1][1] = max(runs[-1][1], last)
        else:
            runs.append([first, last])
    for first, last in runs:
        yield slice(first, last + 1)
