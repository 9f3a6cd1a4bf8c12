"""Running the command line, in this process (fast) and as a user's process (real)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from pipelines.motion import MotionSettings, write_motion
from tests.cli.running import ON_TWO_PROCESSES, deterministic_training, running, saved_state
from tests.conftest import REPOSITORY


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Calls the command line in this process."""

    def call(*arguments: object) -> Result:
        capfd.readouterr()
        status = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Result(status, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def tin_cli() -> Callable[..., Result]:
    """Calls the command line as a process of its own, as a user does."""

    def call(*arguments: object, cwd: Path | None = None, timeout: float = 250, **env: str) -> Result:
        process = subprocess.run(
            [sys.executable, "-m", "cli.main", *map(str, arguments)],
            cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "2", **env},
        )  # fmt: skip
        return Result(process.returncode, process.stdout, process.stderr)

    return call


@pytest.fixture(scope="session")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small motion data set: its folder, with lists and real encoded videos."""
    out = tmp_path_factory.mktemp("motion") / "small"
    write_motion(out, MotionSettings(train=64, val=8, size=32, frames=8), workers=2)
    return out


EPOCHS = 3


@pytest.fixture(scope="session")
def uninterrupted(motion: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes of one machine leave after EPOCHS of `deterministic_training` that nothing disturbed."""
    work_dir = tmp_path_factory.mktemp("uninterrupted") / "run"
    command = deterministic_training(motion, work_dir, EPOCHS, *ON_TWO_PROCESSES, "--nproc-per-node", "2")
    with running(*command) as whole:
        assert whole.end() == 0, whole.text
    return saved_state(work_dir)
