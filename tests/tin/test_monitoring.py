"""Watching a run changes nothing about it, and what is watched is true."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix
from torch import nn

import tin
from tests.tin.clips import NUM_CLASSES, NUM_SEGMENTS, MemoryLoader
from tests.tin.test_train import recipe
from tin import evaluation
from tin.models.inspect import BlockShift, OffsetProbe, learned_shifts
from tin.monitoring.clips import MAX_CLIPS, MAX_SIDE, clip_grid, clip_tiles
from tin.monitoring.confusion import confusion_counts, draw_confusion, most_confused
from tin.monitoring.offsets import OffsetHistory
from tin.monitoring.profiler import WAIT, WARM_UP, Profiler
from tin.train.log import RunLog


def network(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    model = tin.build_model("tin_resnet18", NUM_CLASSES, NUM_SEGMENTS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".tin." in name:  # away from the initialisation, so that offsets differ from clip to clip
                parameter += torch.randn_like(parameter)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class TestOffsetProbe:
    def test_it_sees_what_the_blocks_decide_in_a_validation(self) -> None:
        model, loader = network(), MemoryLoader(10, training=False, num_views=2)
        with OffsetProbe(model) as probe:
            evaluation.evaluate(model, loader, 10)
        seen = probe.shifts()
        expected = learned_shifts(model, torch.cat([batch.frames for batch in loader]))  # type: ignore[arg-type]
        assert [shift.name for shift in seen] == [shift.name for shift in expected]
        assert len(seen) == 8
        for one, other in zip(seen, expected, strict=True):
            assert one.offsets.shape == (20, 2)
            torch.testing.assert_close(one.offsets, other.offsets, rtol=0, atol=1e-5)
            torch.testing.assert_close(one.gains, other.gains, rtol=0, atol=1e-5)
        assert max(float(shift.offsets.std(0).max()) for shift in seen) > 0.01

    def test_it_lets_go_when_it_has_seen_enough(self) -> None:
        model, loader = network(), MemoryLoader(12, training=False)
        with OffsetProbe(model, clips=6) as probe:
            evaluation.evaluate(model, loader, 12)
        assert {len(shift.offsets) for shift in probe.shifts()} == {8}  # two batches of four
        assert not any(module._forward_pre_hooks for module in model.modules())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_the_scores_keep_their_bits(self, dtype: torch.dtype) -> None:
        loader = MemoryLoader(8, training=False)

        def scores(watched: bool) -> np.ndarray:
            model = network()

            def run() -> np.ndarray:
                return evaluation.evaluate(
                    model, loader, 8, autocast=lambda: torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
                ).scores

            if not watched:
                return run()
            with OffsetProbe(model):
                return run()

        assert np.array_equal(scores(watched=False), scores(watched=True))


def trained(log: RunLog | None) -> dict[str, torch.Tensor]:
    """Weights after two epochs, each with a validation."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    train, val = MemoryLoader(8), MemoryLoader(6, training=False)
    step = 0
    for epoch in range(2):
        train.set_epoch(epoch)
        for batch in train:
            loss = nn.functional.cross_entropy(model.train()(batch.frames), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if log:
                log.clips(step, batch.frames, batch.labels)
        if not log:
            evaluation.evaluate(model, val, 6)
        else:
            with OffsetProbe(model, clips=4) as probe:
                scores = evaluation.evaluate(model, val, 6)
            log.validation(step, epoch, {"top1_acc": 0.5}, scores)
            log.offsets(step, epoch, probe.shifts())
    return model.state_dict()


def test_a_watched_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, recipe())
    watched = trained(log)
    log.close()
    for name, value in trained(None).items():
        assert torch.equal(value, watched[name]), name


