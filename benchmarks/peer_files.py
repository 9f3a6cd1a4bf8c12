"""Make the four sets of files that `peers_data.py` compares readers on, from videos of your own, each with a list."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import VideoFrame
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipelines.probe import probe
from pipelines.transcode import TranscodeSettings
from pipelines.transcode.encode import transcode_file

CLIP_FRAMES, CLIP_RATE, SIDE = 48, 12, 240  # a Something-Something video: 4 seconds at 12 frames/s, 240 pixels high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for untouched/, gop8/, vp9/ and jpeg/, each with a train.txt")
    parser.add_argument("videos", type=Path, nargs="+", help="source videos, as Kinetics has them")
    parser.add_argument("--vp9", type=Path, nargs="*", default=[], help="videos to put into vp9/ as they are")
    parser.add_argument("--count", type=int, default=40, help="files of each set: copies of the same ones (default 40)")
    options = parser.parse_args()

    made = options.out / "once"
    _copies(options.videos, options.out / "untouched", options.count)
    short = [_short_groups(video, made / f"{video.stem}.mp4") for video in options.videos]
    _copies(short, options.out / "gop8", options.count)
    webm = [_vp9(video, made / f"{video.stem}.webm") for video in options.videos]
    _copies([*webm, *options.vp9], options.out / "vp9", options.count)
    folders = [_jpegs(video, made / f"{video.stem}.frames") for video in options.videos]
    _copies(folders, options.out / "jpeg", options.count)
    shutil.rmtree(made)


def _copies(sources: Sequence[Path], out: Path, count: int) -> None:
    """`count` files or folders, every source as often as any other or once more, and a list of them."""
    out.mkdir(parents=True)
    lines = []
    for number in range(count):
        source = sources[number % len(sources)]
        target = out / f"{number:03}_{source.name}"
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
        frames = f" {len(list(source.iterdir()))}" if source.is_dir() else ""
        lines.append(f"{target.name}{frames} {number % len(sources)}\n")
    (out / "train.txt").write_text("".join(lines), encoding="utf-8")


def _short_groups(video: Path, out: Path) -> Path:
    """As `tin-cli data transcode --gop 8` copies it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    transcode_file(
        str(video), str(out), probe(str(video), None, None, False).num_frames, TranscodeSettings(short_side=256, gop=8)
    )
    return out


def _clip_frames(video: Path) -> Iterator[VideoFrame]:
    """The first seconds of a video at CLIP_RATE frames/s, SIDE pixels high, width even."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        width = round(stream.width * SIDE / stream.height / 2) * 2
        taken = 0
        for frame in container.decode(stream):
            if frame.time is not None and frame.time * CLIP_RATE >= taken:
                taken += 1
                yield frame.reformat(width, SIDE, format="yuv420p", threads=1)
            if taken == CLIP_FRAMES:
                return


def _vp9(video: Path, out: Path) -> Path:
    """As Something-Something V2 ships its videos: one group of pictures, about 300 kbit/s."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(out), "w") as container:
        options = {"b": "300k", "deadline": "good", "cpu-used": "4"}
        stream = container.add_stream("libvpx-vp9", rate=CLIP_RATE, options=options)
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(_clip_frames(video)):
            if number == 0:
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
            frame.pts, frame.time_base = number, Fraction(1, CLIP_RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out


def _jpegs(video: Path, out: Path) -> Path:
    """As Something-Something V1 comes: a folder of 00001.jpg, 00002.jpg, …"""
    out.mkdir(parents=True)
    for number, frame in enumerate(_clip_frames(video), 1):
        image = Image.fromarray(frame.to_ndarray(format="rgb24", threads=1))
        image.save(out / f"{number:05}.jpg", quality=90)
    return out


if __name__ == "__main__":
    main()
