"""`bench.train`: the real step on the loader's batches, each half alone, and a limit in words. No speed is asserted."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tin import bench, recipes
from tin.bench.timing import Rounds
from tin.bench.train import Batch, limit, verdict
from tin.errors import TinError
from tin.recipes import Recipe
from tin.train.step import TrainStep

CPU = torch.device("cpu")
RECIPE = ("model.num_segments=2", "model.num_classes=3", "train.batch_size=2")


@dataclass
class Clips:
    """A loader of ready clips that remembers what was taken from it. Its decoder needs five frames for two."""

    steps: int
    taken: list[tuple[int, int]] = field(default_factory=list)
    epoch: int = -1
    start: int = -1

    def __len__(self) -> int:
        return self.steps

    def set_epoch(self, epoch: int, start_step: int) -> None:
        self.epoch, self.start = epoch, start_step

    def __iter__(self) -> Iterator[Any]:
        for step in range(self.start, self.steps):
            self.taken.append((self.epoch, step))
            yield _Loaded(
                torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last), torch.zeros(2).long()
            )

    def stats(self) -> Any:
        return _Stats(frames_used=4 * len(self.taken), frames_decoded=10 * len(self.taken))


@dataclass(frozen=True)
class _Loaded(Batch):
    ids: np.ndarray = field(default_factory=lambda: np.arange(2))


@dataclass
class _Stats:
    frames_used: int
    frames_decoded: int


def recipe(*overrides: str) -> Recipe:
    return recipes.load("motion", [*RECIPE, *overrides])


def model() -> nn.Module:
    from tin import build_model

    return build_model("tin_resnet18", 3, 2)


def measure(loader: Clips, steps: int | None, runs: int, **more: Any) -> dict[str, Any]:
    result = bench.train(loader, model(), recipe(), device=CPU, steps=steps, rounds=Rounds(0, runs), **more)
    assert json.loads(json.dumps(result)) == result
    return result


def test_each_round_reads_the_end_of_an_epoch_alone_and_trained_on_and_steps_on_random_clips_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    real = TrainStep.__call__

    def watch(self: TrainStep, batch: Any, **where: Any) -> Any:
        seen.append(id(batch.frames.untyped_storage()))
        assert batch.frames.shape == (4, 3, 32, 32)
        assert batch.frames.is_contiguous(memory_format=torch.channels_last)
        assert batch.frames.dtype == torch.float32
        return real(self, batch, **where)

    monkeypatch.setattr(TrainStep, "__call__", watch)
    loader = Clips(9)
    result = measure(loader, steps=5, runs=2)
    warm = [(0, step) for step in (5, 6, 7, 8)]
    alone_and_together = [(turn, step) for turn in (0, 1) for _ in range(2) for step in (4, 5, 6, 7, 8)]
    assert loader.taken == warm + alone_and_together
    assert len(seen) == 4 + 3 + 2 * (5 + 5)  # warm-up on the loader's and on random clips, then a round's two stretches
    assert [line["name"] for line in result["rows"]] == ["end to end", "loader alone", "model alone"]
    for line in result["rows"]:
        assert 0 < line["p10"] <= line["median"] <= line["p90"]
        assert line["samples"] == 2
        assert line["cpu_seconds_per_clip"] >= 0
        assert line["ratio_to"] == "1 / (1/loader + 1/model)"
    assert 0 <= result["rows"][0]["data_wait"] <= 1
    settings = result["settings"]
    assert (settings["steps"], settings["batch_size"], settings["frames"]) == (5, 2, [4, 3, 32, 32])
    assert settings["frames_decoded_per_used"] == 2.5
    assert settings["steps_before_the_clock"] == 0


def test_the_ratio_is_to_the_limit_of_the_same_round() -> None:
    together, loader, alone = measure(Clips(3), steps=3, runs=1)["rows"]
    most = limit(loader["median"], alone["median"], on_cpu=True)
    assert together["ratio"] == pytest.approx(together["median"] / most)
    assert loader["ratio"] == pytest.approx(loader["median"] / most)
    assert alone["ratio"] == pytest.approx(alone["median"] / most)


def test_training_is_what_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    asked = recipe("optim.label_smoothing=0.1")
    built: list[Recipe] = []
    real = TrainStep.__init__

    def watch(self: TrainStep, network: nn.Module, recipe: Recipe, **more: Any) -> None:
        built.append(recipe)
        real(self, network, recipe, **more)

    monkeypatch.setattr(TrainStep, "__init__", watch)
    bench.train(Clips(2), network, asked, device=CPU, steps=2, rounds=Rounds(0, 1))
    assert built == [asked]
    after = network.state_dict()
    assert not torch.equal(after["fc.weight"], before["fc.weight"])
    assert not torch.equal(after["bn1.running_mean"], before["bn1.running_mean"])
    # so little that random labels lead nowhere
    assert torch.allclose(after["layer1.0.conv1.weight"], before["layer1.0.conv1.weight"], atol=1e-3)


def test_an_epoch_shorter_than_asked_is_enough() -> None:
    loader = Clips(1)
    assert measure(loader, steps=50, runs=1)["settings"]["steps"] == 1
    assert loader.taken == [(0, 0)] * 3


def test_without_a_number_of_steps_a_stretch_lasts_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("tin.bench.train")
    monkeypatch.setattr(module, "STRETCH", 0.5)
    settings = measure(Clips(2000), None, runs=1)["settings"]
    assert 4 <= settings["steps"] < 2000
    monkeypatch.setattr(module, "STRETCH", 0.0)
    assert measure(Clips(2000), None, runs=1)["settings"]["steps"] == 4


def test_an_empty_loader_is_an_error() -> None:
    with pytest.raises(TinError, match="no batch"):
        measure(Clips(0), steps=2, runs=1)


def test_shared_cores_add_the_times_up_and_separate_ones_do_not() -> None:
    assert limit(100.0, 25.0, on_cpu=True) == pytest.approx(20.0)
    assert limit(100.0, 25.0, on_cpu=False) == 25.0


@pytest.mark.parametrize(
    ("loader", "model", "on_cpu", "decoded", "workers", "slower", "words"),
    [
        (300, 100, True, 1.0, 2, "model", ["the model is the limit: 300", "25% of a clip's time is reading", "at most 33%"]),
        (300, 100, False, 1.0, 2, "model", ["the model is the limit", "Faster reading would gain nothing"]),
        (10, 100, False, 12.5, 1024, "loader", ["the loader is the limit: 10", "waits for data 70%", "12.5 frames", "--gop 8"]),
        (10, 100, False, None, 1024, "loader", ["the loader is the limit", "transcode LIST OUT --gop 8"]),
        (10, 100, True, 1.0, 0, "loader", ["91% of a clip's time is reading", "ore --workers use more cores (now 0 of"]),
        (10, 100, True, 1.0, 1024, "loader", ["it takes more or faster cores"]),
        (98, 100, False, 30.0, 1024, "both", ["loader and model are about as fast", "30.0 frames"]),
    ],
)  # fmt: skip
def test_the_verdict_names_the_limit_and_what_would_help(
    loader: float, model: float, on_cpu: bool, decoded: float | None, workers: int, slower: str, words: list[str]
) -> None:
    found = verdict(rows(loader, model, 0.99), on_cpu=on_cpu, decoded=decoded, workers=workers)
    assert found["limit"] == slower
    for part in words:
        assert part in found["words"]
    assert "End to end reaches 0.990 of the limit." in found["words"]
    assert "transcode" not in found["words"] or slower != "model"


def test_a_verdict_short_of_the_limit_says_where_the_rest_goes() -> None:
    found = verdict(rows(100, 100, 0.8), on_cpu=True, decoded=1.0, workers=2)
    assert "1.50 times the processor time of both alone" in found["words"]
    assert "processor time of both" not in verdict(rows(100, 100, 0.96), on_cpu=True, decoded=1.0, workers=2)["words"]


def rows(loader: float, model: float, ratio: float) -> list[dict[str, Any]]:
    return [
        {"name": "end to end", "median": 40.0, "ratio": ratio, "data_wait": 0.7, "cpu_seconds_per_clip": 0.03},
        {"name": "loader alone", "median": loader, "cpu_seconds_per_clip": 0.01},
        {"name": "model alone", "median": model, "cpu_seconds_per_clip": 0.01},
    ]
