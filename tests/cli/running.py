"""Commands of several processes, read line by line while they run, and what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from tests.conftest import REPOSITORY


class Run:
    """A command of several processes, read line by line."""

    def __init__(self, *command: object, **env: str) -> None:
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **env},
        )  # fmt: skip
        self.lines: list[str] = []

    def until(self, text: str) -> None:
        """Read to the line that has this text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if text in line:
                return
        raise AssertionError(f"ended with {self.process.wait()} before '{text}':\n" + "\n".join(self.lines))

    def end(self) -> int:
        rest, _ = self.process.communicate(timeout=120)
        self.lines += rest.splitlines()
        return self.process.returncode

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def ranks(self) -> dict[int, psutil.Process]:
        """The processes that train, by rank."""
        found = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            environment = child.environ()
            if "RANK" in environment and "pipelines.worker" not in child.cmdline():
                found[int(environment["RANK"])] = child
        return found


@contextmanager
def running(*command: object, **env: str) -> Iterator[Run]:
    run = Run(*command, **env)
    children: list[psutil.Process] = []
    try:
        yield run
    finally:
        if run.process.poll() is None:
            children = psutil.Process(run.process.pid).children(recursive=True)
            run.process.kill()
        for child in children:
            if child.is_running():
                child.kill()
        run.process.communicate()


def steps_done(work_dir: Path) -> int:
    return int(torch.load(work_dir / "last.pt", weights_only=True)["progress"]["global_step"])


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=60)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def deterministic_training(motion: Path, work_dir: Path, epochs: int, *more: object) -> list[object]:
    """A run with all that a state must hold: averages, accumulation, mixing, dropout; each step logged, checkpoints all the time."""
    return [
        sys.executable, "-m", "cli.main", "train", "--recipe", "tin_motion", "--data", motion, "--work-dir", work_dir,
        "--epochs", epochs, "--device", "cpu", "--deterministic", "--seed", "7", "--workers", "1", "--ema", "0.9", "--accumulate", "2",
        "--set", "data.input_size=32", "--set", "data.short_side=40", "--set", "model.dropout=0.3", "--set", "train.mixup=0.2",
        "--set", "train.log_every=1", "--set", "checkpoint.every_minutes=0.005", *more,
    ]  # fmt: skip


ON_TWO_PROCESSES = ("--batch-size", "2", "--no-validate")
"""Eight steps an epoch of the small motion set."""


def saved_state(work_dir: Path) -> dict[str, Any]:
    """What must be equal, to the bit, at the end of two runs that claim to be the same."""
    state = torch.load(work_dir / "last.pt", weights_only=True)
    return {name: state[name] for name in ("state_dict", "optimizer", "ema", "progress")}


def differences(one: Any, other: Any, where: str = "state") -> list[str]:
    """Where two saved states are not equal to the bit."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [where]
        return [line for key in one for line in differences(one[key], other[key], f"{where}.{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [where]
        return [
            line for i, (a, b) in enumerate(zip(one, other, strict=True)) for line in differences(a, b, f"{where}[{i}]")
        ]
    return [] if one == other else [where]
