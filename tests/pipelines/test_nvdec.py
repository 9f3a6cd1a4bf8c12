"""Which videos NVDEC is given, and each clip of a batch through its own source.

NVDEC itself is played by `Nvdecoder`, a graph that decodes files with PyAV and fails as DALI's does; all else is real.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import ClipPlan, ClipSpec, Loader, VideoIndex, VideoInfo, VideoList
from pipelines.clips import EpochClips
from pipelines.decode import decode_frames
from pipelines.errors import DataError
from pipelines.failures import Failures
from pipelines.graphs import ClipGraph, Ready
from pipelines.maker import BatchMaker, Made
from pipelines.nvdec import Nvdec, Router
from tests.pipelines.videos import listed, write_frames, write_video

CPU = torch.device("cpu")
SPEC = ClipSpec(num_segments=2, input_size=32, short_side=36)
A100, A10, L4, H200, B200 = (8, 0), (8, 6), (8, 9), (9, 0), (10, 0)


def info(codec: str, format: str = "yuv420p", size: tuple[int, int] = (256, 340), **other: Any) -> VideoInfo:
    return VideoInfo(num_frames=9, codec=codec, pixel_format=format, height=size[0], width=size[1], **other)


@pytest.mark.parametrize(
    ("capability", "taken"),
    [
        ((7, 5), {"h264", "hevc", "hevc10", "vp8", "vp9", "vp910"}),
        (A100, {"h264", "hevc", "hevc10", "vp8", "vp9", "vp910"}),
        (A10, {"h264", "hevc", "hevc10", "vp8", "vp9", "vp910", "av1", "av110"}),
        (L4, {"h264", "hevc", "hevc10", "vp8", "vp9", "vp910", "av1", "av110"}),
        (H200, {"h264", "hevc", "hevc10", "vp8", "vp9", "vp910"}),
        (B200, {"h264", "h26410", "h264large", "hevc", "hevc10", "vp8", "vp9", "vp910", "av1", "av110"}),
        ((12, 0), {"h264", "h26410", "h264large", "hevc", "hevc10", "vp8", "vp9", "vp910", "av1", "av110"}),
    ],
)
def test_the_table_of_nvidia(capability: tuple[int, int], taken: set[str]) -> None:
    ten = "yuv420p10le"
    videos = {
        "h264": info("h264", "yuvj420p"), "h26410": info("h264", ten), "h264large": info("h264", size=(4320, 7680)),
        "h264422": info("h264", "yuv422p"), "h264small": info("h264", size=(46, 64)), "hevc": info("hevc"),
        "hevc10": info("hevc", ten), "hevc444": info("hevc", "yuv444p"), "hevcsmall": info("hevc", size=(128, 176)),
        "hevclarge": info("hevc", size=(4320, 8208)), "vp8": info("vp8"), "vp8large": info("vp8", size=(2160, 4112)),
        "vp9": info("vp9"), "vp910": info("vp9", ten), "vp9small": info("vp9", size=(120, 160)), "av1": info("av1"),
        "av110": info("av1", ten), "mpeg4": info("mpeg4"), "mjpeg": info("mjpeg", "yuvj420p"),
        "edited": info("h264", exact=False),
    }  # fmt: skip
    nvdec = Nvdec(capability)
    assert {name for name, video in videos.items() if nvdec.objection(0, video) is None} == taken
    router = Router(nvdec)
    assert {name for name, video in videos.items() if router.source(0, video) == "video"} == taken
    assert {Router(None).source(0, video) for video in videos.values()} == {"decoded"}
    assert router.source(0, info("images", template="{:05}.jpg")) == "images"


def test_one_refused_file_goes_alone_and_two_of_a_kind_never_taken_take_the_kind_along(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nvdec = Nvdec(H200)
    nvdec.took(info("h264"))
    for id in range(5):
        nvdec.refused(id, f"{id}.mp4", info("h264"), "a reason")
        nvdec.refused(id, f"{id}.mp4", info("h264"), "a reason")
    assert [nvdec.objection(id, info("h264")) is None for id in range(7)] == 5 * [False] + 2 * [True]
    nvdec.refused(10, "10.webm", info("vp9"), "a reason")
    assert nvdec.objection(11, info("vp9")) is None
    nvdec.refused(11, "11.webm", info("vp9"), "a reason")
    nvdec.refused(12, "12.webm", info("vp9"), "a reason")
    assert nvdec.objection(13, info("vp9")) is not None
    assert nvdec.objection(13, info("vp9", "yuv420p10le")) is None
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 5 + 2
    assert messages[-1] == "NVDEC refuses vp9 in yuv420p: all such videos are decoded on the CPU (a reason)"


def test_what_the_cpu_must_decode_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    names = ["a.mp4", "b.mkv", "c.mkv", "d", "e.avi", "broken.mp4"]
    infos = [
        info("h264"), info("av1"), info("av1"), info("images", template="{:05}.jpg"), info("mpeg4"), VideoInfo(error="x"),
    ]  # fmt: skip
    Nvdec(A100).tell(names, infos)
    (record,) = caplog.records
    assert "3 of 6 videos are decoded on the CPU" in record.getMessage()
    assert "(compute capability 8.0)" in record.getMessage()
    assert "av1 (2, the first b.mkv); mpeg4 (1, the first e.avi)" in record.getMessage()
    caplog.clear()
    Nvdec(A10).tell(names[:4], infos[:4])
    assert not caplog.records


class Nvdecoder:
    """Stands for the graph that reads and decodes files on NVDEC. As DALI does, it fails for a whole batch without saying of
    which file, at the batch's result, and then does nothing more until it is rebuilt."""

    def __init__(self, refuses: Callable[[Path], bool], batch_size: int) -> None:
        self._refuses, self._submitted, self._valid = refuses, deque[Any](), True
        self._graph = ClipGraph(
            SPEC, "decoded", num_crops=1, batch_size=batch_size, num_frames=2, device=CPU, dtype=torch.float32
        )
        self.rebuilt = 0
        self.decoded: list[str] = []

    def submit(self, plans: Sequence[ClipPlan], infos: Sequence[VideoInfo], inputs: Sequence[Any]) -> None:
        self._submitted.append((plans, infos, inputs))

    def result(self) -> Ready:
        plans, infos, paths = self._submitted.popleft()
        self._valid &= not any(map(self._refuses, paths))
        try:
            arrays = [decode_frames(path, plan.indices.reshape(-1)) for path, plan in zip(paths, plans, strict=True)]
        except DataError:
            self._valid = False
        if not self._valid:
            raise RuntimeError("Critical error in pipeline:\nError in MIXED operator\nencountered:\nNo such decoder")
        self.decoded += [path.name for path in paths]
        return Ready(self._graph(plans, infos, arrays))

    def rebuild(self) -> None:
        self._submitted.clear()
        self._valid = True
        self.rebuilt += 1

    def drain(self) -> None:
        self._submitted.clear()


