"""What a list's videos are like, by its index: lengths, sizes, codecs, groups of pictures, classes, and what clips of them cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.annotations import VideoList
from pipelines.cost import expected_decode_cost
from pipelines.index import VideoIndex
from pipelines.plan import ClipSpec

COST_SAMPLE = 1000
"""Videos whose decode cost is worked out, evenly spread over the list; all would take a minute for Kinetics."""


@dataclass(frozen=True)
class ListStats:
    """Figures of the readable videos of a list; arrays have one value a video, in list order."""

    name: str
    videos: int
    """In the list, readable or not."""
    unreadable: int
    bytes: int
    """Of the readable video files; frame folders count nothing."""
    values: Mapping[str, NDArray[np.float64]]
    """By VALUES: `decode cost` of a sample, `seconds` and `frames/s` where they are known."""
    codecs: Counter[str]
    sizes: Counter[str]
    """By `width×height` as displayed."""
    pixel_formats: Counter[str]
    rotations: Counter[int]
    """Degrees counter-clockwise that turn frames upright."""
    variable_rate: int
    """Videos whose frames are not evenly spaced in time."""
    classes: Counter[str]
    """Readable videos of each class, those without any included; empty in a list without labels."""

    @property
    def readable(self) -> int:
        return self.videos - self.unreadable

    @property
    def frames(self) -> int:
        return int(self.values["frames"].sum())


VALUES = ("frames", "seconds", "frames/s", "short side", "kB", "frames a keyframe", "decode cost")
"""What ListStats.values has: frames; seconds; average rate; pixels of the shorter side; size of the file; frames of a group of
pictures, the mean of a video; frames decoded for each frame used (cost.expected_decode_cost)."""
QUANTILES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}


def list_stats(video_list: VideoList, index: VideoIndex, spec: ClipSpec, *, training: bool = True) -> ListStats:
    """Gather the figures of a list from its index; no video is opened.

    Args:
        video_list: the list.
        index: of that list.
        spec: how clips are cut, for the decode cost.
        training: whether clips are drawn as in training or as in testing.
    """
    readable = [(entry, info) for entry in video_list.entries if (info := index[entry]).error is None]
    infos = [info for _, info in readable]
    files = [info for info in infos if info.template is None]
    labels = Counter(entry.label for entry, _ in readable if entry.label is not None)
    most = max((entry.label for entry in video_list.entries if entry.label is not None), default=-1)
    names = video_list.labels if video_list.labels is not None else list(map(str, range(most + 1)))
    step = max(1, -(-len(infos) // COST_SAMPLE))
    costs = [
        expected_decode_cost(infos[place], spec, training=training, id=place) for place in range(0, len(infos), step)
    ]
    lists = {
        "frames": [info.num_frames for info in infos],
        "seconds": [info.duration for info in infos if info.duration],
        "frames/s": [info.fps for info in infos if info.fps],
        "short side": [min(info.width, info.height) for info in infos],
        "kB": [info.bytes / 1000 for info in files],
        "frames a keyframe": [1 if info.template else info.num_frames / max(1, len(info.keyframes)) for info in infos],
        "decode cost": costs,
    }
    return ListStats(
        name=video_list.name,
        videos=len(video_list),
        unreadable=len(video_list) - len(infos),
        bytes=sum(info.bytes for info in files),
        values={name: np.array(lists[name], dtype=np.float64) for name in VALUES},
        codecs=Counter(info.codec for info in infos),
        sizes=Counter(f"{info.width}×{info.height}" for info in infos),
        pixel_formats=Counter(info.pixel_format for info in infos),
        rotations=Counter(info.rotation for info in infos),
        variable_rate=sum(info.variable_rate for info in infos),
        classes=Counter({name: labels[label] for label, name in enumerate(names)}) if most >= 0 else Counter(),
    )


def quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    """The values at QUANTILES, and the `mean`; empty of no values."""
    if not len(values):
        return {}
    found = np.quantile(values, list(QUANTILES.values()))
    return {**dict(zip(QUANTILES, found.tolist(), strict=True)), "mean": float(values.mean())}
