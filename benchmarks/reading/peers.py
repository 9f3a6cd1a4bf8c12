"""Other decoders in their usual form: torchvision's transforms and torch's DataLoader around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info
from torchvision.transforms.v2 import functional as F

from benchmarks.reading.job import CLIP_SHAPE, SPEC, Job, Key, Marks, Reader, check


class Peer(Reader):
    """A decoder and torchvision's transforms in torch's DataLoader."""

    def decode(self, path: str, indices: Sequence[int]) -> torch.Tensor:
        """(T, 3, H, W) uint8."""
        raise NotImplementedError

    def frames(self, path: str, indices: Sequence[int]) -> NDArray[np.uint8]:
        return self.decode(path, indices).permute(0, 2, 3, 1).numpy()

    def clips(self, ids: Sequence[int]) -> list[torch.Tensor]:
        return [self.clip((0, id)) for id in ids]

    def clip(self, key: Key) -> torch.Tensor:
        plan = self.job.plan(key)
        frames = self.decode(str(self.job.videos.entries[key[1]].path), plan.indices.reshape(-1).tolist())
        top, left, height, width = (round(side) for side in plan.boxes[0].tolist())
        frames = F.resized_crop(frames, top, left, height, width, list(CLIP_SHAPE[2:]), antialias=False)
        if plan.flips[0]:
            frames = F.horizontal_flip(frames)
        return F.normalize(frames.float(), list(SPEC.mean), list(SPEC.std))

    def read(self) -> Iterator[Marks]:
        for frames, marks in self.batches(self.clip, torch.utils.data.default_collate):
            check(frames)
            yield marks

    def batches(self, make: Callable[[Key], Any], collate: Callable[[list[Any]], Any]) -> Iterator[tuple[Any, Marks]]:
        job = self.job
        clips = ClipSet(len(job.videos), make)
        return iter(
            DataLoader(clips, job.batch_size, sampler=Endless(job), num_workers=job.workers, collate_fn=Marked(collate))
        )


class Endless(Sampler[Key]):
    """The job's keys."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __iter__(self) -> Iterator[Key]:
        return self.job.order()


class ClipSet(Dataset[Any]):
    """Clips by key, each with the worker that made it and when."""

    def __init__(self, length: int, make: Callable[[Key], Any]) -> None:
        self.length, self.make = length, make

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Key) -> tuple[Any, tuple[int, float, int]]:
        clip, worker = self.make(key), get_worker_info()
        return clip, (worker.id if worker else 0, time.monotonic(), 1)


class Marked:
    """Collates clips and keeps their marks beside the batch."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, items: list[tuple[Any, tuple[int, float, int]]]) -> tuple[Any, Marks]:
        return self.collate([clip for clip, _ in items]), [mark for _, mark in items]


class PyAv(Peer):
    """PyAV: decode from the start, keep what is wanted, stop after the last."""

    def decode(self, path: str, indices: Sequence[int]) -> torch.Tensor:
        import av

        wanted = set(indices)
        found: dict[int, NDArray[np.uint8]] = {}
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    found[number] = frame.to_ndarray(format="rgb24", threads=1)
                    if len(found) == len(wanted):
                        break
        return torch.from_numpy(np.stack([found[index] for index in indices])).permute(0, 3, 1, 2)


class Decord(Peer):
    """decord: VideoReader.get_batch."""

    def decode(self, path: str, indices: Sequence[int]) -> torch.Tensor:
        from decord import VideoReader

        frames = VideoReader(path, num_threads=1).get_batch(list(indices)).asnumpy()
        return torch.from_numpy(frames).permute(0, 3, 1, 2)


class TorchCodec(Peer):
    """torchcodec: VideoDecoder.get_frames_at, after a scan of the file (its default)."""

    seek_mode = "exact"

    def decode(self, path: str, indices: Sequence[int]) -> torch.Tensor:
        from torchcodec.decoders import VideoDecoder

        decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode=self.seek_mode)
        frames: torch.Tensor = decoder.get_frames_at(list(indices)).data
        return frames


class TorchCodecApproximate(TorchCodec):
    """torchcodec without the scan: it trusts the header's frame rate."""

    seek_mode = "approximate"


class TorchvisionJpeg(Peer):
    """torchvision.io.decode_jpeg of a folder's files."""

    def decode(self, path: str, indices: Sequence[int]) -> torch.Tensor:
        from torchvision.io import decode_jpeg, read_file

        template = next(t for entry in self.job.videos.entries if (t := self.job.index[entry].template))
        return torch.stack([decode_jpeg(read_file(f"{path}/{template.format(index + 1)}")) for index in indices])
