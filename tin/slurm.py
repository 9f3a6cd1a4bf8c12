"""What Slurm tells a task that srun started: its rank, and where all tasks of the step can meet."""

from __future__ import annotations

import os
import re

from tin.errors import TinError

FIRST_PORT, PORTS = 15000, 10000
"""Ports that a step takes one of: below those that Linux gives to outgoing connections (32768…)."""


def in_step() -> bool:
    """Whether srun started this process as one of several tasks. A batch script and an salloc shell are no such task."""
    return _number("SLURM_STEP_NUM_TASKS") > 1 and "SLURM_PROCID" in os.environ


def task() -> tuple[int, int, int]:
    """(rank, rank on this host, number of tasks) of this task of the step.

    Raises:
        TinError: a variable is missing or is no number.
    """
    return _need("SLURM_PROCID"), _need("SLURM_LOCALID"), _need("SLURM_STEP_NUM_TASKS")


def num_hosts() -> int:
    """Hosts of the step, else of the job, else 1."""
    return _number("SLURM_STEP_NUM_NODES") or _number("SLURM_JOB_NUM_NODES") or 1


def meeting_point() -> tuple[str, int] | None:
    """(first host of the step, a port derived from the job's and the step's number); None outside of Slurm."""
    hosts = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST")
    job = _number("SLURM_JOB_ID")
    if not hosts or not job:
        return None
    return first_host(hosts), FIRST_PORT + (job * 17 + _number("SLURM_STEP_ID")) % PORTS


def first_host(hosts: str) -> str:
    """The first of Slurm's list of hosts: `gpu-[003-005,9],login` gives `gpu-003`.

    Raises:
        TinError: it is no such list.
    """
    match = re.match(r"(?:[^][,]|\[[^][]+\])+", hosts)
    if match is None or (match.end() < len(hosts) and hosts[match.end()] != ","):
        raise TinError(
            f"'{hosts}' is no list of hosts as Slurm writes it (SLURM_JOB_NODELIST): set MASTER_ADDR to the first host"
        )
    return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", match[0])


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 0


def _need(name: str) -> int:
    text = os.environ.get(name)
    if text is None or not text.isdecimal():
        raise TinError(
            f"srun sets {name} to a whole number, here it is {text!r}: start the tasks with srun, or unset SLURM_PROCID"
        )
    return int(text)
