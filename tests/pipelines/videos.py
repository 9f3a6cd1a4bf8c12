"""Small real videos and lists that the tests of this folder make."""

from __future__ import annotations

import csv
import struct
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from pipelines import VideoList


def write_video(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 24,
    size: tuple[int, int] = (96, 160),
    level: int | None = None,
    pixel_format: str | None = None,
) -> Path:
    """A moving gradient of `size` (height, width); with `level`, every frame is that grey."""
    height, width = size
    options = {"libx264": {"g": "8", "bf": "2"}, "libvpx-vp9": {"g": "8", "cpu-used": "8", "deadline": "realtime"}}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options.get(codec, {}))
        stream.width, stream.height = width, height
        stream.pix_fmt = pixel_format or ("yuvj420p" if codec == "mjpeg" else "yuv420p")
        stream.codec_context.thread_count = 1  # more, and one run in thirty converts RGB to other pixels
        for number in range(frames):
            image = np.zeros((height, width, 3), np.uint8)
            image[..., 0] = np.linspace(0, 255, width)[None] if level is None else level
            image[..., 1] = np.linspace(0, 255, height)[:, None] if level is None else level
            image[..., 2] = number * 255 // frames if level is None else level
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def loop_video(source: Path, target: Path, times: int, **options: str) -> Path:
    """`source`, which starts with a keyframe, `times` over by copying its packets; `options` are the container's."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        first = min(packet.pts for packet in packets)
        length = max(packet.pts + packet.duration for packet in packets) - first
        with av.open(str(target), "w", options=options) as out:
            copy = out.add_stream_from_template(stream)
            for turn in range(times):
                for packet in packets:
                    again = av.Packet(bytes(packet))
                    again.pts, again.dts = packet.pts + turn * length, packet.dts + turn * length
                    again.duration, again.time_base = packet.duration, packet.time_base
                    again.is_keyframe, again.stream = packet.is_keyframe, copy
                    out.mux(again)
    return target


def rotate_header(path: Path, degrees: int) -> Path:
    """Give an .mp4 a display matrix that turns it `degrees` counter-clockwise, as telephones do."""
    cosine, sine = {0: (1, 0), 90: (0, -1), 180: (-1, 0), 270: (0, 1)}[degrees]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 40 if data[at] == 0 else 52
    one = 65536
    data[at : at + 36] = struct.pack(">9i", cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def write_frames(folder: Path, frames: int, *, template: str = "{:05}.jpg", size: tuple[int, int] = (60, 80)) -> Path:
    """A frame folder of JPEGs, counted from 1, each of one grey level: 8 × its index."""
    folder.mkdir(parents=True)
    for index in range(frames):
        image = np.full((*size, 3), 8 * index, np.uint8)
        with av.open(
            str(folder / template.format(index + 1)), "w", format="image2", options={"update": "1"}
        ) as container:
            stream = container.add_stream("mjpeg", rate=1, options={"qmin": "1", "qmax": "1"})
            stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuvj420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    return folder


def listed(folder: Path, paths: Sequence[str | Path], root: Path | None = None, name: str = "list.txt") -> VideoList:
    """A list, written to `folder`, of `paths` with labels 0, 1, 2, …"""
    (folder / name).write_text("".join(f"{path} {label}\n" for label, path in enumerate(paths)))
    return VideoList.read(folder / name, root)


def codecs(real_videos: Path) -> list[dict[str, str]]:
    """The rows of codecs.tsv."""
    with (real_videos / "codecs.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))
