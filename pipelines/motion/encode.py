"""Write frames as a real video file in which every frame stands alone, so that time leaves no trace but the order."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

FRAME_RATE = 25
CODECS = {"libx264": ".mp4", "libvpx-vp9": ".webm"}

# Every frame is a key frame at one fixed quantiser: predicted frames and rate control would make a frame's quality depend on its
# place in the file, and a model could read the order from single frames. So coded, the frames of a reversed clip decode to
# the very same pixels (measured on FFmpeg 8: no difference with these settings, up to 41 of 255 with x264's `crf`).
_OPTIONS = {
    "libx264": {"qp": "26", "g": "1", "preset": "veryfast"},
    "libvpx-vp9": {
        "crf": "34",
        "qmin": "34",
        "qmax": "34",
        "b": "0",
        "g": "1",
        "deadline": "realtime",
        "cpu-used": "8",
        "lag-in-frames": "0",
    },
}


def write_video(path: Path, frames: npt.NDArray[np.uint8], codec: str) -> None:
    """Encode `frames` (n, H, W, 3) uint8 RGB to `path` at 25 frames/s, whole or not at all (a temporary name, then a rename).

    `codec` is a key of `CODECS`, whose value is the ending that `path` must have. The same frames give byte-identical files on
    the same FFmpeg.
    """
    if path.suffix != CODECS[codec]:
        raise ValueError(f"{codec} goes into {CODECS[codec]} files, not {path.name}")
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    # bitexact: no random identifiers and no date in the file
    with av.open(str(unfinished), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec, rate=FRAME_RATE, options=_OPTIONS[codec])
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the clips are what is spread over the cores
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    os.replace(unfinished, path)
