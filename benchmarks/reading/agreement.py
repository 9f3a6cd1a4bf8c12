"""Whether readers deliver the same frames and clips, and how near: nobody shall be faster by being wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.reading.trees import Tree
from pipelines import ClipSpec, VideoIndex, VideoList
from pipelines.sampling import segment_indices

CHECKED = 5  # videos, the first of the list
_NEIGHBOURS = range(-3, 4)  # a wrong frame would be one of these
_MIDDLE = len(_NEIGHBOURS) // 2


def agree(
    names: Sequence[str], job: dict[str, Any], videos: VideoList, index: VideoIndex
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """How near each reader comes to the truth, in levels of 255; and the readers that fail, with the reason.

    Frames, of videos: PyAV's full decode at the same indices. They are the same if none of the six frames around one is
    nearer. Clips: the loader's, which must work.
    """
    entries = videos.entries[:CHECKED]
    paths = [str(entry.path) for entry in entries]
    around = [_around(index[entry].num_frames) for entry in entries]
    found: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:

        def arrays(tree: Tree, wanted: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
            given = []
            for path, indices in zip(paths, wanted, strict=True):
                tree.ask(frames=[path, indices.reshape(-1).tolist()], to=f"{folder}/frames.npy")
                frames = np.load(f"{folder}/frames.npy")
                given.append(frames.reshape(*indices.shape, *frames.shape[1:]))
            return given

        def clips(tree: Tree) -> NDArray[Any]:
            tree.ask(clips=list(range(len(entries))), to=f"{folder}/clips.npy")
            levels: NDArray[Any] = np.load(f"{folder}/clips.npy") * np.array(ClipSpec().std, np.float32)[:, None, None]
            return levels

        with ExitStack() as stack:
            trees = {
                name: stack.enter_context(Tree(name, job)) for name in {"loader": 0, "pyav": 0, **dict.fromkeys(names)}
            }
            videos_alone = all(index[entry].template is None for entry in entries)
            true = arrays(trees["pyav"], around) if videos_alone else None
            ours = clips(trees["loader"])
            for name in names:
                try:
                    middle = [indices[_MIDDLE] for indices in around]
                    near = compare(arrays(trees[name], middle), true) if true else {}
                    found[name] = {**near, "clip_mean_abs": float(np.abs(clips(trees[name]) - ours).mean())}
                except RuntimeError as error:
                    failed[name] = str(error)
    return found, failed


def _around(num_frames: int) -> NDArray[Any]:
    """(neighbours, T) indices: those of testing, in the middle, and the same shifted."""
    middle = segment_indices(num_frames, ClipSpec().num_segments, "test").reshape(-1)
    return np.stack([np.clip(middle + shift, 0, num_frames - 1) for shift in _NEIGHBOURS])


def compare(given: Sequence[NDArray[Any]], true: Sequence[NDArray[Any]]) -> dict[str, Any]:
    """Of frames (T, H, W, 3) of each video, against (neighbours, T, H, W, 3)."""
    if any(frames.shape != around.shape[1:] for frames, around in zip(given, true, strict=True)):
        return {"same_frames": False, "frame_mean_abs": None, "frame_max_abs": None, "next_frame_mean_abs": None}
    far = [np.abs(frames.astype(np.int16) - around) for frames, around in zip(given, true, strict=True)]
    means = np.stack([video.mean(axis=(2, 3, 4)) for video in far])  # (videos, neighbours, T)
    return {
        "same_frames": bool((means[:, _MIDDLE] <= means.min(axis=1)).all()),
        "frame_mean_abs": float(means[:, _MIDDLE].mean()),
        "frame_max_abs": max(int(video[_MIDDLE].max()) for video in far),
        "next_frame_mean_abs": float(means[:, _MIDDLE + 1].mean()),
    }