class Machine:
    """A batch maker as on a machine with an H200, but for NVDEC."""

    def __init__(
        self, video_list: VideoList, index: VideoIndex, batch_size: int, refuses: Callable[[Path], bool]
    ) -> None:
        self.video_list, self.index = video_list, index
        self.nvdec, self.failures = Nvdec(H200), Failures(len(video_list), None)
        self.nvdecoder = Nvdecoder(refuses, batch_size)
        self.maker = BatchMaker(Router(self.nvdec), self.graph, [], num_workers=1, batch_size=batch_size, device=CPU)
        self.batch_size = batch_size

    def graph(self, source: str) -> Any:
        if source == "video":
            return self.nvdecoder
        return ClipGraph(
            SPEC, source, num_crops=1, batch_size=self.batch_size, num_frames=2, device=CPU, dtype=torch.float32
        )

    def batches(self, *, training: bool = False, epoch: int = 0, count: int | None = None) -> list[Made]:
        clips = EpochClips(self.video_list, self.index, SPEC, training, 0, epoch, self.failures)
        order = np.arange(len(self.video_list))
        steps = [
            (step, part)
            for step, part in enumerate(np.split(order, range(self.batch_size, len(order), self.batch_size)))
        ]
        making = self.maker.make(clips, steps, threading.Event())
        made = [made for made, _ in zip(making, range(count or len(steps)))]  # noqa: B905
        making.close()
        return made


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Makes machines for a list of names: NVDEC takes .mp4 and .webm here; .avi is for the CPU; a bare name is a folder."""
    machines = []

    def make(names: list[str], batch_size: int = 4, refuses: Callable[[Path], bool] = lambda path: False) -> Machine:
        codecs = {".mp4": "libx264", ".webm": "libvpx-vp9", ".avi": "mjpeg"}
        for number, name in enumerate(names):
            if not (tmp_path / name).exists():
                if "." in name:
                    size = (130 + 2 * number, 160)
                    write_video(tmp_path / name, codecs[Path(name).suffix], frames=8 + number, size=size)
                else:
                    write_frames(tmp_path / name, 5 + number)
        video_list = listed(tmp_path, names)
        machines.append(Machine(video_list, VideoIndex.build(video_list, workers=0), batch_size, refuses))
        return machines[-1]

    yield make
    for each in machines:
        each.maker.close()


def assert_as_on_a_cpu(machine: Machine, made: list[Made]) -> None:
    options: dict[str, Any] = {"batch_size": machine.batch_size, "training": False, "num_workers": 0}
    with Loader(machine.video_list, machine.index, SPEC, **options) as loader:
        expected = list(loader)
    assert [[plan.id for plan in ours.plans] for ours in made] == [theirs.ids.tolist() for theirs in expected]
    for ours, theirs in zip(made, expected, strict=True):
        assert ours.ready.frames.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(ours.ready.frames, theirs.frames, atol=1e-6, rtol=0)


MIXED = ["0.mp4", "1.avi", "2", "3.webm", "4.mp4", "5", "6.avi", "7.mp4", "8.webm", "9.mp4"]


def test_each_clip_of_a_batch_takes_its_own_way(machine: Callable[..., Machine]) -> None:
    box = machine(MIXED)
    assert_as_on_a_cpu(box, box.batches())
    assert box.nvdecoder.decoded == ["0.mp4", "3.webm", "4.mp4", "7.mp4", "8.webm", "9.mp4"]
    assert box.nvdecoder.rebuilt == 0


def test_a_file_that_nvdec_refuses_and_pyav_decodes_is_the_cpus_from_then_on(
    machine: Callable[..., Machine], caplog: pytest.LogCaptureFixture
) -> None:
    box = machine(MIXED, refuses=lambda path: path.name == "7.mp4")
    assert_as_on_a_cpu(box, box.batches())
    assert "NVDEC refuses 7.mp4, which the CPU decodes from now on (No such decoder)" in caplog.text
    assert box.failures.all() == []
    assert box.nvdecoder.rebuilt
    rebuilt, lines = box.nvdecoder.rebuilt, len(caplog.records)
    box.nvdecoder.decoded.clear()
    assert_as_on_a_cpu(box, box.batches())
    assert (box.nvdecoder.rebuilt, len(caplog.records)) == (rebuilt, lines)
    assert set(box.nvdecoder.decoded) == {"0.mp4", "3.webm", "4.mp4", "8.webm", "9.mp4"}


def test_a_kind_that_nvdec_refuses_is_the_cpus_from_then_on(
    machine: Callable[..., Machine], caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{number}.{'mp4' if number % 4 else 'webm'}" for number in range(16)]
    box = machine(names, batch_size=6, refuses=lambda path: path.suffix == ".webm")
    assert_as_on_a_cpu(box, box.batches())
    assert caplog.text.count("all such videos are decoded on the CPU") == 1
    assert box.nvdec.objection(99, info("vp9")) is not None
    assert box.nvdec.objection(99, info("h264")) is None
    assert {name for name in box.nvdecoder.decoded if name.endswith("webm")} == set()
    # The batch with the first two, and at most one that was under way with it, met them; nobody after.
    assert box.nvdecoder.rebuilt <= 2 * (1 + 2)


def test_a_file_that_nobody_decodes_is_a_failure_and_not_nvdecs(
    machine: Callable[..., Machine], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = machine(MIXED)
    write_video(tmp_path / "4.mp4", frames=1, size=(138, 160))  # fewer frames than the index knows
    made = box.batches()
    assert [id for batch in made for id in [plan.id for plan in batch.plans]] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert [(failure.id, failure.name) for failure in box.failures.all()] == [(4, "4.mp4")]
    assert "only 1 frames decode" in box.failures.all()[0].reason
    assert "NVDEC refuses" not in caplog.text
    training = box.batches(training=True)
    assert [len(batch.plans) for batch in training] == [4, 4, 2]
    assert sum(batch.substitutes for batch in training) == 1
    assert not any(plan.id == 4 for batch in training for plan in batch.plans)


def test_a_batch_that_fails_though_each_clip_works_is_an_error_and_no_endless_loop(
    machine: Callable[..., Machine],
) -> None:
    box = machine(MIXED)
    whole = box.nvdecoder.result

    def fails_for_two() -> Ready:
        if len(box.nvdecoder._submitted[0][0]) > 1:
            box.nvdecoder._submitted.popleft()
            raise RuntimeError("CUDA out of memory")
        return whole()

    box.nvdecoder.result = fails_for_two  # type: ignore[method-assign]
    with pytest.raises(DataError, match=r"one by one \(0\.mp4, 3\.webm\): CUDA out of memory.*smaller batch"):
        box.batches()


def test_an_abandoned_epoch_leaves_nothing_to_the_next(machine: Callable[..., Machine]) -> None:
    box = machine(MIXED, batch_size=2)
    for _ in range(3):
        assert len(box.batches(count=1)) == 1
    assert_as_on_a_cpu(box, box.batches())