class TestProfiler:
    def run(self, profiler: Profiler, steps: int) -> None:
        model, batch = nn.Linear(8, 8), torch.randn(4, 8)
        with profiler:
            for _ in range(steps):
                model(batch).sum().backward()
                profiler.step()

    def test_the_trace_holds_the_steps_asked_for_and_their_operators(self, tmp_path: Path) -> None:
        said: list[str] = []
        self.run(Profiler(3, tmp_path, say=said.append), steps=12)
        (path,) = (tmp_path / "profile").iterdir()
        assert path.name.endswith(".pt.trace.json.gz")
        assert str(path) in said[0]
        assert len(said) == 1
        with gzip.open(path, "rt") as file:
            events = json.load(file)["traceEvents"]
        steps = {event["name"] for event in events if str(event.get("name")).startswith("ProfilerStep")}
        assert steps == {f"ProfilerStep#{WAIT + WARM_UP + i}" for i in range(3)}
        assert sum(event.get("name") == "aten::linear" for event in events) == 3

    def test_it_is_silent_but_for_what_it_says(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.run(Profiler(1, tmp_path), steps=8)
        written = capfd.readouterr()
        assert written.err == ""
        assert written.out.startswith("profile written to")
        assert written.out.count("\n") == 1

    def test_a_run_that_ends_early_keeps_what_there_is(self, tmp_path: Path) -> None:
        said: list[str] = []
        self.run(Profiler(5, tmp_path, say=said.append), steps=WAIT + WARM_UP + 2)
        (path,) = (tmp_path / "profile").iterdir()
        assert str(path) in said[0]
        with gzip.open(path, "rt") as file:
            assert sum(event.get("name") == "aten::linear" for event in json.load(file)["traceEvents"]) == 2

    def test_a_run_that_ends_before_it_says_so(self, tmp_path: Path) -> None:
        said: list[str] = []
        self.run(Profiler(5, tmp_path, say=said.append), steps=3)
        assert said == ["nothing was profiled: the run ended after 3 steps, recording begins after 4"]
        assert list((tmp_path / "profile").iterdir()) == []

    def test_an_error_in_the_loop_comes_through(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), Profiler(2, tmp_path, say=lambda text: None):
            _ = 1 / 0

    def test_without_steps_it_does_nothing(self, tmp_path: Path) -> None:
        self.run(Profiler(0, tmp_path, say=pytest.fail), steps=2)
        assert list(tmp_path.iterdir()) == []


class TestConfusions:
    def test_counts_are_scikit_learns(self) -> None:
        random = np.random.default_rng(3)
        labels, scores = random.integers(0, 7, 200), random.random((200, 9)).astype(np.float32)
        counts = confusion_counts(scores, labels)
        assert np.array_equal(counts, confusion_matrix(labels, scores.argmax(1), labels=range(9)))
        worst = most_confused(counts, [str(i) for i in range(9)], most=3)
        assert [videos for *_, videos in worst] == sorted((counts - np.diag(np.diag(counts))).ravel(), reverse=True)[:3]
        assert all(counts[int(true), int(taken)] == videos for true, taken, videos in worst)

    @pytest.mark.filterwarnings("error")
    def test_any_class_name_can_be_drawn(self) -> None:
        names = ["costs $5 or $x_{$", "做俯卧撑", "\\frac%_^&#", ""]
        assert draw_confusion(np.eye(4, dtype=np.int64), names, "epoch 1").any()

    @pytest.mark.parametrize("classes", [1, 2, 20, 174, 400])
    def test_pictures_stay_readable_at_any_number_of_classes(self, classes: int, tmp_path: Path) -> None:
        counts = np.eye(classes, dtype=np.int64) * 5
        names = [f"a rather long name of something, class {i}" for i in range(classes)]
        image = draw_confusion(counts, names, "epoch 1")
        assert image.dtype == np.uint8
        assert max(image.shape) < 2000
        # The diagonal is there, in cells of some pixels, whatever the margins: the colour of 100 % covers that many.
        bright = (image.reshape(-1, 3) == (251, 252, 191)).all(1).sum()
        assert bright >= classes * 4
        Image.fromarray(image).save(tmp_path / "picture.png")


def test_a_caption_that_is_too_long_shows_its_end() -> None:
    tiles = np.zeros((1, 2, 3, MAX_SIDE, MAX_SIDE), dtype=np.uint8)
    narrow = clip_grid(tiles, ["/a/very/long/path/" * 9 + "clip_0001.mp4  ·  class"])
    other = clip_grid(tiles, ["/a/very/long/path/" * 8 + "clip_0001.mp4  ·  class"])
    different = clip_grid(tiles, ["/a/very/long/path/" * 9 + "clip_0002.mp4  ·  class"])
    assert np.array_equal(narrow, other)
    assert not np.array_equal(narrow, different)


class TestClipTiles:
    def test_large_frames_are_averaged_down_and_few_are_kept(self) -> None:
        frames = torch.zeros((MAX_CLIPS + 3) * 2, 3, 2 * MAX_SIDE, 3 * MAX_SIDE)
        frames[..., ::2, :] = 1.0
        tiles = clip_tiles(frames, 2, (100.0, 100.0, 100.0), (50.0, 60.0, 70.0))
        assert tiles.shape == (MAX_CLIPS, 2, 3, round(2 * MAX_SIDE / 3), MAX_SIDE)
        assert tiles.dtype == torch.uint8
        assert tiles[0, 0, :, 10, 10].tolist() == pytest.approx([125, 130, 135], abs=10)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_what_is_not_finite_is_black(self, value: float, dtype: torch.dtype) -> None:
        frames: Any = torch.full((4, 3, 8, 8), value, dtype=dtype)
        assert not clip_tiles(frames, 4, (100.0, 100.0, 100.0), (50.0, 50.0, 50.0)).any()


def shifts(seed: int) -> list[BlockShift]:
    random = torch.Generator().manual_seed(seed)
    return [
        BlockShift(name, torch.rand(6, 2, generator=random) * 4 - 2, torch.ones(6, 4, 2))
        for name in ("layer1.0", "layer1.1")
    ]


def test_the_picture_of_offsets_forgets_what_is_done_again(tmp_path: Path) -> None:
    killed = OffsetHistory(tmp_path / "killed.jsonl", 0, pytest.fail)
    for step, seed in ((6, 1), (12, 2), (18, 3)):
        killed.add(step, step // 6, shifts(seed))
    killed.close()
    with (tmp_path / "killed.jsonl").open("a") as file:
        file.write('{"epoch": 4, "glo')
    resumed = OffsetHistory(
        tmp_path / "killed.jsonl", 12, pytest.fail
    )  # its checkpoint was written before the validation
    whole = OffsetHistory(tmp_path / "whole.jsonl", 0, pytest.fail)
    whole.add(6, 1, shifts(1))
    for history in (resumed, whole):
        history.add(12, 2, shifts(4))
        history.add(18, 3, shifts(5))
    assert np.array_equal(resumed.picture(), whole.picture())
    whole.add(24, 4, shifts(6))
    assert not np.array_equal(resumed.picture(), whole.picture())
    for history in (resumed, whole):
        history.close()
    assert [json.loads(line)["epoch"] for line in (tmp_path / "killed.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
        2,
        3,
    ]
