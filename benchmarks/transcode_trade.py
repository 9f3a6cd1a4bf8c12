"""What copies cost and bring, by group size: bytes, quality, encoding and decoding speed, against the untouched files.

    python benchmarks/transcode_trade.py VIDEO… --out benchmarks/results/transcode-NAME.json

Every setting copies all videos; then rounds decode the same random clips (the training recipe's 8 frames, by the loader's
decoder, in this process alone) from the untouched files and from every setting's copies in turns. PSNR is of luma, against the very
frames that went into the encoder. The last rows change one thing at the default group size each.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipelines.decode import Tally, decode_frames
from pipelines.media import open_video
from pipelines.probe import probe
from pipelines.sampling import segment_indices
from pipelines.transcode import TranscodeSettings
from pipelines.transcode.encode import transcode_file, upright_frames
from tin.bench.machine import describe
from tin.bench.records import new_record, write_record
from tin.bench.timing import ratios, row

SEGMENTS = 8


@dataclass(frozen=True, kw_only=True)
class Variant(TranscodeSettings):
    """Settings with some of FFmpeg's options changed; None leaves one out."""

    name: str
    changed: tuple[tuple[str, str | None], ...] = ()

    def options(self) -> dict[str, str]:
        return {key: value for key, value in (super().options() | dict(self.changed)).items() if value is not None}


VARIANTS = (
    *(Variant(name=f"GOP {gop}", gop=gop) for gop in (1, 4, 8, 16, 32)),
    Variant(name="GOP 8, with CABAC and deblocking", changed=(("tune", None),)),
    Variant(name="GOP 8, 3 B-frames", changed=(("bf", "3"), ("b-pyramid", "none"))),
    Variant(name="GOP 8, macroblock tree", changed=(("mbtree", "1"),)),
    Variant(name="GOP 8, crf 18", crf=18),
    Variant(name="GOP 8, preset medium", preset="medium"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=10, help="turns of decoding (default 10)")
    parser.add_argument("--clips", type=int, default=2, help="clips a video and round (default 2)")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    counts = [probe(str(video), None, None, False).num_frames for video in options.videos]
    with tempfile.TemporaryDirectory() as folder:
        copies = {variant.name: _copy(variant, options.videos, counts, Path(folder, str(place)))
                  for place, variant in enumerate(VARIANTS)}  # fmt: skip
        paths = {"untouched": options.videos} | {name: made["paths"] for name, made in copies.items()}
        rates, decoded = _decode(paths, counts, options.rounds, options.clips)
        source_bytes = sum(video.stat().st_size for video in options.videos)
        rows = [_row("untouched", rates, decoded, source_bytes, source_bytes)]
        for name, made in copies.items():
            size = sum(path.stat().st_size for path in made["paths"])
            psnr, speed = _psnr(options.videos, made["paths"]), sum(counts) / made["seconds"]
            line = _row(name, rates, decoded, size, source_bytes)
            rows.append(line | {"psnr_db": psnr, "encoded_frames_per_second": speed})
    print(_table(rows))
    if options.out:
        settings = {
            "videos": [video.name for video in options.videos], "frames": sum(counts), "rounds": options.rounds,
            "clips": options.clips, "segments": SEGMENTS, "ffmpeg": {k: list(v) for k, v in av.library_versions.items()},
            "options": {variant.name: variant.options() for variant in VARIANTS},
        }  # fmt: skip
        command = shlex.join(["python", "benchmarks/transcode_trade.py", *(v.name for v in options.videos)])
        results = {"transcode": {"settings": settings, "rows": rows}}
        write_record(options.out, new_record(describe(torch.device("cpu")), command, results))
    return 0


def _copy(settings: Variant, videos: Sequence[Path], counts: Sequence[int], folder: Path) -> dict[str, Any]:
    """The copies of one setting and the seconds that they took: decoding, scaling and encoding, one process."""
    folder.mkdir()
    paths = [folder / f"{place}.mp4" for place in range(len(videos))]
    start = time.perf_counter()
    for video, path, count in zip(videos, paths, counts, strict=True):
        transcode_file(str(video), str(path), count, settings)
    return {"paths": paths, "seconds": time.perf_counter() - start}


def _decode(
    paths: dict[str, Sequence[Path]], counts: Sequence[int], rounds: int, clips: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Clips a second of each setting in each round, and the frames that came out of its decoder for a clip."""
    rng = np.random.default_rng(0)
    rates: dict[str, list[float]] = {name: [] for name in paths}
    tallies = {name: Tally() for name in paths}
    for turn in range(rounds + 1):
        wanted = [[segment_indices(count, SEGMENTS, "train", rng) for _ in range(clips)] for count in counts]
        for name in list(paths) if turn % 2 else reversed(list(paths)):
            tally = tallies[name] if turn else Tally()
            start = time.perf_counter()
            for path, some in zip(paths[name], wanted, strict=True):
                for indices in some:
                    decode_frames(path, indices, tally=tally)
            if turn:  # the first round warms the caches
                rates[name].append(clips * len(counts) / (time.perf_counter() - start))
    total = rounds * clips * len(counts)
    return rates, {name: tally.frames / total for name, tally in tallies.items()}


def _row(
    name: str, rates: dict[str, list[float]], decoded: dict[str, float], size: int, source_size: int
) -> dict[str, Any]:
    against = ratios(rates[name], rates["untouched"])
    more = {"frames_decoded_per_clip": decoded[name], "bytes": size, "size_ratio": size / source_size}
    return row(name, "clips/s", rates[name], against, "untouched", **more)


def _psnr(videos: Sequence[Path], copies: Sequence[Path]) -> float:
    """Mean over the videos of the luma PSNR of all their frames, dB."""
    values = []
    for video, copy in zip(videos, copies, strict=True):
        errors = [np.mean((a - b) ** 2) for a, b in zip(_luma(video), _luma(copy), strict=True)]
        values.append(10 * np.log10(255**2 / np.mean(errors)))
    return float(np.mean(values))


def _luma(path: Path) -> Iterator[np.ndarray]:
    with open_video(path) as (container, stream):
        for frame in upright_frames(path, container, stream, TranscodeSettings().short_side, stream.frames):
            yield frame.to_ndarray()[: frame.height].astype(np.float32)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| copies | size | PSNR, dB | encoding, frames/s | frames decoded a clip | clips/s | × untouched |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in rows:
        psnr, speed = (f"{line[key]:{form}}" if key in line else "–"
                       for key, form in (("psnr_db", ".1f"), ("encoded_frames_per_second", ".0f")))  # fmt: skip
        lines.append(
            f"| {line['name']} | {line['size_ratio']:.2f} | {psnr} | {speed} | {line['frames_decoded_per_clip']:.0f} "
            f"| {line['median']:.1f} | {line['ratio']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
