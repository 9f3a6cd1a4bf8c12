"""On a GPU, watching a run makes the host wait nowhere but at a report, and a profile shows kernels."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

import tin
from tests.tin.test_log import lines, picture, read, report
from tests.tin.test_train import recipe
from tin.distributed import World
from tin.models.inspect import OffsetProbe
from tin.monitoring.profiler import Profiler
from tin.train.log import RunLog
from tin.train.meter import StepMeter, gpu_utilisation, memory_mb
from tin.train.step import Outcome

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda:0")


def test_nothing_waits_for_the_device_before_a_report(tmp_path: Path) -> None:
    model = tin.build_model("tin_resnet18", 3, 4).to(GPU).eval()
    frames, labels = torch.randn(8, 3, 64, 64, device=GPU), torch.tensor([0, 2], device=GPU)
    log, meter = RunLog(tmp_path, 0, recipe()), StepMeter(GPU)
    scalars = [torch.tensor(value, device=GPU) for value in (1.5, 1, 2, 3.0, 0.0)]
    loss, hits1, hits5, norm, skipped = scalars
    with torch.inference_mode():
        model(frames)  # the first call allocates
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        meter.add(Outcome(loss, hits1, hits5, 2, norm, norm[None], skipped, None))
        log.clips(1, frames, labels)
        with OffsetProbe(model, clips=2) as probe, torch.inference_mode():
            model(frames)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    averages, _ = meter.read(World())
    assert (averages.loss, averages.top1, averages.top5, averages.grad_norm) == (1.5, 0.5, 1.0, 3.0)
    assert len(probe.shifts()) == 8
    log.step(1, report(memory_mb=memory_mb(GPU), gpu_utilisation=gpu_utilisation(GPU)))
    log.close()
    assert lines(tmp_path)[0]["memory_mb"] > 40
    assert picture(read(tmp_path), "clips").any()


def test_utilisation_is_a_part_of_the_time() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    utilisation = gpu_utilisation(GPU)
    assert utilisation is None or 0.0 <= utilisation <= 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_watched_validation_keeps_its_bits(dtype: torch.dtype) -> None:
    model = tin.build_model("tin_resnet50", 5, 8).to(GPU, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    frames = torch.randn(16, 3, 224, 224, device=GPU).contiguous(memory_format=torch.channels_last)

    def logits() -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            result: torch.Tensor = model(frames)
        return result

    expected = logits()
    with OffsetProbe(model):
        assert torch.equal(logits(), expected)


def test_a_profile_shows_kernels_on_the_gpu(tmp_path: Path) -> None:
    layer, batch = torch.nn.Linear(256, 256, device=GPU), torch.randn(64, 256, device=GPU)
    with Profiler(2, tmp_path, say=lambda text: None) as profiler:
        for _ in range(8):
            layer(batch).sum().backward()
            profiler.step()
    (path,) = (tmp_path / "profile").iterdir()
    with gzip.open(path, "rt") as file:
        assert any(event.get("cat") == "kernel" for event in json.load(file)["traceEvents"])
