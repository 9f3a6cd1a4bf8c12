"""A training run that is killed at any moment, as often as one likes, ends with the weights of a run that never was."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from pipelines.motion import MotionSettings, write_motion
from tests.conftest import REPOSITORY

RUN = [
    "--recipe", "tin_motion", "--arch", "tin_resnet18", "--device", "cpu", "--deterministic", "--seed", "7",
    "--workers", "1", "--ema", "0.9", "--accumulate", "2",
    "--set", "data.input_size=32", "--set", "data.short_side=40", "--set", "model.dropout=0.3",
    "--set", "checkpoint.every_minutes=0.005", "--set", "train.log_every=3", "--set", "train.validate_every=2",
    "--set", "train.mixup=0.2",
]  # fmt: skip


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few real encoded videos."""
    folder = tmp_path_factory.mktemp("motion")
    write_motion(folder, MotionSettings(train=128, val=16, size=48, frames=8), workers=1)
    return folder


def command(motion: Path, work_dir: Path, processes: int, epochs: int) -> list[str]:
    batch = "4" if processes == 1 else "2"
    return [
        sys.executable, "-m", "cli.main", "train", *RUN, "--data", str(motion), "--work-dir", str(work_dir), "--batch-size", batch,
        "--nproc-per-node", str(processes), "--epochs", str(epochs),
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def weights(work_dir: Path) -> dict[str, Any]:
    state = torch.load(work_dir / "last.pt", weights_only=True)
    return {name: state[name] for name in ("state_dict", "optimizer", "ema", "progress")}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def last_step(work_dir: Path) -> int:
    """The newest step that the log tells of."""
    log = work_dir / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    steps = [json.loads(line).get("global_step", 0) for line in lines if line.endswith("}")]
    return steps[-1] if steps else 0


def killed_once(arguments: list[str], work_dir: Path, chance: random.Random) -> None:
    """Run until training is seen to go on, then kill everything at a random moment: launcher, ranks and decoders."""
    log = work_dir / "log.jsonl"
    size = log.stat().st_size if log.exists() else 0
    process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while process.poll() is None and (not log.exists() or log.stat().st_size <= size):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(chance.uniform(0, 1.2))
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGKILL)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    _, error = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), error.decode()
    psutil.wait_procs(family, timeout=30)


@pytest.mark.parametrize(
    ("processes", "kills", "epochs"),
    [
        pytest.param(1, 1, 3, marks=pytest.mark.slow),
        pytest.param(1, 10, 24, marks=[pytest.mark.prove, pytest.mark.timeout(1800)]),
        pytest.param(2, 10, 16, marks=[pytest.mark.prove, pytest.mark.timeout(2400)]),
    ],
)
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(
    motion: Path, tmp_path: Path, processes: int, kills: int, epochs: int
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(motion, whole, processes, epochs), env=environment(), check=True, capture_output=True)
    chance = random.Random(processes)
    arguments = [*command(motion, killed, processes, epochs), "--resume"]
    seen = []
    for _ in range(kills):
        killed_once(arguments, killed, chance)
        seen.append(last_step(killed))
    print(f"{processes} process(es), {kills} kills at steps {seen} of {epochs * 16}")
    done = weights(killed)["progress"]["epoch"] if (killed / "last.pt").exists() else 0
    assert done < epochs, "the run was over before the last kill: more epochs are needed"
    final = subprocess.run(arguments, env=environment(), check=False, capture_output=True, text=True)
    assert final.returncode == 0, final.stderr
    one, other = weights(whole), weights(killed)
    assert one["progress"]["global_step"] == epochs * 16
    for name in one:
        assert equal(one[name], other[name]), name


Cli = Callable[..., Any]


@pytest.mark.slow
def test_two_deterministic_runs_are_equal_to_the_bit(motion: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        subprocess.run(command(motion, tmp_path / name, 2, 1), env=environment(), check=True, capture_output=True)
    one, other = weights(tmp_path / "one"), weights(tmp_path / "other")
    assert all(equal(one[name], other[name]) for name in one)
