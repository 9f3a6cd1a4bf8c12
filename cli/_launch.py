"""Start a command in several processes with PyTorch's own elastic agent."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class LaunchOptions:
    """How many processes a command asks for."""

    nproc_per_node: int = 1

    @property
    def wanted(self) -> bool:
        """Whether this process is to start others, and not one of them."""
        return self.nproc_per_node > 1 and not launched()


def launch_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """--nproc-per-node; the command receives them as `launching`."""

    @click.option("--nproc-per-node", type=click.IntRange(1, 1024), default=1, show_default=True,
                  help="Processes on this machine, one a GPU; torchrun and srun work as well.")  # fmt: skip
    @functools.wraps(function)
    def bundled(*, nproc_per_node: int, **others: Any) -> Any:
        return function(launching=LaunchOptions(nproc_per_node), **others)

    return bundled


def share_cores() -> None:
    """Let PyTorch's idle threads sleep instead of spinning; call before torch is imported.

    Spinning threads take the core from the thread they wait for as soon as anything else runs, decoding included. Training the
    motion set on two cores beside one busy process: 28 clips/s spinning, 53 sleeping; alone 85 and 75.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def launched() -> bool:
    """Whether this process is already one of several (started here, or by torchrun or another launcher)."""
    return "WORLD_SIZE" in os.environ


def launch(options: LaunchOptions) -> int:
    """Run this very command line in `options.nproc_per_node` processes on this machine; return the exit status.

    Each process gets an equal part of the cores for PyTorch's threads unless OMP_NUM_THREADS says otherwise.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the failed process says it better
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.nproc_per_node)))
    arguments = [
        "--standalone",
        "--nproc-per-node",
        str(options.nproc_per_node),
        "--no-python",
        sys.executable,
        "-m",
        "cli.main",
    ]
    try:
        run(get_args_parser().parse_args([*arguments, *sys.argv[1:]]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        click.echo(
            f"tin-cli: error: process {rank} ended with status {failure.exitcode}; its own message is above", err=True
        )
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    return 0
