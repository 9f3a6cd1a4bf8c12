"""Runs of several processes as launchers start, signal and lose them: our own, torchrun, and srun's environment."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.agent.server.api import WorkerGroup, WorkerSpec
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from cli import _worker
from cli import train as commands
from cli._launch_cause import find_cause
from tests.cli.running import gone, running, steps_done
from tests.conftest import REPOSITORY
from tin.errors import LostPeers

Cli = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--nproc-per-node 0", "'0' is no number of processes"),
        ("--nproc-per-node many", "'many' is no number of processes: give 1 to 1024, or auto"),
        ("--nnodes 3:2", "'3:2' is no number of machines"),
        ("--nnodes two", "'two' is no number of machines"),
        ("--rdzv-endpoint node1", "'node1' is no HOST:PORT"),
        ("--rdzv-endpoint node1:99999", "'node1:99999' is no HOST:PORT"),
        ("--nnodes 2", "--nnodes needs --rdzv-endpoint HOST:PORT"),
        ("--rdzv-endpoint node1:29400", "--rdzv-endpoint needs --nnodes"),
        ("--timeout 0", "0.0 is not in the range x>0"),
    ],
)
def test_a_mistake_in_the_options_is_named(cli: Cli, arguments: str, message: str) -> None:
    result = cli("train", *arguments.split())
    assert result.status == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_srun_with_several_launchers_that_do_not_know_of_each_other(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    result = cli("train", "--nproc-per-node", 4)
    assert result.status == 2
    assert "srun started 2 tasks of this command: leave out --nproc-per-node" in result.err


def test_a_name_that_leads_nowhere_is_waited_for_and_then_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli._meeting.WAIT_SECONDS", 0)
    result = cli("train", "--nnodes", 2, "--rdzv-endpoint", "no-such-host.invalid:29400")
    assert result.status == 2
    assert "no-such-host.invalid:29400 could not be reached" in result.err


@pytest.mark.parametrize("name", ["train.sbatch", "job.yaml"])
def test_the_documented_jobs_give_options_that_exist(name: str) -> None:
    text = (REPOSITORY / "docs" / "cluster" / name).read_text()
    command = text[re.search(r"tin-cli(?: train|\n)", text).start() :]  # type: ignore[union-attr]
    command = command[: re.search(r"\nstatus=|resources:", command).start()]  # type: ignore[union-attr]
    given = set(re.findall(r"--[a-z][a-z-]+", command))
    assert {"--nnodes", "--nproc-per-node", "--max-restarts", "--resume"} <= given
    assert given <= {option for parameter in commands.train.params for option in parameter.opts}


class Failures:
    """Failed processes of a machine, with the files that they leave for their agent."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.failures: dict[int, ProcessFailure] = {}

    def add(self, rank: int, exitcode: int, error: Exception | None = None, *, of_others: bool = False) -> None:
        path = self.folder / f"{rank}.json"
        if error:
            self.monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
            _worker.record_failure(error, str(error), exitcode, of_others=of_others)
        self.failures[rank] = ProcessFailure(rank, 1000 + rank, exitcode, str(path))


@pytest.fixture
def failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Failures:
    return Failures(tmp_path, monkeypatch)


@pytest.fixture
def one_machine() -> WorkerGroup:
    return WorkerGroup(WorkerSpec(role="tin", local_world_size=4, entrypoint="x", rdzv_handler=None))  # type: ignore[arg-type]


def test_the_cause_is_the_process_that_did_not_end_because_of_another(
    failures: Failures, one_machine: WorkerGroup
) -> None:
    failures.add(0, 1, LostPeers("rank 0 lost its connection"), of_others=True)
    failures.add(2, 1, ValueError("what went wrong"))
    failures.add(1, -signal.SIGTERM)  # the agent's
    cause = find_cause(failures.failures, one_machine)
    assert cause.line == f"rank 2 on {socket.gethostname()} (process 1002): what went wrong"
    assert (cause.status, cause.is_final, cause.is_stop) == (1, False, False)


def test_a_process_that_its_agent_ended_is_no_cause(failures: Failures, one_machine: WorkerGroup) -> None:
    failures.add(0, -signal.SIGTERM)
    failures.add(1, 1, LostPeers("rank 1 lost its connection"), of_others=True)
    cause = find_cause({1: failures.failures[1], 0: failures.failures[0]}, one_machine)
    assert (cause.status, cause.is_final) == (1, False)


