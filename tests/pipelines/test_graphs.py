"""The DALI graph: the peers' pixels in one resample, DALI's own decoder equal to PyAV's, zero copy, several views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipelines import ClipPlan, ClipSpec, VideoEntry, VideoInfo, make_plan
from pipelines.crops import resized_size
from pipelines.decode import decode_frames
from pipelines.graphs import ClipGraph
from pipelines.probe import probe
from tests.pipelines.videos import rotate_header, write_frames, write_video

CPU = torch.device("cpu")
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # results stay in 0…255


def plan_all(
    paths: Sequence[Path], spec: ClipSpec, *, training: bool = False
) -> tuple[list[VideoInfo], list[ClipPlan]]:
    infos = [probe(str(path), None, None, False) for path in paths]
    plans = [
        make_plan(VideoEntry(path, id, path.name), info, spec, training=training, seed=0, epoch=0, id=id)
        for id, (path, info) in enumerate(zip(paths, infos, strict=True))
    ]
    return infos, plans


def graph(spec: ClipSpec, source: str, plans: list[ClipPlan], **options: Any) -> ClipGraph:
    return ClipGraph(
        spec,
        source,
        **{
            "num_crops": len(plans[0].boxes),
            "batch_size": len(plans),
            "num_frames": plans[0].indices.size,
            "device": CPU,
            "dtype": torch.float32,
            **options,
        },
    )


def decoded(paths: Sequence[Path], plans: list[ClipPlan]) -> list[Any]:
    return [decode_frames(path, plan.indices.reshape(-1)) for path, plan in zip(paths, plans, strict=True)]


def three_step_chain(frames: np.ndarray, plan: ClipPlan, spec: ClipSpec) -> torch.Tensor:
    """What MMAction2 does: short side to 256 (rounded to bytes), crop, resize to the input size, mirror."""
    height, width = resized_size(*frames.shape[1:3], spec.short_side)
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    x = F.interpolate(x, (height, width), mode="bilinear", align_corners=False).round()
    y0, x0, h, w = (plan.boxes[0] * np.array([height, width, height, width])).tolist()
    sy, sx = frames.shape[1:3]
    top, left, h, w = round(y0 / sy), round(x0 / sx), round(h / sy), round(w / sx)
    x = x[..., top : top + h, left : left + w]
    x = F.interpolate(x, (spec.input_size, spec.input_size), mode="bilinear", align_corners=False).round()
    return x.flip(-1) if plan.flips[0] else x


@pytest.mark.parametrize("training", [False, True])
def test_one_resample_agrees_with_the_peers_chain_on_natural_video(real_videos: Path, training: bool) -> None:
    names = ["k400_SOX5yA1l24A.mp4", "k400_R6llTwEh07w.mp4", "ucf101_v_ApplyEyeMakeup_g01_c01.avi", "rot_90.mov"]
    paths = [real_videos / "codecs" / name for name in names]
    spec = ClipSpec(**PLAIN)  # type: ignore[arg-type]
    infos, plans = plan_all(paths, spec, training=training)
    arrays = decoded(paths, plans)
    frames = graph(spec, "decoded", plans)(plans, infos, arrays).view(len(paths), 8, 3, 224, 224)
    for ours, array, plan, name in zip(frames, arrays, plans, names, strict=True):
        difference = (ours - three_step_chain(array, plan, spec)).abs().mean().item()
        assert difference <= 2, (name, difference)


@pytest.mark.parametrize(
    "settings",
    [{}, {"test_crop": "three", "num_segments": 3, "input_size": 64, "short_side": 80}],
    ids=["one", "three"],
)
def test_dalis_own_decoder_gives_the_same_frames_with_the_same_plan(
    real_videos: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """The graph that runs on NVDEC, here on the CPU, which decodes VP8, VP9 and MJPEG; rotation is the graph's there."""
    folder = real_videos / "codecs"
    paths = [
        folder / name
        for name in ("vp9_640x480.webm", "odd321x241_vp9.mp4", "vp8.webm", "ssv2_id166766_webm_named_mp4.mp4")
    ]
    for degrees in (90, 180, 270):
        paths.append(rotate_header(write_video(tmp_path / f"{degrees}.mp4", "libvpx-vp9"), degrees))
    paths.append(write_video(tmp_path / "a.avi", "mjpeg"))
    spec = ClipSpec(**PLAIN, **settings)
    for training in (False, True):
        infos, plans = plan_all(paths, spec, training=training)
        theirs = graph(spec, "video", plans, rotated=True)(plans, infos, paths)
        ours = graph(spec, "decoded", plans)(plans, infos, decoded(paths, plans))
        assert theirs.shape == ours.shape
        differences = (theirs - ours).abs().reshape(len(paths), -1).mean(1)
        assert differences.max() <= 2, dict(zip((p.name for p in paths), differences.tolist(), strict=True))


