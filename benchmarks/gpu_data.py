"""Clips a second that NVDEC gives, against the processor of the same machine: the part of `benchmarks.gpu` that reads videos."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, nullcontext
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import av
import numpy as np
import torch

from pipelines import ClipSpec, Loader, VideoIndex, VideoList
from pipelines.probe import probe
from pipelines.transcode import TranscodeSettings
from pipelines.transcode.encode import transcode_file
from tin.bench.files import LEAD, read_clips
from tin.bench.timing import Rounds, ratios, row

FRAMES, HEIGHT, WIDTH = 300, 256, 340  # as MMAction2's Kinetics clips
SOURCES = 8


def data(device: torch.device, rounds: Rounds, batches: int, *, batch_size: int = 32) -> dict[str, Any]:
    """`settings` and `rows`, in clips a second of normalised bfloat16 frames, channels_last, 8 × 224².

    Videos as Kinetics has them, with a keyframe every 250 frames, and their copies with one every 8, are read by the loader
    with `device` and by the loader with one decoding process a core, in turns. Rows of the device have the mean
    utilisation of its decoders and of its multiprocessors meanwhile, per cent, where nvidia-smi tells.

    Args:
        device: decodes; a CPU works too, and compares like with like.
        rounds: rounds before the first timed one, and timed ones.
        batches: timed batches of a round.
        batch_size: clips.
    """
    cores = len(os.sched_getaffinity(0))
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sets = kinetics(folder, cores)
        for name, paths in sets.items():
            videos = listed(folder, paths, batch_size * (LEAD + batches))
            rows += _rows(name, videos, device, rounds, batches, batch_size, cores)
    settings = {**vars(rounds), "batches": batches, "batch_size": batch_size, "device": str(device)}
    return {"settings": {**settings, "videos": [path.name for path in sets["untouched"]]}, "rows": rows}


def _rows(
    name: str, videos: VideoList, device: torch.device, rounds: Rounds, batches: int, batch_size: int, cores: int
) -> list[dict[str, Any]]:
    index = VideoIndex.build(videos)
    rates: dict[str, list[float]] = {"device": [], "processor": []}
    watch = Utilisation(device)
    with ExitStack() as stack:
        loaders = {}
        for who, where, dtype in (("device", device, "bfloat16"), ("processor", torch.device("cpu"), "float32")):
            settings: dict[str, Any] = {"batch_size": batch_size, "training": True, "num_workers": cores}
            loaders[who] = stack.enter_context(Loader(videos, index, ClipSpec(), device=where, dtype=dtype, **settings))
        for epoch in range(rounds.warmup + rounds.runs):
            for who, loader in loaders.items():
                with watch if who == "device" and epoch >= rounds.warmup else nullcontext():
                    reading = read_clips(loader, epoch, batches, loader.device)
                if epoch >= rounds.warmup:
                    rates[who].append(reading.rate)
    limit = f"{cores} processes decoding on the CPU"
    return [
        row(
            f"{name}, {device.type} to bfloat16",
            "clips/s",
            rates["device"],
            ratios(rates["device"], rates["processor"]),
            limit,
            **watch.means(),
        ),
        row(f"{name}, {limit}", "clips/s", rates["processor"], ratios(rates["processor"], rates["processor"]), limit),
    ]


class Utilisation:
    """Asks nvidia-smi ten times a second, while it is entered, how busy a GPU is."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._samples: list[tuple[float, float]] = []
        self._asking: subprocess.Popen[str] | None = None

    def __enter__(self) -> None:
        if self._device.type != "cuda":
            return
        gpu = f"GPU-{torch.cuda.get_device_properties(self._device).uuid}"
        query = ["--query-gpu=utilization.decoder,utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
        try:
            self._asking = subprocess.Popen(
                ["nvidia-smi", "-i", gpu, *query], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError:
            self._asking = None

    def __exit__(self, *_: object) -> None:
        if self._asking is None:
            return
        self._asking.terminate()
        for line in self._asking.communicate()[0].splitlines():
            try:
                decoder, gpu = map(float, line.split(","))
            except ValueError:  # a driver that does not tell, or half a line
                continue
            self._samples.append((decoder, gpu))
        self._asking = None

    def means(self) -> dict[str, Any]:
        """Per cent; None where there was no answer."""
        if not self._samples:
            return {"decoder_utilization": None, "gpu_utilization": None}
        decoder, gpu = zip(*self._samples, strict=True)
        return {"decoder_utilization": mean(decoder), "gpu_utilization": mean(gpu)}


def kinetics(folder: Path, cores: int) -> dict[str, list[Path]]:
    """Videos as Kinetics has them, `untouched`, and their copies with a keyframe every 8 frames, `gop 8`, made in `folder`."""
    sources = _sources(folder, cores)
    copies = _in_parallel(_short_groups, [(path, folder / f"gop8_{path.stem}.mp4") for path in sources], cores)
    return {"untouched": sources, "gop 8": copies}


def listed(folder: Path, paths: Sequence[Path], count: int) -> VideoList:
    """`count` videos: `paths` again and again under other names."""
    links = Path(tempfile.mkdtemp(dir=folder))
    names = [f"{number:05}{paths[number % len(paths)].suffix}" for number in range(count)]
    for number, name in enumerate(names):
        (links / name).symlink_to(paths[number % len(paths)].resolve())
    (links / "list.txt").write_text("".join(f"{name} 0\n" for name in names), encoding="utf-8")
    return VideoList.read(links / "list.txt")


def _sources(folder: Path, cores: int) -> list[Path]:
    """The Kinetics clips of $TIN_TEST_VIDEOS, else made ones."""
    real = Path(os.environ.get("TIN_TEST_VIDEOS", "/nowhere")) / "codecs"
    if found := sorted(real.glob("k400_*.mp4")):
        return found
    return _in_parallel(_make, [(seed, folder / f"made_{seed}.mp4") for seed in range(SOURCES)], cores)


def _in_parallel(make: Callable[..., Path], tasks: Sequence[tuple[Any, ...]], cores: int) -> list[Path]:
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        return list(pool.map(make, *zip(*tasks, strict=True)))


def _make(seed: int, out: Path) -> Path:
    """A texture that drifts under noise, at about the bit rate of a Kinetics clip; keyframes as libx264 sets them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (16, 24, 3)).astype(np.uint8)
    texture = np.kron(coarse, np.ones((48, 48, 1), np.uint8))
    texture = np.clip(texture.astype(np.int16) + rng.integers(-24, 25, texture.shape), 0, 255).astype(np.uint8)
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"b": "600k", "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(FRAMES):
            top, left = (round(60 + 50 * np.sin(number / period + seed)) for period in (23, 37))
            noise = rng.integers(-6, 7, (HEIGHT, WIDTH, 1))
            image = np.clip(texture[top : top + HEIGHT, left : left + WIDTH] + noise, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p", threads=1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out


def _short_groups(source: Path, out: Path) -> Path:
    transcode_file(
        str(source),
        str(out),
        probe(str(source), None, None, False).num_frames,
        TranscodeSettings(short_side=HEIGHT, gop=8),
    )
    return out
