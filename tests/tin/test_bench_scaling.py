"""The model of N GPUs against closed forms and against DDP's own buckets; the measurement over real processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.conftest import REPOSITORY
from tin import build_model, recipes
from tin.bench.processes import scaling, start
from tin.bench.scaling import (
    NETWORKS,
    NVLINK,
    Bucket,
    Cluster,
    Link,
    Step,
    all_reduce_seconds,
    gradient_buckets,
    predict,
    settled_bytes,
    table,
)
from tin.errors import TinError

GIGABYTE = Link("one gigabyte a second", 8, 0.0, reach=1.0)


class TestExchange:
    def test_a_ring_sends_twice_all_but_one_share(self) -> None:
        assert all_reduce_seconds(1e9, 8, Cluster(GIGABYTE)) == pytest.approx(2 * 7 / 8)
        assert all_reduce_seconds(1e9, 2, Cluster(GIGABYTE)) == pytest.approx(1.0)
        assert all_reduce_seconds(1e9, 1, Cluster(GIGABYTE)) == 0.0

    def test_nodes_gather_inside_first_and_share_the_way_out(self) -> None:
        fast = Link("inside", 80, 0.0, reach=1.0)
        found = all_reduce_seconds(1e9, 32, Cluster(fast, GIGABYTE, gpus_per_node=8))
        assert found == pytest.approx(2 * 7 / 8 / 10 + 2 * 3 / 4)

    def test_what_is_small_takes_the_trees_few_steps(self) -> None:
        slow = Link("slow to answer", 8, 1e-3, reach=1.0)
        assert all_reduce_seconds(1, 64, Cluster(slow, gpus_per_node=64)) == pytest.approx(2 * 6 * 1e-3, rel=1e-3)
        assert all_reduce_seconds(1e9, 2, Cluster(slow)) == pytest.approx(1.0 + 2e-3)

    def test_the_line_rate_is_bits_and_only_partly_reached(self) -> None:
        assert Link("x", 100, 0.0, reach=0.8).bytes_per_second == pytest.approx(10e9)

    @pytest.mark.parametrize("cluster", [Cluster(NVLINK), Cluster(NVLINK, NETWORKS[0])])
    def test_processes_that_make_no_whole_nodes_are_an_error(self, cluster: Cluster) -> None:
        with pytest.raises(ValueError, match="12 processes are no whole nodes of 8"):
            all_reduce_seconds(1, 12, cluster)


class TestPrediction:
    # backward lasts from 0.4 to 0.8 s; a bucket of 1 GB takes 1 s between two
    STEP = Step(1.0, (Bucket(1e8, 0.5), Bucket(2e8, 1.0)), forward=0.4, backward=0.4, jitter=0.0)

    def test_what_is_sent_during_backward_costs_nothing(self) -> None:
        found = predict(self.STEP, 2, Cluster(GIGABYTE))
        assert found.exchange == pytest.approx(0.3)
        assert found.exposed == pytest.approx(0.2)  # the last bucket is ready when backward ends
        assert found.step == pytest.approx(1.2)
        assert found.efficiency == pytest.approx(1 / 1.2)

    def test_a_bucket_waits_for_the_one_before(self) -> None:
        step = replace(self.STEP, buckets=(Bucket(9e8, 0.5), Bucket(1e8, 0.6)))
        assert predict(step, 2, Cluster(GIGABYTE)).exposed == pytest.approx(0.6 + 0.9 + 0.1 - 0.8)

    def test_where_both_want_the_same_processor_all_of_it_is_paid(self) -> None:
        assert predict(replace(self.STEP, overlap=False), 2, Cluster(GIGABYTE)).exposed == pytest.approx(0.3)

    def test_statistics_are_never_hidden(self) -> None:
        found = predict(replace(self.STEP, buckets=(), settled=1e8), 2, Cluster(GIGABYTE))
        assert found.exposed == pytest.approx(0.1)

    def test_the_slowest_of_many_sets_the_pace(self) -> None:
        step = replace(self.STEP, buckets=(), jitter=0.01)
        assert predict(step, 1, Cluster(GIGABYTE)).efficiency == 1.0
        draws = 1 + 0.01 * torch.randn(2000, 512, generator=torch.Generator().manual_seed(0))
        slowest = draws.max(dim=1).values.mean().item()
        found = predict(step, 512, Cluster(GIGABYTE, gpus_per_node=512)).step
        assert found == pytest.approx(slowest, abs=0.006)

    def test_efficiency_falls_with_gpus_and_rises_with_bandwidth_and_half_the_bytes(self) -> None:
        model = build_model("tin_resnet50", 400)
        full, half = (Step(0.02, gradient_buckets(model, 224, size), settled_bytes(model)) for size in (4, 2))
        for network in NETWORKS:
            parts = [predict(full, count, Cluster(NVLINK, network)).efficiency for count in (1, 8, 64, 512)]
            assert parts == sorted(parts, reverse=True)
            assert predict(half, 64, Cluster(NVLINK, network)).efficiency >= parts[2]
        by_network = [predict(full, 64, Cluster(NVLINK, network)).efficiency for network in NETWORKS]
        assert by_network == sorted(by_network, reverse=True)


class TestBuckets:
    @pytest.fixture
    def alone(self, tmp_path: Path) -> Iterator[None]:
        dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
        yield
        dist.destroy_process_group()

    @pytest.mark.filterwarnings("ignore:.broadcast_buffers. is deprecated:FutureWarning")
    @pytest.mark.parametrize("arch", ["tin_resnet18", "tin_resnet50"])
    def test_they_are_those_that_ddp_sends(self, arch: str, alone: None) -> None:
        model = build_model(arch, 400, num_segments=2)
        parallel = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
        sent: list[int] = []

        def note(state, bucket):  # type: ignore[no-untyped-def] # DDP would read annotations, which are strings here
            sent.append(4 * bucket.buffer().numel())
            done = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done

        parallel.register_comm_hook(None, note)
        for _ in range(2):  # DDP forms its buckets after the first step
            sent.clear()
            parallel(torch.randn(2, 3, 32, 32)).sum().backward()
        found = gradient_buckets(model, 32)
        assert sum(bucket.bytes for bucket in found) == sum(sent)
        assert [bucket.bytes for bucket in found] == pytest.approx(sent, rel=0.3)

    def test_the_last_layers_come_first_and_everything_comes(self) -> None:
        model = build_model("tin_resnet50", 400)
        found = gradient_buckets(model, 224)
        ready = [bucket.ready for bucket in found]
        assert ready == sorted(ready)
        assert 0 < ready[0] < 0.01
        assert ready[-1] == 1.0
        assert sum(bucket.bytes for bucket in found) == 4 * 24_358_640  # the published number of parameters
        assert sum(bucket.bytes for bucket in gradient_buckets(model, 224, 2)) == 2 * 24_358_640
        # layer4 has most of the weights and a quarter of the work
        assert sum(bucket.bytes for bucket in found if bucket.ready < 0.25) > 0.6 * 4 * 24_358_640

    def test_frozen_parameters_are_not_sent(self) -> None:
        model = build_model("tsn_resnet18", 10)
        model.conv1.weight.requires_grad_(False)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert sum(bucket.bytes for bucket in gradient_buckets(model, 64)) == 4 * trained


def test_the_table_of_the_documentation_is_what_the_model_says() -> None:
    model = build_model("tin_resnet50", 400)
    assert table(model, (385.0, 600.0), (6, 32)) in (REPOSITORY / "docs" / "scaling.md").read_text(encoding="utf-8")


class TestProcesses:
    def test_more_processes_than_cores_are_refused(self) -> None:
        with pytest.raises(TinError, match="4096 processes: this machine has"):
            scaling(recipes.load("motion", []), torch.device("cpu"), [1, 4096], steps=1, runs=1)

    @pytest.mark.slow
    def test_a_failing_process_is_named_with_its_error(self) -> None:
        with pytest.raises(TinError, match=r"process 1 of 2 failed: .*rank 1 of 2 with 1 thread"):
            start(2, fail, threads=1)


def fail() -> None:
    if os.environ["RANK"] == "1":
        raise KeyError("rank {RANK} of {WORLD_SIZE} with {OMP_NUM_THREADS} thread".format(**os.environ))