def test_mirroring_normalising_and_types(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    spec = ClipSpec(flip=0, input_size=96, short_side=96, train_crop="center", train_sampling="test")
    flipped = ClipSpec(flip=1, input_size=96, short_side=96, train_crop="center", train_sampling="test")
    infos, plans = plan_all([path], spec, training=True)
    array = decoded([path], plans)
    x = graph(spec, "decoded", plans)(plans, infos, array)
    expected = torch.from_numpy(array[0][:, :, 32:128].copy()).permute(0, 3, 1, 2)  # 96×160, no resize: a plain crop
    mean, std = torch.tensor(spec.mean).view(3, 1, 1), torch.tensor(spec.std).view(3, 1, 1)
    torch.testing.assert_close(x, (expected - mean) / std, atol=1e-5, rtol=1e-5)
    _, mirrored = plan_all([path], flipped, training=True)
    torch.testing.assert_close(graph(flipped, "decoded", plans)(mirrored, infos, array), x.flip(-1))
    for dtype in (torch.float16, torch.bfloat16):
        y = graph(spec, "decoded", plans, dtype=dtype)(plans, infos, array)
        assert y.dtype == dtype
        assert y.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(y, x.to(dtype), atol=1e-3, rtol=1e-2)


def bilinear(frame: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """`box` (y, x, height, width) of one frame, sampled at the centres of size × size equal cells; edges are repeated."""
    y, x, h, w = box
    out = frame.astype(np.float64)
    for axis, (start, length) in enumerate(((y, h), (x, w))):
        last = frame.shape[axis] - 1
        at = np.clip(start + (np.arange(size) + 0.5) * length / size - 0.5, 0, last)
        low = np.floor(at).astype(int)
        part = (at - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        out = out.take(low, axis) * (1 - part) + out.take(np.minimum(low + 1, last), axis) * part
    return out


def test_every_pixel_is_the_bilinear_sample_of_its_box(real_videos: Path) -> None:
    """Boxes with fractions, larger and smaller than the result, at the edges, mirrored; of frames of several sizes."""
    names = ["k400_R6llTwEh07w.mp4", "ucf101_v_ApplyEyeMakeup_g01_c01.avi", "odd321x241_vp9.mp4"]
    paths = [real_videos / "codecs" / name for name in names]
    spec = ClipSpec(**PLAIN, num_segments=2, input_size=160, short_side=160)  # type: ignore[arg-type]
    infos, plans = plan_all(paths, spec)
    arrays = decoded(paths, plans)
    for flip in (False, True):
        for part in ((0.0, 0.0, 1.0, 1.0), (0.31, 0.27, 0.5, 0.43), (0.0, 0.6, 0.21, 0.4)):
            cut = [
                ClipPlan(
                    plan.indices, np.array([part]) * [i.height, i.width, i.height, i.width], np.array([flip]), 0, 0
                )
                for plan, i in zip(plans, infos, strict=True)
            ]
            frames = graph(spec, "decoded", cut)(cut, infos, arrays).view(len(paths), 2, 3, 160, 160)
            for ours, array, plan in zip(frames, arrays, cut, strict=True):
                expected = bilinear(array[1], plan.boxes[0], 160)
                expected = expected[:, ::-1] if flip else expected
                assert np.abs(ours[1].permute(1, 2, 0).numpy() - expected).max() <= 0.51  # rounded to bytes


def test_views_come_crop_by_crop_and_clip_by_clip(tmp_path: Path) -> None:
    """Each view of a batch equals the same crop of the same frames alone."""
    paths = [write_video(tmp_path / "a.mp4"), write_video(tmp_path / "b.mp4", size=(160, 96))]
    spec = ClipSpec(num_segments=4, input_size=64, short_side=80, test_crop="three", test_sampling="twice")
    infos, plans = plan_all(paths, spec)
    x = graph(spec, "decoded", plans)(plans, infos, decoded(paths, plans)).view(2, 6, 4, 3, 64, 64)
    for n, (path, info, plan) in enumerate(zip(paths, infos, plans, strict=True)):
        for view in range(6):
            crop, clip = divmod(view, 2)
            alone = ClipPlan(
                plan.indices[clip : clip + 1], plan.boxes[crop : crop + 1], plan.flips[crop : crop + 1], 0, 0
            )
            single = graph(spec, "decoded", [alone])([alone], [info], decoded([path], [alone]))
            torch.testing.assert_close(x[n, view], single, atol=1e-5, rtol=0)


def test_the_batch_is_dalis_memory_and_nothing_overwrites_it(tmp_path: Path) -> None:
    paths = [write_video(tmp_path / f"{level}.mp4", level=level) for level in (50, 200)]
    spec = ClipSpec(num_segments=2, input_size=32, short_side=32, **PLAIN)  # type: ignore[arg-type]
    infos, plans = plan_all(paths, spec)
    run = graph(spec, "decoded", plans[:1])
    kept = [run([plans[n % 2]], [infos[n % 2]], decoded([paths[n % 2]], [plans[n % 2]])) for n in range(8)]
    levels = [[50, 200][n % 2] for n in range(8)]
    assert len({x.data_ptr() for x in kept}) == 8
    del run
    for x, level in zip(kept, levels, strict=True):
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert not x.is_contiguous()
        assert (x - level).abs().max() <= 3


def test_frame_folders(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip", 12)
    spec = ClipSpec(num_segments=4, input_size=32, short_side=32, test_crop="three", **PLAIN)  # type: ignore[arg-type]
    infos, plans = plan_all([folder], spec)
    paths = [[folder / f"{index + 1:05}.jpg" for index in plans[0].indices.reshape(-1).tolist()]]
    x = graph(spec, "images", plans)(plans, infos, paths).view(3, 4, 3, 32, 32)
    levels = torch.from_numpy(8 * plans[0].indices[0]).view(1, 4, 1, 1, 1)
    assert (x - levels).abs().mean((2, 3, 4)).max() <= 3  # neighbours differ by 8


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_of_a_frame_folder_the_part_that_the_crop_shows_gives_the_pixels_of_whole_images(
    real_videos: Path, tmp_path: Path, ending: str
) -> None:
    (tmp_path / "clip").mkdir()
    frames = decode_frames(real_videos / "codecs" / "k400_R6llTwEh07w.mp4", [0, 40, 80, 120])
    for number, frame in enumerate(frames, 1):
        av.VideoFrame.from_ndarray(frame, format="rgb24").save(tmp_path / "clip" / f"{number:05}.{ending}")
    spec = ClipSpec(num_segments=4, input_size=96, short_side=112, **PLAIN)  # type: ignore[arg-type]
    infos, plans = plan_all([tmp_path / "clip"], spec)
    paths = [[tmp_path / "clip" / f"{index + 1:05}.{ending}" for index in plans[0].indices.reshape(-1).tolist()]]
    for flip in (False, True):
        for box in ([0, 0, 256, 340], [33.3, 51.7, 120.2, 99.5], [0, 200.5, 60.25, 139.5], [255, 339, 1, 1]):
            one = ClipPlan(plans[0].indices, np.array([box], np.float64), np.array([flip]), 0, 0)
            two = ClipPlan(plans[0].indices, np.array([box, box], np.float64), np.array([flip, flip]), 0, 0)
            part = graph(spec, "images", [one])([one], infos, paths)
            whole = graph(spec, "images", [two])([two], infos, paths)[:4]  # of several crops, whole images are decoded
            assert (part - whole).abs().max() <= 1
            assert (part - whole).abs().mean() <= 0.01


def test_a_frame_past_the_end_is_an_error_and_not_a_black_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "libvpx-vp9", frames=10)
    spec = ClipSpec(num_segments=2, input_size=32, short_side=32)
    infos, plans = plan_all([path], spec)
    late = ClipPlan(np.array([[3, 10]]), plans[0].boxes, plans[0].flips, 0, 0)
    run = graph(spec, "video", plans)
    with pytest.raises(RuntimeError, match="out-of-bounds frame index 10"):
        run([late], infos, [path])
    run.rebuild()
    assert run(plans, infos, [path]).shape == (2, 3, 32, 32)