@pytest.mark.parametrize(
    ("exitcode", "status", "is_final", "is_stop"),
    [
        (2, 2, True, False),
        (138, 138, True, True),
        (143, 143, True, True),
        (-9, 137, False, False),
        (1, 1, False, False),
    ],
)
def test_which_failures_another_start_may_mend(
    failures: Failures, one_machine: WorkerGroup, exitcode: int, status: int, is_final: bool, is_stop: bool
) -> None:
    failures.add(0, exitcode)
    cause = find_cause(failures.failures, one_machine)
    assert (cause.status, cause.is_final, cause.is_stop) == (status, is_final, is_stop)
    assert ("SIGKILL (from outside; often the machine had no memory left" in cause.line) == (exitcode == -9)


def test_what_a_process_records_is_what_torchrun_shows(failures: Failures) -> None:
    failures.add(3, 2, ValueError("no such list"))
    assert failures.failures[3].message["message"] == "no such list"  # type: ignore[index]
    assert failures.failures[3].timestamp == pytest.approx(time.time(), abs=60)


def test_only_other_ranks_put_their_rank_before_warnings(tin_cli: Cli) -> None:
    lines = {}
    for rank in ("0", "1"):
        script = "import warnings; from cli import _worker; _worker.begin(); warnings.warn('odd'); print('[' + _worker.prefix() + ']')"
        lines[rank] = subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "RANK": rank, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert lines["0"].stdout == "[]\n"
    assert "[rank" not in lines["0"].stderr
    assert lines["1"].stdout == "[[rank 1] ]\n"
    assert lines["1"].stderr.startswith("[rank 1] ")


# ---- whole runs ---------------------------------------------------------------------------------------------------------------


def train(motion: Path, work_dir: Path, *more: object) -> list[object]:
    """Many small steps, each of them shown, with a checkpoint every few moments."""
    return [
        "-m", "cli.main", "train", "--recipe", "tin_motion", "--data", motion, "--work-dir", work_dir, "--device", "cpu", "--no-validate",
        "--workers", "1", "--batch-size", "2", "--epochs", "500", "--set", "data.input_size=32", "--set", "data.short_side=32",
        "--set", "train.log_every=1", "--set", "checkpoint.every_minutes=0.001", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_a_killed_process_is_named_and_all_start_again_and_a_signal_to_the_launcher_lets_them_save(
    motion: Path, tmp_path: Path
) -> None:
    work_dir = tmp_path / "run"
    two = train(motion, work_dir, "--nproc-per-node", "2", "--max-restarts", "2")
    with running(sys.executable, *two) as run:
        run.until("step  6/")
        killed = run.ranks()[1]
        killed.kill()
        run.until("starting again, 1 of 2 times")
        assert f"rank 1 on {socket.gethostname()} (process {killed.pid}) was ended by SIGKILL" in run.lines[-1]
        run.until("going on from")
        assert not run.lines[-1].endswith("at epoch 1, step 1")
        run.until("step ")
        ranks = list(run.ranks().values())
        assert len(ranks) == 2
        run.process.send_signal(signal.SIGUSR1)
        run.until("SIGUSR1: finishing this step, then saving")
        assert run.end() == 138
        assert "--resume goes on from there" in run.text
        assert "starting again, 2 of" not in run.text
        assert "Traceback" not in run.text
        assert "death signal" not in run.text
        assert gone(ranks)
    assert steps_done(work_dir) >= 6


@pytest.mark.prove
def test_processes_save_and_end_when_torchrun_is_killed(motion: Path, tmp_path: Path) -> None:
    work_dir = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    with running(*torchrun, sys.executable, *train(motion, work_dir)) as run:
        run.until("2 processes on cpu")
        run.until("step  3/")
        ranks = list(run.ranks().values())
        run.process.kill()
        run.until("SIGTERM: finishing this step, then saving")
        run.until("--resume goes on from there")
        assert gone(ranks)
    assert steps_done(work_dir) >= 3


@pytest.mark.prove
def test_tasks_of_srun_find_each_other_and_its_warning_stops_them(motion: Path, tmp_path: Path) -> None:
    """With the variables that srun sets, seen in a real step (docs/cluster.md)."""
    work_dir = tmp_path / "run"
    job = {
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_NODELIST": "localhost",
    }  # fmt: skip
    command = (sys.executable, *train(motion, work_dir))
    with (
        running(*command, **job, SLURM_PROCID="0", SLURM_LOCALID="0") as zero,
        running(*command, **job, SLURM_PROCID="1", SLURM_LOCALID="1") as one,
    ):
        zero.until("2 processes on cpu")
        zero.until("step  3/")
        for run in (one, zero):
            run.process.send_signal(signal.SIGUSR1)
        other = threading.Thread(target=one.end)
        other.start()
        assert zero.end() == 138
        other.join()
        assert one.process.returncode == 138
        assert one.lines == [], "rank 0 alone speaks"
    assert steps_done(work_dir) >= 3
    assert json.loads((work_dir / "recipe.json").read_text())["name"] == "tin_motion"
