"""What an exported ONNX file takes a video for: onnxruntime, numpy and PyAV (`pip install av`), nothing of tin-video.

python predict.py tin.onnx video.mp4
"""

from __future__ import annotations

import json
import sys

import av
import numpy as np
import onnxruntime


def middle_frames(path: str, count: int) -> list[np.ndarray]:
    """The middles of `count` equal segments of a video, RGB."""
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return [frames[int((i + 0.5) * len(frames) / count)] for i in range(count)]


def center_crop(frame: np.ndarray, short_side: int, size: list[int]) -> np.ndarray:
    """The middle `size` (height, width) of a frame as if its short side were `short_side`: read once from the frame, bilinearly."""
    sides = frame.shape[:2]
    resized = [int(side * short_side / min(sides) + 0.5) for side in sides]
    low, share = [], []
    for side, full, wanted in zip(sides, resized, size, strict=True):
        place = ((full - wanted) // 2 + np.arange(wanted) + 0.5) * side / full - 0.5
        place = place.clip(0, side - 1)
        low.append(np.minimum(place.astype(int), side - 2))
        share.append(place - low[-1])
    (rows, columns), (down, across) = low, (share[0][:, None, None], share[1][:, None])
    upper, lower = frame[rows].astype(np.float32), frame[rows + 1].astype(np.float32)
    both = upper + (lower - upper) * down
    left, right = both[:, columns], both[:, columns + 1]
    return left + (right - left) * across


def main(model: str, video: str) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["tin"])
    how, names = about["preprocessing"], about["labels"]
    _, segments, _, *size = about["input"]["shape"]
    clip = np.stack([center_crop(frame, how["short_side"], size) for frame in middle_frames(video, segments)])
    clip = (clip - np.array(how["mean"])) / np.array(how["std"])
    clip = clip.transpose(0, 3, 1, 2).astype(np.float32)  # (T, 3, H, W)
    (logits,) = session.run(["logits"], {"frames": clip[None]})
    scores = np.exp(logits[0] - logits[0].max())
    scores /= scores.sum()
    for number in np.argsort(-scores)[:5]:
        print(f"{100 * scores[number]:5.1f}%  {names[number] if names else f'class {number}'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
