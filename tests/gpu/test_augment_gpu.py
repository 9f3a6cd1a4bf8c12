"""On a GPU, colour jitter and mixing give the CPU's pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines import ClipSpec, VideoEntry, make_plan
from pipelines.decode import decode_frames
from pipelines.graphs import ClipGraph
from pipelines.probe import probe
from tin.train.mix import mix_clips

pytestmark = pytest.mark.gpu
GPU = "cuda:0"


def test_colour_jitter_agrees_with_the_cpu_within_two_levels(real_videos: Path) -> None:
    path = real_videos / "codecs" / "k400_SOX5yA1l24A.mp4"
    spec = ClipSpec(
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        color_jitter={"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2},  # type: ignore[arg-type]
    )
    info = probe(str(path), None, None, False)
    plans = [
        make_plan(VideoEntry(path, 0, path.name), info, spec, training=True, seed=0, epoch=0, id=id) for id in range(4)
    ]
    frames = [decode_frames(path, plan.indices.reshape(-1)) for plan in plans]
    here, there = (
        ClipGraph(
            spec, "decoded", num_crops=1, batch_size=4, num_frames=8, device=torch.device(device), dtype=torch.float32, color=True
        )(plans, [info] * 4, frames).cpu()
        for device in ("cpu", GPU)
    )  # fmt: skip
    assert (here - there).abs().reshape(4, -1).mean(1).max() <= 2


@pytest.mark.parametrize("alphas", [{"mixup": 0.8, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_mixing_agrees_with_the_cpu(alphas: dict[str, float], dtype: torch.dtype) -> None:
    frames = torch.randn(6 * 8, 3, 56, 56, generator=torch.Generator().manual_seed(0)).to(dtype)
    frames, labels = frames.contiguous(memory_format=torch.channels_last), torch.arange(6)
    for step in range(3):
        here = mix_clips(frames, labels, 10, seed=0, step=step, **alphas)
        sent = frames.to(GPU), labels.to(GPU)
        torch.cuda.set_sync_debug_mode("error")  # the host must not wait for the device in a step
        try:
            there = mix_clips(*sent, 10, seed=0, step=step, **alphas)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert there.frames.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(there.frames.cpu(), here.frames)
        torch.testing.assert_close(there.targets.cpu(), here.targets)
        assert torch.equal(there.labels.cpu(), here.labels)
