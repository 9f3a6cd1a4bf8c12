"""Files damaged in a dozen ways: each is delivered or named, nothing crashes, hangs or leaks. The long proof damages 676."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil
import pytest
import torch

from pipelines import ClipSpec, Loader, VideoIndex
from pipelines.check import check_deep
from tests.pipelines.damage import SURELY_BAD, damage
from tests.pipelines.videos import listed

SOURCES = ("k400_arm_wrestling_demo.mp4", "vp9_640x480.webm", "hmdb51_TrumanShow_wave.avi", "h265_video.mp4")


@pytest.mark.parametrize(
    "rounds",
    [pytest.param(1, marks=pytest.mark.slow), pytest.param(13, marks=[pytest.mark.prove, pytest.mark.timeout(1800)])],
)
def test_every_damaged_file_is_delivered_or_named(real_videos: Path, tmp_path: Path, rounds: int) -> None:
    others = set(psutil.Process().children())
    names = []
    bad, forbidden = {"dangling.mp4", "missing.mp4"}, set()
    for seed in range(rounds):
        folder = tmp_path / str(seed)
        folder.mkdir()
        for source in SOURCES:
            made = damage(real_videos / "codecs" / source, folder, seed)
            names += [f"{seed}/{name}" for name in made.values()]
            bad |= {f"{seed}/{made[kind]}" for kind in SURELY_BAD}
            forbidden |= {f"{seed}/{made['forbidden']}"}
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    shutil.copy(real_videos / "codecs" / SOURCES[0], tmp_path / "good.mp4")
    names += ["dangling.mp4", "missing.mp4", "good.mp4"]
    video_list = listed(tmp_path, names)
    index = VideoIndex.build(video_list)
    spec = ClipSpec(num_segments=4, input_size=32, short_side=36)
    with Loader(video_list, index, spec, batch_size=8, training=False, num_workers=2) as loader:
        delivered = []
        for batch in loader:
            assert torch.isfinite(batch.frames).all()
            delivered += batch.ids.tolist()
        failed = {failure.id: failure for failure in loader.failures}
    assert sorted([*delivered, *failed]) == list(range(len(names)))
    assert len(names) - 1 in delivered
    assert all(failure.reason and str(tmp_path) not in failure.reason for failure in failed.values())
    if os.geteuid() != 0:  # root may read everything
        bad |= forbidden
    assert bad <= {failure.name for failure in failed.values()}
    open_files = len(os.listdir("/proc/self/fd"))  # what the libraries open once is open now
    with Loader(video_list, index, spec, batch_size=8, training=True, num_workers=2) as loader:
        assert [len(batch.ids) for batch in loader] == [8] * len(loader)
    findings = {finding.id: finding for finding in check_deep(video_list, index)}
    assert {failure.name for failure in failed.values()} <= set(findings)  # and those whose damage no clip met
    assert set(psutil.Process().children()) <= others
    assert len(os.listdir("/proc/self/fd")) <= open_files
    print(f"{len(names)} files: {len(delivered)} delivered, {len(failed)} named; the deep check finds {len(findings)}")
