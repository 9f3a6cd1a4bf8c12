"""What decoding a clip costs: the frames that must go through the decoder for those that are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipelines.annotations import VideoEntry
from pipelines.plan import make_plan

if TYPE_CHECKING:
    from pipelines.plan import ClipSpec
    from pipelines.probe import VideoInfo


def frames_to_decode(info: VideoInfo, indices: Sequence[int] | NDArray[np.int64]) -> int:
    """Frames that decoding `indices` takes: of each group of pictures with a wanted frame, those up to the last wanted one.

    So the decoder of `pipelines.decode` works, but for what the index does not know: of H.264 and HEVC it leaves out frames that
    no other refers to (on Kinetics files two in five), frames may be stored in another order than they are shown (one more or two
    a group), and a file whose packets' times tell nothing is decoded from its start. Images of a frame folder are decoded one by one.

    Args:
        info: a readable video.
        indices: any number of frame indices in [0, info.num_frames), in any order, repeats allowed.
    """
    wanted = np.unique(np.asarray(indices, dtype=np.int64))
    if info.template is not None or not len(wanted):
        return len(wanted)
    keys = np.array(info.keyframes or (0,), dtype=np.int64)
    groups = np.searchsorted(keys, wanted, side="right") - 1
    starts = np.where(groups < 0, 0, keys[groups])
    last_of_group = np.append(groups[1:] != groups[:-1], True)
    return int((wanted - starts + 1)[last_of_group].sum())


def expected_decode_cost(
    info: VideoInfo, spec: ClipSpec, *, training: bool = True, epochs: int = 8, seed: int = 0, id: int = 0
) -> float:
    """Frames decoded for each frame that a video's clips show, as the loader asks for them: the mean over `epochs` of training,
    or testing's one way. 1 where every frame is a keyframe; half the length of the video's groups and more where these are long;
    below 1 where frames repeat.

    Args:
        info: a readable video.
        spec: says which frames make a clip.
        training: whether frames are drawn as in training; in testing they are not random.
        epochs: of training, from 0, with `seed` and `id` as the loader's.
    """
    nowhere = VideoEntry(Path(), None, "")  # a plan's frames do not depend on it
    ratios = []
    for epoch in range(epochs if training else 1):
        plan = make_plan(nowhere, info, spec, training=training, seed=seed, epoch=epoch, id=id)
        ratios.append(frames_to_decode(info, plan.indices.reshape(-1)) / plan.indices.size)
    return float(np.mean(ratios))
