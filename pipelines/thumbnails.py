"""Small pictures of the frames that a model saw of a video: the plan's own indices and crop, for people to look at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.annotations import VideoEntry
from pipelines.errors import DataError, DecodeError
from pipelines.index import VideoIndex
from pipelines.plan import ClipPlan, ClipSpec, make_plan
from pipelines.probe import VideoInfo
from pipelines.workers import WorkerPool

MAX_SIDE = 112
MAX_FRAMES = 16
"""Of a longer clip so many frames are shown, evenly spread."""


@dataclass(frozen=True)
class _View:
    info: VideoInfo
    indices: NDArray[np.int64]
    box: tuple[float, float, float, float]


def seen_frames(
    entries: Sequence[VideoEntry], index: VideoIndex, spec: ClipSpec, *, workers: int | None = None
) -> dict[str, NDArray[np.uint8] | str]:
    """One view of each video as testing sees it: the first clip, in the crop next to the middle that is not mirrored.

    Decoding happens in processes of their own, so that a file that kills or hangs the decoder is a reason like any other.

    Args:
        entries: the videos; `index` knows them.
        spec: of the test.
        workers: decoding processes; None for one a core.

    Returns:
        Id → uint8 (frames, side, side, 3) RGB, at most 16 frames of at most 112² pixels; or why there are none.
    """
    found: dict[str, NDArray[np.uint8] | str] = {}
    side = min(MAX_SIDE, spec.input_size)
    views: dict[str, _View] = {}
    for entry in entries:
        info = index[entry]
        if info.error is not None:
            found[entry.id] = info.error
        else:
            views[entry.id] = _view(make_plan(entry, info, spec, training=False, seed=0, epoch=0, id=0), info)
    count = len(os.sched_getaffinity(0)) if workers is None else workers
    files = [entry for entry in entries if entry.id in views and views[entry.id].info.template is None]
    pool = WorkerPool(min(count, len(files)))
    try:
        for entry in files:
            view = views[entry.id]
            pool.submit(entry.id, "decode", str(entry.path), view.indices, view.info.layout)
        left = len(files)
        while left:
            for id, frames, error in pool.collect():
                left -= 1
                found[id] = _reason(error) if error is not None else _cropped(frames, views[id].box, side)
    finally:
        pool.close()
    for entry in entries:
        if entry.id not in found:
            found[entry.id] = _from_images(entry, views[entry.id], side)
    return found


def _view(plan: ClipPlan, info: VideoInfo) -> _View:
    indices = plan.indices[0]
    if len(indices) > MAX_FRAMES:
        indices = indices[np.linspace(0, len(indices) - 1, MAX_FRAMES).round().astype(np.int64)]
    centres = plan.boxes[:, :2] + plan.boxes[:, 2:] / 2 - np.array([info.height, info.width]) / 2
    distance = np.where(plan.flips, np.inf, np.hypot(*centres.T))
    y, x, height, width = plan.boxes[int(distance.argmin())].tolist()
    return _View(info, indices, (x, y, x + width, y + height))


def _cropped(frames: NDArray[np.uint8], box: tuple[float, float, float, float], side: int) -> NDArray[np.uint8]:
    from PIL import Image

    height, width = frames.shape[1:3]
    inside = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height))  # fractions may round past
    images = [Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR, inside) for frame in frames]
    return np.stack([np.asarray(image) for image in images])


def _from_images(entry: VideoEntry, view: _View, side: int) -> NDArray[np.uint8] | str:
    from PIL import Image, UnidentifiedImageError

    assert view.info.template is not None
    paths = [entry.path / view.info.template.format(index + 1) for index in view.indices.tolist()]
    try:
        images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        return f"an image cannot be read ({error})"
    return np.concatenate([_cropped(image[None], view.box, side) for image in images])


def _reason(error: DataError) -> str:
    return error.reason if isinstance(error, DecodeError) else str(error)
