"""The DALI graph of a batch: frames in, one resample of each crop, mirror, normalise, cast, channels-last tensor out.

The same sums on either device; only where frames come from differs (`SOURCES`). On the CPU DALI's ROI resize takes 0.6 ms a
frame of 224² on one core, two thirds of it in a horizontal pass without vector instructions; its warp_perspective (OpenCV's) gives
the same pixels, mirrored or not, in 0.2 ms.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, types

from pipelines.plan import ClipPlan, ClipSpec
from pipelines.probe import VideoInfo

SOURCES = {
    "decoded": "uint8 (clips·T, H, W, 3) arrays, upright, decoded elsewhere",
    "video": "paths of video files, read and decoded by DALI: NVDEC on a GPU; VP8, VP9 and MJPEG on a CPU",
    "images": "paths of image files, clips·T a plan, read and decoded by DALI: nvJPEG on a GPU",
}

_DALI_TYPES = {
    torch.float32: types.FLOAT,
    torch.float16: types.FLOAT16,
    torch.bfloat16: types.FLOAT,  # DALI has no bfloat16: cast on the device afterwards
}


@dataclass(frozen=True, slots=True)
class Ready:
    """A batch as it leaves the graph; on a GPU the last work on it may still be under way."""

    frames: torch.Tensor
    """(N·V·T, 3, input_size, input_size) in channels_last memory, views in the plan's order. With one crop it is DALI's own
    memory, which stays as it is for as long as the tensor lives; more crops are joined by a copy."""
    done: torch.cuda.Event | None = None
    """On a GPU: a stream that uses `frames` waits for it first."""
    parts: tuple[torch.Tensor, ...] = ()
    """DALI's memory that `frames` is or was made from: kept until the work on it is done, because it knows nothing of torch's
    streams."""


class ClipGraph:
    """Turns the plans of a batch and their frames into one tensor.

    Args:
        spec: sizes, mean and std.
        source: a key of `SOURCES`.
        num_crops: crops of every plan.
        batch_size: most plans in one call.
        num_frames: clips·T, frames of every plan.
        device: where the operators run and the result lies.
        dtype: of the result: float32, float16 or bfloat16.
        rotated: whether some videos need turning; `video` alone turns frames, the other sources are upright.
        color: whether the plans say how to change colours; otherwise no operator for that is in the graph.
        num_threads: CPU threads of DALI.

    A failed call leaves the pipeline invalid (DALI does not say which sample did it): call `rebuild`.
    """

    def __init__(
        self,
        spec: ClipSpec,
        source: str,
        *,
        num_crops: int,
        batch_size: int,
        num_frames: int,
        device: torch.device,
        dtype: torch.dtype,
        rotated: bool = False,
        color: bool = False,
        num_threads: int = 2,
    ) -> None:
        self._spec, self._source, self._num_crops, self._num_frames = spec, source, num_crops, num_frames
        self._device, self._dtype, self._num_threads = device, dtype, num_threads
        self._rotated = rotated and source == "video"
        self._color = color
        self._samples = batch_size * (num_frames if source == "images" else 1)
        # Only the part of a JPEG that the one crop shows is decoded; nvJPEG decodes whole images as fast.
        self._sliced = source == "images" and device.type == "cpu" and num_crops == 1
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._submitted: deque[tuple[int, Sequence[Any], RuntimeError | None]] = deque()  # with what DALI reads from
        self._pipeline = self._build()

    def __call__(self, plans: Sequence[ClipPlan], infos: Sequence[VideoInfo], inputs: Sequence[Any]) -> torch.Tensor:
        """Frames of a batch: `submit` and `result` at once. On a GPU they are complete, whatever stream uses them.

        Returns:
            as `Ready.frames`; the caller keeps the tensor until the work that reads it is done.

        Raises:
            RuntimeError: DALI cannot read or decode one of the inputs.
        """
        self.submit(plans, infos, inputs)
        ready = self.result()
        if ready.done is not None:
            ready.done.synchronize()
        return ready.frames

    def submit(self, plans: Sequence[ClipPlan], infos: Sequence[VideoInfo], inputs: Sequence[Any]) -> None:
        """Let DALI begin with a batch; several may be under way, and `result` gives them in this order.

        Args:
            plans: N plans.
            infos: what the index knows of each.
            inputs: per plan, what the source takes: an array, a path, or a list of clips·T paths. Arrays are not copied
                here and must stay as they are until the batch's `result`.
        """
        failed: RuntimeError | None = None
        try:
            self._feed(plans, infos, inputs)
            self._pipeline.schedule_run()
        except RuntimeError as error:  # of a batch before: the pipeline is gone
            failed = error
        self._submitted.append((len(plans), inputs, failed))

    def result(self) -> Ready:
        """The oldest batch that was submitted, without waiting for the GPU's work on it.

        Raises:
            RuntimeError: DALI cannot read or decode one of the inputs.
        """
        count, _, failed = self._submitted.popleft()
        if failed is not None:
            raise failed
        if self._stream is None:
            return self._join(self._pipeline.outputs(), count)
        # A stream of its own, so that the copies in _join do not queue behind the model.
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            return self._join(self._pipeline.outputs(cuda_stream=self._stream), count)

    def drain(self) -> None:
        """Drop the batches that were submitted and not fetched."""
        try:
            while self._submitted:
                self.result()
        except RuntimeError:
            self.rebuild()

    def rebuild(self) -> None:
        """Replace a pipeline that a failed call has made invalid; what was submitted and not fetched is forgotten."""
        self._pipeline = self._build()
        self._submitted.clear()  # not sooner: the old pipeline may have been reading the arrays

    def _feed(self, plans: Sequence[ClipPlan], infos: Sequence[VideoInfo], inputs: Sequence[Any]) -> None:
        on_cpu = self._device.type == "cpu"
        rois = [
            relative_rois(plan, info, turned=self._turns(info), mirrored=on_cpu)
            for plan, info in zip(plans, infos, strict=True)
        ]
        if self._sliced:
            slices = [_slice(plan, info) for plan, info in zip(plans, infos, strict=True)]
            rois = [_within(roi, part, info) for roi, part, info in zip(rois, slices, infos, strict=True)]
            self._pipeline.feed_input("slices", [part for part in slices for _ in range(self._num_frames)])
        if on_cpu:
            rois = [_matrices(roi, self._spec.input_size) for roi in rois]
        flips = [plan.flips.astype(np.int32) for plan in plans]
        feed = self._pipeline.feed_input
        if self._source == "decoded":
            feed("frames", list(inputs), layout="FHWC")
        elif self._source == "video":
            feed("paths", [_text(path) for path in inputs])
            feed("indices", [plan.indices.reshape(-1).astype(np.int32) for plan in plans])
        else:
            feed("paths", [_text(path) for paths in inputs for path in paths])
            rois = [roi for roi in rois for _ in range(self._num_frames)]
            flips = [flip for flip in flips for _ in range(self._num_frames)]
        feed("rois", rois)
        if not on_cpu:
            feed("flips", flips)
        if self._color:
            each = self._num_frames if self._source == "images" else 1
            feed("colors", [plan.color for plan in plans for _ in range(each)])
        if self._rotated:
            feed("angles", [np.float32(90 * self._turns(info)) for info in infos])

    def _join(self, outputs: Sequence[Any], count: int) -> Ready:
        S = self._spec.input_size
        crops = [torch.from_dlpack(output.as_tensor()).view(count, -1, S, S, 3) for output in outputs]
        joined = crops[0] if len(crops) == 1 else torch.stack(crops, dim=1)
        frames = joined.view(-1, S, S, 3).permute(0, 3, 1, 2)
        frames = frames.to(self._dtype) if frames.dtype != self._dtype else frames
        if self._stream is None:
            return Ready(frames)
        done = torch.cuda.Event()
        done.record(self._stream)
        return Ready(frames, done, tuple(crops))

    def _turns(self, info: VideoInfo) -> int:
        return info.rotation // 90 if self._source == "video" else 0

    def _build(self) -> Pipeline:
        gpu = self._device.type == "cuda"
        pipeline = Pipeline(
            batch_size=self._samples,
            num_threads=self._num_threads,
            device_id=self._device.index or 0 if gpu else None,
            exec_dynamic=True,  # its outputs own their memory, so a batch is never overwritten
            prefetch_queue_depth=1,  # outputs that may wait; the operators before them go on with the next batch
        )
        with pipeline:
            rois = fn.external_source(name="rois", ndim=2 if gpu else 3, dtype=types.FLOAT)
            flips = fn.external_source(name="flips", ndim=1, dtype=types.INT32) if gpu else None
            frames = self._frames(gpu)
            angles = fn.external_source(name="angles", ndim=0, dtype=types.FLOAT) if self._rotated else None
            colors = fn.external_source(name="colors", ndim=1, dtype=types.FLOAT) if self._color else None
            outputs = [self._crop(frames, rois, flips, angles, colors, crop) for crop in range(self._num_crops)]
            pipeline.set_outputs(*outputs)
        pipeline.build()
        return pipeline

    def _frames(self, gpu: bool) -> Any:
        if self._source == "decoded":
            # Where the next operator runs on the GPU, DALI itself copies such an input into pinned memory, on its threads,
            # and uploads that; with no_copy that is the only copy on the host.
            frames = fn.external_source(name="frames", ndim=4, dtype=types.UINT8, layout="FHWC", no_copy=True)
            return frames.gpu() if gpu else frames
        encoded = fn.io.file.read(fn.external_source(name="paths", ndim=1, dtype=types.UINT8))
        device = "mixed" if gpu else "cpu"
        if self._sliced:
            slices = fn.external_source(name="slices", ndim=1, dtype=types.INT32)
            return fn.decoders.image_slice(
                encoded, start=slices[0:2], end=slices[2:4], axes=[0, 1], device=device, output_type=types.RGB
            )
        if self._source == "images":
            return fn.decoders.image(encoded, device=device, output_type=types.RGB)
        indices = fn.external_source(name="indices", ndim=1, dtype=types.INT32)
        # By default DALI fills frames past the end with black, and pins its threads to the same cores in every process.
        return fn.decoders.video(encoded, frames=indices, device=device, pad_mode="none", affine=False)

    def _crop(self, frames: Any, rois: Any, flips: Any, angles: Any, colors: Any, crop: int) -> Any:
        size = self._spec.input_size
        if flips is None:
            first = 0 if self._source == "images" else 1
            shape = frames.shape(dtype=types.FLOAT)
            scale = fn.stack(shape[first + 1], shape[first], types.Constant(1.0, dtype=types.FLOAT))
            out = fn.experimental.warp_perspective(
                frames,
                rois[crop] * fn.reshape(scale, shape=[3, 1]),
                size=[size, size],
                interp_type=types.INTERP_LINEAR,
                border_mode="replicate",
                pixel_origin="corner",
            )
        else:
            out = fn.resize(
                frames,
                size=[size, size],
                roi_start=rois[crop, 0:2],
                roi_end=rois[crop, 2:4],
                roi_relative=True,
                interp_type=types.INTERP_LINEAR,
                antialias=False,  # as the peers resize
            )
        if angles is not None:
            out = fn.rotate(out, angle=angles, size=[size, size], interp_type=types.INTERP_NN)
        if colors is not None:
            out = fn.color_twist(out, brightness=colors[0], contrast=colors[1], saturation=colors[2], hue=colors[3])
        return fn.crop_mirror_normalize(
            out,
            mirror=0 if flips is None else flips[crop],
            dtype=_DALI_TYPES[self._dtype],
            output_layout="HWC" if self._source == "images" else "FHWC",
            mean=list(self._spec.mean),
            std=list(self._spec.std),
        )


def relative_rois(plan: ClipPlan, info: VideoInfo, *, turned: int = 0, mirrored: bool = False) -> NDArray[np.float32]:
    """(crops, 4) y0, x0, y1, x1 of the plan's boxes as parts of the frame.

    `turned`: quarter turns counter-clockwise by which the decoder's frame is still to be turned; the boxes are
    then those of the frame before turning. `mirrored`: the boxes that the plan mirrors run from right to left, x0 > x1
    (before they are turned).
    """
    y, x, h, w = (plan.boxes / [info.height, info.width, info.height, info.width]).T
    y0, x0, y1, x1 = y, x, y + h, x + w
    if mirrored:
        x0, x1 = np.where(plan.flips, x1, x0), np.where(plan.flips, x0, x1)
    if turned == 1:
        y0, x0, y1, x1 = x0, 1 - y1, x1, 1 - y0
    elif turned == 2:
        y0, x0, y1, x1 = 1 - y1, 1 - x1, 1 - y0, 1 - x0
    elif turned == 3:
        y0, x0, y1, x1 = 1 - x1, y0, 1 - x0, y1
    return np.stack([y0, x0, y1, x1], axis=1).astype(np.float32)


def reason(error: RuntimeError) -> str:
    """The line of DALI's message that says what happened, without its C++ places."""
    text = str(error)
    text = text.split("encountered:", 1)[-1]
    lines = [re.sub(r"^\[/\S+\]\s*", "", line.strip()) for line in text.splitlines()]
    return next((line for line in lines if line and not line.startswith("C++ context")), text.strip())


