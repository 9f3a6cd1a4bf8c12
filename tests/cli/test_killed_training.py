"""A training run that is killed at any moment, as often as one likes, ends with the weights of a run that never was."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.motion import MotionSettings, write_motion
from tests.cli.conftest import EPOCHS
from tests.cli.running import ON_TWO_PROCESSES, deterministic_training, differences, saved_state
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen steps an epoch of eight clips, and some to validate on."""
    folder = tmp_path_factory.mktemp("videos")
    write_motion(folder, MotionSettings(train=128, val=16, size=48, frames=8), workers=1)
    return folder


def finish(arguments: list[object]) -> None:
    done = subprocess.run(
        [str(part) for part in arguments], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def kill_at_random(arguments: list[object], work_dir: Path, chance: random.Random) -> int:
    """Run until training is seen to go on, then kill everything at a random moment: launcher, ranks and decoders.

    Returns:
        The last epoch that was saved as done.
    """
    log = work_dir / "log.jsonl"
    size = log.stat().st_size if log.exists() else 0
    process = subprocess.Popen(
        [str(part) for part in arguments], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
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
    return int(saved_state(work_dir)["progress"]["epoch"]) if (work_dir / "last.pt").exists() else 0


@pytest.mark.slow
def test_two_processes_that_were_killed_end_with_the_weights_of_a_run_that_was_not(
    motion: Path, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    """Also that the same seed gives the same weights, to the bit."""
    arguments = deterministic_training(
        motion, tmp_path, EPOCHS, *ON_TWO_PROCESSES, "--nproc-per-node", "2", "--resume"
    )  # fmt: skip
    assert kill_at_random(arguments, tmp_path, random.Random(2)) < EPOCHS, "it was over before it was killed"
    finish(arguments)
    assert differences(saved_state(tmp_path), uninterrupted) == []


@pytest.mark.prove
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("processes", "kills", "epochs"), [(1, 10, 24), (2, 10, 16)])
def test_a_run_that_was_killed_ten_times_ends_with_the_weights_of_one_that_was_not(
    videos: Path, tmp_path: Path, processes: int, kills: int, epochs: int
) -> None:
    options = (
        "--batch-size", 4 // processes, "--nproc-per-node", processes, "--set", "train.validate_every=2",
        "--set", "train.log_every=3",
    )  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(deterministic_training(videos, whole, epochs, *options))
    arguments = deterministic_training(videos, killed, epochs, *options, "--resume")
    chance = random.Random(processes)
    seen = [kill_at_random(arguments, killed, chance) for _ in range(kills)]
    print(f"{processes} process(es), {kills} kills, in epochs {[epoch + 1 for epoch in seen]} of {epochs}")
    assert seen[-1] < epochs, "the run was over before the last kill: more epochs are needed"
    finish(arguments)
    state = saved_state(killed)
    assert state["progress"]["global_step"] == epochs * 16
    assert differences(state, saved_state(whole)) == []
