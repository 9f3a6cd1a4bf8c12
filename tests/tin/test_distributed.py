"""Who a process is, whether the others are still there, and whether their weights are the same. Real processes over gloo."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tin import interfaces, slurm
from tin.distributed import (
    World,
    check_equal_weights,
    process_group,
    restarted,
    shrink_timeout,
    sum_over_ranks,
    world_from_environment,
)
from tin.errors import LostPeers, TinError

STEP = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "77"}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "MASTER_", "TORCHELASTIC_")) or name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("environment", "world"),
    [
        ({}, World()),
        ({"RANK": "0", "WORLD_SIZE": "1"}, World()),
        (
            {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            World(3, 1, 4),
        ),
        (STEP, World(5, 1, 8)),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, World()),
        (
            {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
            World(),
        ),  # a batch script: srun starts the tasks
        (
            {**STEP, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            World(0, 0, 2),  # a launcher that is a task started this process
        ),
    ],
)
def test_a_process_knows_its_place(environment: dict[str, str], world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert world_from_environment() == world


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ("WORLD_SIZE=2", "WORLD_SIZE=2 is set but RANK is not"),
        ("RANK=1", "RANK=1 is set but WORLD_SIZE is not"),
        ("LOCAL_RANK=1", "LOCAL_RANK=1 is set but WORLD_SIZE is not"),
        ("RANK=1 WORLD_SIZE=2", "RANK=1, WORLD_SIZE=2 is set but LOCAL_RANK is not"),
        ("RANK=2 LOCAL_RANK=0 WORLD_SIZE=2", "ranks go from 0 to WORLD_SIZE - 1"),
        ("RANK=one LOCAL_RANK=0 WORLD_SIZE=2", "must be whole numbers"),
        ("RANK=1 LOCAL_RANK=1 WORLD_SIZE=2 MASTER_PORT=9", "but MASTER_ADDR, where the processes meet, is not"),
        ("SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1", "srun sets SLURM_LOCALID to a whole number, here it is None"),
    ],
)
def test_a_half_set_environment_is_refused_by_name(
    environment: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting in environment.split():
        monkeypatch.setenv(*setting.split("="))
    with pytest.raises(TinError) as raised:
        world_from_environment()
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("gpu7", "gpu7"),
        ("gpu7,gpu9", "gpu7"),
        ("gpu-[003-005,9],login", "gpu-003"),
        ("gpu[9,11-12]", "gpu9"),
        ("rack[2-3]node[01-16],rack9", "rack2node01"),
        ("n[1-2]-ib.cluster.org,m", "n1-ib.cluster.org"),
    ],
)
def test_the_first_host_of_slurms_list(hosts: str, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm.first_host(hosts) == first
    monkeypatch.setenv("SLURM_JOB_ID", "123456")
    monkeypatch.setenv("SLURM_JOB_NODELIST", hosts)
    point = slurm.meeting_point()
    assert point is not None
    assert point[0] == first
    assert 15000 <= point[1] < 25000


@pytest.mark.parametrize("hosts", ["gpu[1-2", "", "[1]]"])
def test_what_is_no_list_of_hosts_is_refused(hosts: str) -> None:
    with pytest.raises(TinError, match="set MASTER_ADDR"):
        slurm.first_host(hosts)


def test_the_interface_that_leads_to_an_address() -> None:
    assert interfaces.address_towards("127.0.0.1", outside=False) == "127.0.0.1"
    assert interfaces.interface_of("127.0.0.1") == "lo"
    assert interfaces.interface_of("127.3.2.1") == "lo", "by its network"
    assert interfaces.interface_of("203.0.113.7") is None
    assert interfaces.is_own("127.0.0.1")
    assert not interfaces.is_own("203.0.113.7")


def join(rank: int, port: int) -> World:
    torch.set_num_threads(1)
    settings = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in settings.items()})
    return world_from_environment()


def work(rank: int, port: int, folder: Path) -> None:
    """Rank 1 is started again by its launcher, its weights go wrong in one bit, it hangs, and then dies."""
    seen: dict[str, Any] = {}
    world = join(rank, port)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    try:
        with process_group(world, torch.device("cpu")):
            seen["interface"] = os.environ["GLOO_SOCKET_IFNAME"]
            seen["restarted"] = [restarted(world)]
            os.environ["TORCHELASTIC_RESTART_COUNT"] = str(rank)
            seen["restarted"].append(restarted(world))
            for parameter in model.parameters():
                nn.init.ones_(parameter)
            check_equal_weights(model, world)
            if rank == 1:
                with torch.no_grad():
                    model[0].bias.view(torch.int32)[2] ^= 1
            try:
                check_equal_weights(model, world)
            except TinError as error:
                seen["unequal"] = str(error)
            shrink_timeout(world, 2)
            if rank == 1:
                (folder / "1.json").write_text(json.dumps(seen))
                time.sleep(60)
            sum_over_ranks(torch.zeros(1), world)
    except LostPeers as error:
        seen["hang"] = str(error)
    (folder / "0.json").write_text(json.dumps(seen))


def dies(rank: int, port: int, folder: Path) -> None:
    world = join(rank, port)
    try:
        with process_group(world, torch.device("cpu")):
            sum_over_ranks(torch.zeros(1), world)
            if rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            sum_over_ranks(torch.zeros(1), world)
    except LostPeers as error:
        (folder / "lost").write_text(str(error))


def run_two(target: Callable[[int, int, Path], None], folder: Path) -> None:
    """Start two ranks, wait for rank 0, and end the other."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=target, args=(rank, port, folder)) for rank in range(2)]
    for process in ranks:
        process.start()
    ranks[0].join(120)
    assert ranks[0].exitcode == 0
    for process in ranks:
        process.kill()
        process.join()


@pytest.mark.slow
def test_ranks_compare_weights_and_notice_a_hang(tmp_path: Path) -> None:
    run_two(work, tmp_path)
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for rank in range(2):
        assert seen[rank]["interface"] == "lo"
        assert seen[rank]["restarted"] == [False, True], "all know it when one does"
        assert "the weights of rank 1 are not those of rank 0, first in '0.bias'" in seen[rank]["unequal"]
    assert f"rank 0 on {socket.gethostname()} lost its connection to the others (Timed out" in seen[0]["hang"]
    assert "--resume" in seen[0]["hang"]


@pytest.mark.slow
def test_a_rank_whose_peer_is_killed_says_so_in_one_line(tmp_path: Path) -> None:
    run_two(dies, tmp_path)
    message = (tmp_path / "lost").read_text()
    assert message.startswith(f"rank 0 on {socket.gethostname()} lost its connection to the others (")
    assert "\n" not in message
    assert "site-packages" not in message


def test_a_single_process_needs_no_others() -> None:
    world = World()
    check_equal_weights(nn.Linear(1, 1), world)
    shrink_timeout(world, 1)
    assert not restarted(world)
