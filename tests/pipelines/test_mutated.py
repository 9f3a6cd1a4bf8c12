"""Files damaged in a dozen ways: each is delivered or named, and nothing crashes or hangs. The long proof damages 520."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines import ClipSpec, Loader, VideoIndex
from tests.pipelines.videos import listed

SOURCES = ("k400_arm_wrestling_demo.mp4", "vp9_640x480.webm", "hmdb51_TrumanShow_wave.avi", "h265_video.mp4")


def mutations(path: Path, folder: Path, rng: np.random.Generator) -> list[str]:
    """Damaged copies of one video."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    made = []

    def write(kind: str, content: np.ndarray, suffix: str = path.suffix) -> None:
        name = f"{path.stem}-{kind}{suffix}"
        (folder / name).write_bytes(content.tobytes())
        made.append(name)

    for part in (0.05, 0.5, 0.95):
        write(f"cut{part}", data[: int(len(data) * part)])
    zeroed = data.copy()
    zeroed[len(data) // 3 : len(data) // 2] = 0
    write("zeroed", zeroed)
    head = data.copy()
    head[:64] = 0
    write("headless", head)
    for flips in (20, 2000):
        flipped = data.copy()
        flipped[rng.integers(0, len(data), flips)] ^= rng.integers(1, 256, flips).astype(np.uint8)
        write(f"flipped{flips}", flipped)
    write("doubled", np.concatenate([data, data]))
    write("renamed", data, ".mpg")
    write("noise", rng.integers(0, 256, 5000).astype(np.uint8))
    return made


@pytest.mark.parametrize(
    "rounds",
    [pytest.param(1, marks=pytest.mark.slow), pytest.param(13, marks=[pytest.mark.prove, pytest.mark.timeout(1800)])],
)
def test_every_damaged_file_is_delivered_or_named(real_videos: Path, tmp_path: Path, rounds: int) -> None:
    names = []
    for seed in range(rounds):
        rng = np.random.default_rng(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        for source in SOURCES:
            names += [f"{seed}/{name}" for name in mutations(real_videos / "codecs" / source, folder, rng)]
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    shutil.copy(real_videos / "codecs" / SOURCES[0], tmp_path / "good.mp4")
    names += ["empty.mp4", "folder.mp4", "dangling.mp4", "missing.mp4", "good.mp4"]
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
    surely_bad = {name for name in names if "noise" in name} | {
        "empty.mp4",
        "folder.mp4",
        "dangling.mp4",
        "missing.mp4",
    }
    assert surely_bad <= {failure.name for failure in failed.values()}
    with Loader(video_list, index, spec, batch_size=8, training=True, num_workers=2) as loader:
        assert [len(batch.ids) for batch in loader] == [8] * len(loader)
    print(f"{len(names)} files: {len(delivered)} delivered, {len(failed)} named")
