"""Options that start a command in several processes, on one machine or many, and the launcher behind them."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click


def share_cores() -> None:
    """Let PyTorch's idle threads sleep instead of spinning; call before torch is imported.

    Spinning threads take the core from the thread they wait for as soon as anything else runs, decoding included. Training the
    motion set on two cores beside one busy process: 28 clips/s spinning, 53 sleeping; alone 85 and 75.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """How many processes a command asks for, and how they meet."""

    nproc_per_node: int | None = None
    """Processes on this machine; 0: one a GPU; None: not said."""
    nnodes: tuple[int, int] | None = None
    """Machines, at least and at most; None: not said."""
    rdzv_endpoint: str | None = None
    rdzv_id: str | None = None
    max_restarts: int = 0
    timeout: float = 600.0
    """Seconds that a rank may wait for another once all are training."""
    device: str = "auto"

    @property
    def wanted(self) -> bool:
        """Whether this process is to start others, and not one of them: processes were asked for, and no elastic agent (ours, or
        torchrun's) has started this one.

        Raises:
            click.UsageError: srun started several launchers that do not know of each other.
        """
        if "TORCHELASTIC_RUN_ID" in os.environ:
            return False
        several_hosts = self.rdzv_endpoint is not None or (self.nnodes is not None and self.nnodes[1] > 1)
        wanted = several_hosts or self.nproc_per_node not in (None, 1)
        tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
        if wanted and not several_hosts and tasks != "1":
            raise click.UsageError(
                f"srun started {tasks} tasks of this command: leave out --nproc-per-node, and each is a process of the run; or start "
                f"one task a host and give --nnodes as well"
            )
        return wanted


def launch_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--nproc-per-node, --nnodes, --rdzv-endpoint, --rdzv-id, --max-restarts, --timeout; the command receives them as `launching`."""

    @functools.wraps(function)
    def bundled(
        *,
        nproc_per_node: int | None,
        nnodes: tuple[int, int] | None,
        rdzv_endpoint: str | None,
        rdzv_id: str | None,
        max_restarts: int,
        timeout: float,
        **others: Any,
    ) -> Any:
        launching = LaunchOptions(
            nproc_per_node=nproc_per_node, nnodes=nnodes, rdzv_endpoint=rdzv_endpoint, rdzv_id=rdzv_id,
            max_restarts=max_restarts, timeout=timeout, device=others.get("device", "auto"),
        )  # fmt: skip
        return function(launching=launching, **others)

    command: Callable[..., Any] = bundled
    for option in (
        click.option("--timeout", type=click.FloatRange(0, min_open=True), default=600.0, show_default=True, metavar="SECONDS",
                     help="How long a process may wait for another, from the second step on; a hang ends there."),
        click.option("--max-restarts", type=click.IntRange(0), default=0, show_default=True,
                     help="How often all processes are started again, from the last checkpoint, after one has failed."),
        click.option("--rdzv-id", default=None, metavar="NAME",
                     help="Name of the run, the same on every machine.  [default: the Slurm job's number, else tin]"),
        click.option("--rdzv-endpoint", type=_Endpoint(), default=None, metavar="HOST:PORT",
                     help="Where the machines meet: one of them, and a free port.  [default under srun: the first host]"),
        click.option("--nnodes", type=_Nodes(), default=None, metavar="MIN[:MAX]",
                     help="Machines; the same command runs on each. MIN:MAX lets them come and go.  [default: 1]"),
        click.option("--nproc-per-node", type=_Processes(), default=None, metavar="N|auto",
                     help="Processes on this machine; auto: one a GPU. torchrun and srun work as well.  [default: 1]"),
    ):  # fmt: skip
        command = option(command)
    return command


def launch(options: LaunchOptions) -> int:
    """Run this very command line in the processes that the options ask for, with the others of other machines; return the exit status.

    On PyTorch's elastic agent. Each process gets an equal part of the cores for PyTorch's threads unless OMP_NUM_THREADS says
    otherwise. The last line on stderr names the process that failed first and its error. Status: 0 when all ended well, that of
    the process that failed first, 128 + n when signal n ended it or stopped the run.

    Raises:
        TinError: the machines do not find each other.
    """
    from cli import _launch_agent

    return _launch_agent.run(options)


class _Processes(click.ParamType):
    """A number of processes, or `auto`, which is 0."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if value == "auto":
            return 0
        if not value.isdecimal() or not 1 <= int(value) <= 1024:
            self.fail(f"{value!r} is no number of processes: give 1 to 1024, or auto for one a GPU", param, ctx)
        return int(value)


class _Nodes(click.ParamType):
    """A number of machines, or a least and a greatest number."""

    name = "MIN[:MAX]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,5})(?::(\d{1,5}))?", value)
        least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= least <= most:
            self.fail(
                f"{value!r} is no number of machines: give one as 2, or the least and the most as 2:4", param, ctx
            )
        return least, most


class _Endpoint(click.ParamType):
    """A host and a port."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        match = re.fullmatch(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})", value)
        if match is None or not 1 <= int(match[2]) < 65536:
            self.fail(f"{value!r} is no HOST:PORT, as node1:29400 or [fd00::1]:29400", param, ctx)
        return str(value)