def _slice(plan: ClipPlan, info: VideoInfo) -> NDArray[np.int32]:
    """(4,) y0, x0, y1, x1: whole pixels that hold the plan's one box and all that is interpolated with."""
    y, x, h, w = plan.boxes[0]
    low = np.floor([y, x]) - 1
    high = np.minimum(np.ceil([y + h, x + w]) + 1, [info.height, info.width])
    return np.concatenate([np.maximum(low, 0), high]).astype(np.int32)


def _within(roi: NDArray[np.float32], part: NDArray[np.int32], info: VideoInfo) -> NDArray[np.float32]:
    """The region `roi`, parts of the whole frame, as parts of the slice `part` of it."""
    start, size = np.tile(part[:2], 2), np.tile(part[2:] - part[:2], 2)
    return ((roi.astype(np.float64) * np.tile([info.height, info.width], 2) - start) / size).astype(np.float32)


def _matrices(rois: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """(crops, 3, 3): from pixels x, y, 1 of a result of `size` × `size` to parts of the frame, for `relative_rois`."""
    y0, x0, y1, x1 = rois.T
    matrices = np.zeros((len(rois), 3, 3), np.float32)
    matrices[:, 0, 0], matrices[:, 0, 2] = (x1 - x0) / size, x0
    matrices[:, 1, 1], matrices[:, 1, 2] = (y1 - y0) / size, y0
    matrices[:, 2, 2] = 1
    return matrices


def _text(path: str | Path) -> NDArray[np.uint8]:
    return np.frombuffer(str(path).encode("utf-8", "surrogateescape"), np.uint8)
