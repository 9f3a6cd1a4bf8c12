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
    spec = options.pop("spec", PLAIN)
    with Loader(
        video_list, index, spec, **{"batch_size": 4, "training": False, "num_workers": 2, "device": device, **options}
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


def test_each_clip_of_a_batch_takes_its_own_way_and_they_are_joined_in_order(real_videos: Path, tmp_path: Path) -> None:
    """NVDEC, our processes and nvJPEG in one batch; three crops are joined by a copy of their own before."""
    folder = real_videos / "codecs"
    names: list[str | Path] = [
        folder / "h264_10bits.mp4",
        folder / "k400_SOX5yA1l24A.mp4",
        write_frames(tmp_path / "a", 9),
    ]
    names += [folder / "hmdb51_TrumanShow_wave.avi", folder / "discard_first_keyframe.mp4", folder / "vp9_640x480.webm"]
    names += [write_frames(tmp_path / "b", 12), folder / "bikes_640x272.mp4"]
    video_list = listed(tmp_path, names)
    three = ClipSpec(mean=PLAIN.mean, std=PLAIN.std, input_size=256, test_crop="three", num_segments=2)
    for options in ({"batch_size": 8}, {"batch_size": 3, "dtype": "bfloat16"}, {"spec": three}, {"training": True}):
        assert_close(
            batches(video_list, "cuda", **options), batches(video_list, "cpu", **{**options, "dtype": "float32"})
        )


@pytest.mark.parametrize(
    ("codec", "pixel_format"), [("libx265", "yuv420p10le"), ("libsvtav1", "yuv420p"), ("libsvtav1", "yuv420p10le")]
)
def test_what_only_some_gpus_decode_gives_the_cpus_frames_everywhere(
    tmp_path: Path, codec: str, pixel_format: str
) -> None:
    """Where the table sends such a file to NVDEC, and where it does not."""
    paths = [
        write_video(tmp_path / f"{number}.mp4", codec, size=(160 + 16 * number, 208), pixel_format=pixel_format)
        for number in range(3)
    ]
    video_list = listed(tmp_path, [path.name for path in paths])
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


def test_a_damaged_file_among_several_batches_under_way_costs_no_other_clip(tmp_path: Path) -> None:
    paths = [write_video(tmp_path / f"{n}.mp4", size=(144, 176), level=6 * n) for n in range(30)]
    video_list = listed(tmp_path, [path.name for path in paths])
    index = VideoIndex.build(video_list, workers=0)
    for n in (4, 5, 17):
        write_video(paths[n], frames=2, size=(144, 176))
    with Loader(video_list, index, PLAIN, batch_size=2, training=False, device="cuda") as source:
        seen = {}
        for batch in source:
            clips = batch.frames.unflatten(0, (len(batch.ids), -1)).mean((1, 2, 3, 4))
            seen.update(zip(batch.ids.tolist(), clips.tolist(), strict=True))
    assert sorted(seen) == [n for n in range(30) if n not in (4, 5, 17)]
    assert all(abs(level - 6 * n) < 4 for n, level in seen.items())


def test_batches_are_complete_on_whatever_stream_asks_for_them(tmp_path: Path) -> None:
    """Nothing but the stream that was current waits for a batch; several crops and bfloat16 are the graph stream's last work."""
    paths = [write_video(tmp_path / f"{n}.mp4", size=(144, 176), level=10 * n) for n in range(20)]
    video_list = listed(tmp_path, [path.name for path in paths])
    index = VideoIndex.build(video_list, workers=0)
    spec = ClipSpec(mean=PLAIN.mean, std=PLAIN.std, input_size=256, test_crop="three", num_segments=4)
    side = torch.cuda.Stream()
    with (
        torch.cuda.stream(side),
        Loader(video_list, index, spec, batch_size=2, training=False, device="cuda", dtype="bfloat16") as source,
    ):
        sums = [
            (batch.ids, batch.frames.float().unflatten(0, (len(batch.ids), -1)).mean((1, 2, 3, 4))) for batch in source
        ]
    side.synchronize()
    for ids, means in sums:
        for id, mean in zip(ids.tolist(), means.tolist(), strict=True):
            assert abs(mean - 10 * id) < 4


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
