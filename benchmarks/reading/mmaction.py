"""MMAction2's pipeline, run from its own classes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.reading.job import SPEC, Job, Key, Marks, check
from benchmarks.reading.peers import Peer
from pipelines.crops import resized_size


class MmAction(Peer):
    """MMAction2's own classes: the TIN recipe's training pipeline, mmengine's collation, its data preprocessor."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        import mmaction

        # The wheel of 1.2.0 lacks a folder (localizers/drn) that mmaction.models imports, so that package is gone past.
        package = type(sys)("mmaction.models")
        package.__path__ = [str(Path(mmaction.__file__).parent / "models")]
        sys.modules["mmaction.models"] = package
        import mmaction.datasets.transforms
        from mmaction.models.data_preprocessors.data_preprocessor import ActionDataPreprocessor
        from mmaction.registry import TRANSFORMS
        from mmengine.dataset import pseudo_collate

        self.collate = pseudo_collate
        self.preprocess = ActionDataPreprocessor(mean=SPEC.mean, std=SPEC.std, format_shape="NCHW")
        side, size = SPEC.short_side, SPEC.input_size
        sample = {"type": "SampleFrames", "clip_len": 1, "frame_interval": 1, "num_clips": SPEC.num_segments}
        crop = {"type": "MultiScaleCrop", "input_size": size, "scales": SPEC.scales, "max_wh_scale_gap": 1}
        decode = [{"type": "RawFrameDecode"}] if job.folders else [{"type": "DecordInit"}, {"type": "DecordDecode"}]
        build = TRANSFORMS.build
        *first, self.decoding = map(build, decode)
        self.resize = build({"type": "Resize", "scale": (-1, side)})
        self.square = build({"type": "Resize", "scale": (size, size), "keep_ratio": False})
        self.last = [build({"type": "FormatShape", "input_format": "NCHW"}), build({"type": "PackActionInputs"})]
        self.opening = first
        drawing = build({**crop, "random_crop": False, "num_fixed_crops": SPEC.num_crop_offsets})
        flip = build({"type": "Flip", "flip_ratio": SPEC.flip})
        self.pipeline = [*first, build(sample), self.decoding, self.resize, drawing, self.square, flip, *self.last]

    def frames(self, path: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        results = {"filename": path, "frame_inds": np.asarray(indices), "clip_len": 1, "num_clips": len(indices)}
        return np.stack(_through([*self.opening, self.decoding], results)["imgs"])

    def clip(self, key: Key) -> torch.Tensor:
        """As the pipeline does it, but for the draws, which are the plan's."""
        plan, info = self.job.plan(key), self.job.index[self.job.videos.entries[key[1]]]
        source = self._source(key[1])
        drawn = {"frame_inds": plan.indices.reshape(-1) + source["start_index"], "clip_len": 1, "num_clips": 8}
        results = _through([*self.opening, self.decoding, self.resize], {**source, **drawn})
        scale = resized_size(info.height, info.width, SPEC.short_side)[0] / info.height
        top, left, height, width = (round(value * scale) for value in plan.boxes[0].tolist())
        results["imgs"] = [image[top : top + height, left : left + width] for image in results["imgs"]]
        results["img_shape"] = (height, width)
        results = self.square(results)
        if plan.flips[0]:
            results["imgs"] = [np.ascontiguousarray(image[:, ::-1]) for image in results["imgs"]]
        frames: torch.Tensor = self._normalised(self.collate([_through(self.last, results)]))[0]
        return frames

    def read(self) -> Iterator[Marks]:
        from mmengine.utils.dl_utils import set_multi_processing

        set_multi_processing(mp_start_method="fork", opencv_num_threads=0)  # as its default_runtime does
        for batch, marks in self.batches(self._drawn, self.collate):
            check(self._normalised(batch))
            yield marks

    def _drawn(self, key: Key) -> dict[str, Any]:
        return _through(self.pipeline, self._source(key[1]))

    def _source(self, id: int) -> dict[str, Any]:
        """As its VideoDataset and RawframeDataset give it."""
        entry = self.job.videos.entries[id]
        info = self.job.index[entry]
        common = {"label": entry.label or 0, "modality": "RGB"}
        if info.template is None:
            return {"filename": str(entry.path), "start_index": 0, **common}
        folder = {"frame_dir": str(entry.path), "total_frames": info.num_frames, "filename_tmpl": info.template}
        return {**folder, "offset": 0, "start_index": 1, **common}

    def _normalised(self, batch: dict[str, Any]) -> torch.Tensor:
        frames: torch.Tensor = self.preprocess(batch, training=True)["inputs"]
        return frames


def _through(transforms: Sequence[Callable[[Any], Any]], results: dict[str, Any]) -> dict[str, Any]:
    for transform in transforms:
        results = transform(results)
    return results
