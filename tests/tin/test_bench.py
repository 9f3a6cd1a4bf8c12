"""Benchmarks: what they claim to time is really run, in turns, with a ratio beside every figure. No speed is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from tin import bench
from tin.bench.networks import TrainingStep
from tin.bench.timing import Rounds, median_ratio
from tin.bench.usage import processor_seconds
from tin.bench.workload import Workload
from tin.errors import TinError

CPU = torch.device("cpu")
SMALL = Workload("tin_resnet18", batch_size=2, num_segments=4, input_size=32, num_classes=5)
ROUNDS = Rounds(warmup=1, runs=3)


class TestTiming:
    def test_calls_take_turns_and_every_sample_is_a_call(self) -> None:
        order: list[str] = []
        samples = bench.time_in_turns({name: partial(order.append, name) for name in "abc"}, CPU, Rounds(2, 3))
        assert "".join(order) == "aabbcc" + "abc" + "cba" + "abc"
        assert {name: len(values) for name, values in samples.items()} == {"a": 3, "b": 3, "c": 3}

    def test_short_calls_are_repeated_until_a_sample_is_long_enough(self) -> None:
        calls = []
        samples = bench.time_in_turns({"a": lambda: calls.append(1)}, CPU, Rounds(1, 2), min_seconds=1e-3)
        assert len(calls) > 20
        assert len(samples["a"]) == 2

    def test_quantiles_and_ratios_are_of_the_samples(self) -> None:
        samples = [float(i) for i in range(101)]
        assert bench.quantiles(samples, 1e3) == {"median": 50e3, "p10": 10e3, "p90": 90e3, "samples": 101}
        # pairs, not medians: one slow round slows both
        assert median_ratio([2.0, 40.0, 2.0], [1.0, 20.0, 1.0]) == 2.0

    def test_the_protocol_of_the_results_table_is_the_default_on_a_gpu(self) -> None:
        assert Rounds.default(torch.device("cuda"), quick=False) == Rounds(20, 200)
        assert Rounds.default(CPU, quick=True).runs < Rounds.default(CPU, quick=False).runs


class TestNetworks:
    def test_inference_takes_one_clip_through_the_network_and_its_plain_counterpart_both_as_they_are_and_prepared(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = count_forwards(monkeypatch)
        result = check(bench.inference(SMALL, ROUNDS))
        # four of the eager network; of the prepared one the same and one when it is made
        assert given == {"tin_resnet18": [(4, 3, 32, 32)] * 9, "tsn_resnet18": [(4, 3, 32, 32)] * 9}
        theirs, *rows = result["rows"]
        assert (theirs["name"], theirs["ratio"]) == ("torchvision resnet18, one clip", 1.0)
        assert all(line["torchvision_ratio"] > 0 for line in rows)
        assert all(line["clips_per_second"] == pytest.approx(1e3 / line["median"]) for line in rows)
        assert [(line["name"], line["ratio_to"]) for line in rows] == [
            ("tin_resnet18, one clip", "tsn_resnet18, one clip"),
            ("tsn_resnet18, one clip", "tsn_resnet18, one clip"),
            ("tin_resnet18, one clip, prepared", "tsn_resnet18, one clip, prepared"),
            ("tsn_resnet18, one clip, prepared", "tsn_resnet18, one clip, prepared"),
        ]
        assert [line["ratio"] for line in rows][1::2] == [1.0, 1.0]
        assert [line["eager_ratio"] for line in rows][:2] == [1.0, 1.0]
        assert rows[2]["eager_ratio"] > 0

    def test_inference_of_the_plain_network_is_its_own_yardstick(self) -> None:
        result = check(bench.inference(Workload("tsn_resnet18", num_segments=1, input_size=32), ROUNDS))
        assert [row["ratio"] for row in result["rows"]] == [1.0, 1.0, 1.0]

    @pytest.mark.slow
    def test_model_times_inference_and_training_of_three_networks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given = count_forwards(monkeypatch)
        result = check(bench.model(SMALL, ROUNDS, Rounds(1, 2)))
        archs = ["tin_resnet18", "tsm_resnet18", "tsn_resnet18"]
        one, both = (4, 3, 32, 32), (8, 3, 32, 32)
        # and one step more to count what it keeps
        assert given == {arch: [one] * 4 + [both] * 4 + [both] * 3 + [both] for arch in archs}
        assert [row["name"] for row in result["rows"]] == [
            f"{arch}, {what}"
            for what in ("inference, batch 1", "inference, batch 2", "training step, batch 2")
            for arch in [*archs, "torchvision resnet18"]
        ]
        for line in result["rows"]:
            assert line["clips_per_second"] == pytest.approx(line["batch_size"] / line["median"] * 1e3)
            assert line["torchvision_ratio"] > 0
        tin_line, tsm_line, tsn_line, theirs = result["rows"][8:]
        assert theirs["saved_mib"] > 0
        assert tsn_line["temporal_saved_mib"] == tsn_line["reference_saved_mib"] == 0
        assert tin_line["reference_saved_mib"] > tsm_line["reference_saved_mib"] > 0
        for line in (tin_line, tsm_line):
            assert 0 < line["temporal_saved_mib"] < line["reference_saved_mib"]
            assert line["saved_mib"] == pytest.approx(tsn_line["saved_mib"] + line["temporal_saved_mib"])

    def test_a_batch_of_one_clip_is_timed_once(self) -> None:
        work = Workload("tsn_resnet18", 1, 2, 32, num_classes=2)
        names = [row["name"] for row in check(bench.model(work, Rounds(0, 1), Rounds(0, 1)))["rows"]]
        assert len(names) == len(set(names)) == 8

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_a_training_step_trains(self, dtype: str) -> None:
        work = Workload("tin_resnet18", 2, 4, 32, dtype, num_classes=5)
        model = work.build("tin_resnet18")
        step = TrainingStep(work, model)
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        running = model.bn1.running_mean.clone()
        step(work.frames(2), torch.tensor([1, 4]))
        changed = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
        assert "fc.weight" in changed
        assert "layer1.0.conv1.weight" in changed
        assert not torch.equal(model.bn1.running_mean, running)


@dataclass
class Batch:
    frames: torch.Tensor
    labels: torch.Tensor
    ids: np.ndarray


@dataclass
class Stats:
    frames_used: int = 0
    frames_decoded: int = 0


class Frames:
    """A loader of ready frames that remembers what was taken from it. Its decoder needs five frames for two."""

    def __init__(self, batches: int, size: int = 2) -> None:
        self.batches, self.size, self.epoch = batches, size, -1
        self.taken: list[tuple[int, int]] = []
        self.closed = 0
        self.done = Stats()

    def stats(self) -> Stats:
        return self.done

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        try:
            for i in range(self.batches):
                self.taken.append((self.epoch, i))
                self.done.frames_used += self.size * 4
                self.done.frames_decoded += self.size * 10
                ids = np.arange(i * self.size, (i + 1) * self.size)
                yield Batch(torch.randn(self.size * 4, 3, 32, 32), torch.zeros(self.size, dtype=torch.int64), ids)
        finally:
            self.closed += 1


class TestData:
    def test_a_round_decodes_the_very_clips_that_the_loader_gave(self) -> None:
        loader = Frames(10)
        decoded: list[tuple[int, list[int]]] = []

        def decode(epoch: int, ids: Sequence[int]) -> float:
            decoded.append((epoch, list(ids)))
            return (9.0, 2.0, 4.0)[epoch]

        result = check(bench.data(loader, CPU, Rounds(1, 2), 3, decode))
        # two batches to get going, three timed, in each of three epochs; then the loader is told to stop
        assert loader.taken == [(epoch, i) for epoch in range(3) for i in range(5)]
        assert loader.closed == 3
        assert decoded == [(epoch, [4, 5, 6, 7, 8, 9]) for epoch in range(3)]
        assert [row["name"] for row in result["rows"]] == ["loader alone", "decoding alone"]
        assert all(row["samples"] == 2 for row in result["rows"])
        assert [row["frames_decoded_per_used"] for row in result["rows"]] == [3.0, 3.0]

    def test_processor_time_is_counted_for_a_clip(self) -> None:
        def work(epoch: int, ids: Sequence[int]) -> float:
            until = time.process_time() + 0.2
            while time.process_time() < until:
                pass
            return 1.0

        loading, decoding = check(bench.data(Frames(6), CPU, Rounds(0, 1), 4, work))["rows"]
        assert decoding["cpu_seconds_per_clip"] == pytest.approx(0.2 / 8, abs=0.01)
        assert loading["cpu_seconds_per_clip"] >= 0

    def test_processor_time_of_living_and_ended_children_and_grandchildren_counts(self) -> None:
        burn = "import time\nwhile time.process_time() < 0.3: pass\n"
        grandchild = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
        before = processor_seconds()
        subprocess.run([sys.executable, "-c", grandchild], check=True)
        ended = processor_seconds()
        assert ended - before >= 0.29
        waits = burn + "print(flush=True); input()"
        with subprocess.Popen([sys.executable, "-c", waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            assert processor_seconds() - ended >= 0.29
            child.communicate(b"\n")

    def test_where_the_decoder_does_not_tell_its_frames_nothing_is_claimed(self) -> None:
        loader = Frames(3)
        loader.stats = lambda: Stats(frames_used=8)  # type: ignore[method-assign]
        (line,) = bench.data(loader, CPU, Rounds(0, 1), 2, None)["rows"]
        assert line["frames_decoded_per_used"] is None

    def test_an_epoch_shorter_than_a_round_is_enough(self) -> None:
        for batches in (1, 2, 3):
            decoded: list[int] = []
            check(bench.data(Frames(batches), CPU, Rounds(0, 1), 8, partial(collect, decoded)))
            assert len(decoded) == 2

    def test_without_a_decoder_to_compare_with_it_says_so(self) -> None:
        result = check(bench.data(Frames(4), CPU, Rounds(0, 1), 2, None))
        assert "does not run alone" in result["rows"][0]["ratio_to"]
        assert result["rows"][0]["frames_decoded_per_used"] == 2.5

    def test_an_empty_loader_is_an_error(self) -> None:
        with pytest.raises(TinError, match="no batch"):
            bench.data(Frames(0), CPU, Rounds(0, 1), 2, None)


def test_the_machine_and_the_versions_are_described() -> None:
    described = bench.describe(CPU)
    machine, versions = described["machine"], described["versions"]
    assert machine["cpu"]
    assert machine["cores"] >= machine["usable_cores"] >= 1
    assert machine["gpu"] is None
    assert versions["torch"] == torch.__version__
    assert versions["dali"]
    assert versions["op"]["cpu"] in ("native", "reference")
    json.dumps(described)


def collect(into: list[int], epoch: int, ids: Sequence[int]) -> float:
    into.extend(ids)
    return 1.0


def count_forwards(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[int, ...]]]:
    """The shapes that each architecture's networks are given from now on."""
    shapes: dict[str, list[tuple[int, ...]]] = {}
    real = Workload.build

    def build(self: Workload, arch: str) -> torch.nn.Module:
        model = real(self, arch)
        model.register_forward_pre_hook(lambda m, args: shapes.setdefault(arch, []).append(tuple(args[0].shape)))
        return model

    monkeypatch.setattr(Workload, "build", build)
    return shapes


def check(result: dict[str, Any]) -> dict[str, Any]:
    """What holds for every benchmark: JSON, settings, and in each row quantiles in order and a ratio to something."""
    assert json.loads(json.dumps(result)) == result
    assert result["settings"]["runs"] >= 1
    assert result["rows"]
    for line in result["rows"]:
        assert 0 < line["p10"] <= line["median"] <= line["p90"]
        assert line["ratio"] > 0
        assert line["ratio_to"]
        assert line["unit"] in ("ms", "clips/s")
    return result
