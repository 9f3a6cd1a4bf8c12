"""On a GPU: NVDEC and nvJPEG give the CPU's batches, on the caller's device, and no batch is overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines import Batch, ClipSpec, Loader, VideoIndex, VideoList
from tests.pipelines.videos import listed, rotate_header, write_frames, write_video

pytestmark = pytest.mark.gpu
PLAIN = ClipSpec(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # results stay in 0…255
NVDEC_FILES = [
    "k400_SOX5yA1l24A.mp4",
    "k400_R6llTwEh07w.mp4",
    "bikes_640x272.mp4",
    "vp9_640x480.webm",
    "ssv2_id166766_webm_named_mp4.mp4",
    "phone_rot180_vfr.mp4",
    "rot_90.mov",
    "rot_270.mov",
]


def batches(video_list: VideoList, device: str, **options: Any) -> list[Batch]:
    index = VideoIndex.build(video_list)
    with Loader(
        video_list, index, PLAIN, **{"batch_size": 4, "training": False, "num_workers": 2, "device": device, **options}
    ) as source:
        made = list(source)
        assert source.failures == []
    return made


def assert_close(gpu: list[Batch], cpu: list[Batch]) -> None:
    assert [b.ids.tolist() for b in gpu] == [b.ids.tolist() for b in cpu]
    for ours, theirs in zip(gpu, cpu, strict=True):
        assert ours.frames.is_cuda
        assert ours.labels.is_cuda
        assert ours.frames.is_contiguous(memory_format=torch.channels_last)
        difference = (ours.frames.cpu().float() - theirs.frames).abs().reshape(len(ours.ids), -1).mean(1)
        assert difference.max() <= 4, difference.tolist()  # NVDEC converts colours by its own rounding


@pytest.mark.parametrize("training", [False, True])
def test_nvdec_gives_the_frames_of_the_cpu(real_videos: Path, tmp_path: Path, training: bool) -> None:
    video_list = listed(tmp_path, NVDEC_FILES, real_videos / "codecs")
    assert_close(batches(video_list, "cuda", training=training), batches(video_list, "cpu", training=training))


def test_a_video_that_nvdec_does_not_take_brings_all_to_the_cpu_decoder(real_videos: Path, tmp_path: Path) -> None:
    names = ["h264_10bits.mp4", "discard_first_keyframe.mp4", "hmdb51_TrumanShow_wave.avi", "k400_SOX5yA1l24A.mp4"]
    video_list = listed(tmp_path, names, real_videos / "codecs")
    assert_close(batches(video_list, "cuda"), batches(video_list, "cpu"))


def test_frame_folders_through_nvjpeg(tmp_path: Path) -> None:
    video_list = listed(tmp_path, [write_frames(tmp_path / str(number), 9).name for number in range(5)])
    assert_close(batches(video_list, "cuda", dtype="float16"), batches(video_list, "cpu"))


def test_a_damaged_file_is_found_and_the_others_delivered(real_videos: Path, tmp_path: Path) -> None:
    paths = [rotate_header(write_video(tmp_path / f"{n}.mp4", size=(144, 176)), 90 * (n % 4)) for n in range(8)]
    video_list = listed(tmp_path, [path.name for path in paths])
    index = VideoIndex.build(video_list, workers=0)
    write_video(paths[5], frames=2, size=(144, 176))
    with Loader(video_list, index, PLAIN, batch_size=4, training=False, device="cuda") as source:
        ids = [int(id) for batch in source for id in batch.ids]
        assert ids == [0, 1, 2, 3, 4, 6, 7]
        assert [failure.id for failure in source.failures] == [5]


def test_batches_stay_as_they_are_while_the_stream_is_busy(tmp_path: Path) -> None:
    paths = [write_video(tmp_path / f"{n}.mp4", size=(144, 176), level=8 * n) for n in range(24)]
    video_list = listed(tmp_path, [path.name for path in paths])
    index = VideoIndex.build(video_list, workers=0)
    busy = torch.randn(4096, 4096, device="cuda")
    means = []
    with Loader(video_list, index, PLAIN, batch_size=1, training=False, device="cuda") as source:
        for batch in source:
            for _ in range(20):  # the frames are read long after the loop has gone on to the next batch
                busy = busy @ busy / 64
            means.append(batch.frames.mean() + 0 * busy.nan_to_num().sum())
            del batch
    for number, mean in enumerate(means):
        assert abs(mean.item() - 8 * number) < 4
