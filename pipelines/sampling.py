"""Which frames of a video make a clip: MMAction2's segment and dense sampling, frame indices from 0."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import SettingsError

SamplingMode = Literal["train", "keep_tail", "test", "twice", "dense_train", "dense_test"]
MODES: tuple[str, ...] = get_args(SamplingMode)
RANDOM_MODES = ("train", "keep_tail", "dense_train")

DENSE_WINDOW = 64  # frames that a dense clip spans (Non-local Networks; MMAction2's DenseSampleFrames default)
DENSE_STRIDE = 8
DENSE_TEST_CLIPS = 10


def segment_indices(
    num_frames: int, num_segments: int, mode: str, rng: np.random.Generator | None = None, *, clips: int | None = None
) -> NDArray[np.int64]:
    """Frame indices of one video, exactly as MMAction2's SampleFrames (clip_len 1) and DenseSampleFrames choose them.

    Args:
        num_frames: frames in the video, ≥ 1.
        num_segments: T, frames of a clip, ≥ 1.
        mode: with a = num_frames // T,
            `train`: one random frame of each of T equal segments, i·a + U[0, a); frames past T·a are never drawn, and
            a video shorter than T gives round-half-even(i·num_frames/T) mod num_frames;
            `keep_tail`: ⌊i·n/T + U(0, n/T)⌋, which reaches the last frame;
            `test`: the middle of each segment, ⌊(i+0.5)·n/T⌋; with k clips each segment gives k evenly spread frames,
            clip j taking ⌊(i+(j+0.5)/k)·n/T⌋: the frames of SampleFrames with k·T segments, dealt out in turn;
            `twice`: `test`, then the starts of the segments, ⌊i·n/T⌋: two clips;
            `dense_train`: T frames, 8 apart, from one random start;
            `dense_test`: ten such clips, or `clips`, with evenly spread starts. Dense indices wrap around the end.
        rng: draws the random modes; the others ignore it.
        clips: how many clips `test` and `dense_test` take; None for 1 and 10. The other modes have a number of their own.

    Returns:
        int64, clips·T indices (see `num_clips`), each in [0, num_frames), clip after clip.

    Raises:
        SettingsError: an unknown mode, fewer than one frame, segment or clip, a number of clips that the mode does not
            have, or a random mode without `rng`.
    """
    if num_frames < 1 or num_segments < 1:
        raise SettingsError(f"cannot sample {num_segments} segments from {num_frames} frames: both must be at least 1")
    if mode not in MODES:
        raise SettingsError(f"unknown sampling mode {mode!r}: use one of {', '.join(MODES)}")
    if mode in RANDOM_MODES and rng is None:
        raise SettingsError(f"sampling mode {mode!r} draws random frames: pass rng")
    clips = num_clips(mode, clips)
    n, T = num_frames, num_segments
    segment = np.arange(T)
    if mode == "train":
        assert rng is not None
        average = n // T
        if average > 0:
            return segment * average + rng.integers(0, average, size=T)
        return np.round(segment * (n / T)).astype(np.int64) % n
    if mode == "keep_tail":
        assert rng is not None
        return np.minimum((segment * (n / T) + rng.uniform(0, n / T, size=T)).astype(np.int64), n - 1)
    if mode == "test":
        return _middles(n, T * clips).reshape(T, clips).T.reshape(-1)
    if mode == "twice":
        return np.concatenate([_middles(n, T), (segment * (n / T)).astype(np.int64)])
    positions = max(1, 1 + n - DENSE_WINDOW)
    if mode == "dense_train":
        assert rng is not None
        # MMAction2 draws from [0, positions − 1), so the very last start is never used.
        start = 0 if positions == 1 else int(rng.integers(0, positions - 1))
        return (start + segment * DENSE_STRIDE) % n
    starts = np.linspace(0, positions - 1, num=clips, dtype=np.int64)
    return ((starts[:, None] + segment * DENSE_STRIDE) % n).reshape(-1)


def num_clips(mode: str, clips: int | None = None) -> int:
    """Clips that a mode takes from one video: `clips` for `test` (else 1) and `dense_test` (else 10), 2 for `twice`, 1 for
    the random modes.

    Raises:
        SettingsError: `clips` is not a whole number above 0, or not what the mode has.
    """
    own = {"twice": 2, "dense_test": DENSE_TEST_CLIPS}.get(mode, 1)
    if clips is None:
        return own
    if not isinstance(clips, int) or isinstance(clips, bool) or clips < 1:
        raise SettingsError(f"clips {clips!r} must be a whole number of at least 1")
    if clips != own and mode not in ("test", "dense_test"):
        raise SettingsError(f"sampling mode {mode!r} takes {own} of a video, not {clips}: use test or dense_test")
    return clips


def _middles(n: int, T: int) -> NDArray[np.int64]:
    return (np.arange(T) * (n / T) + n / T / 2).astype(np.int64)
