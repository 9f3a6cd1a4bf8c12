"""Start a command in several processes with PyTorch's own elastic agent."""

from __future__ import annotations

import logging
import os
import sys

import click


def share_cores() -> None:
    """Let PyTorch's idle threads sleep instead of spinning; call before torch is imported.

    Spinning threads take the core from the thread they wait for as soon as anything else runs, decoding included. Training the
    motion set on two cores beside one busy process: 28 clips/s spinning, 53 sleeping; alone 85 and 75.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def launched() -> bool:
    """Whether this process is already one of several (started here, or by torchrun or another launcher)."""
    return "WORLD_SIZE" in os.environ


def launch(nproc_per_node: int) -> int:
    """Run this very command line in `nproc_per_node` processes on this machine; return the exit status.

    Each process gets an equal part of the cores for PyTorch's threads unless OMP_NUM_THREADS says otherwise.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the failed process says it better
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // nproc_per_node)))
    arguments = [
        "--standalone",
        "--nproc-per-node",
        str(nproc_per_node),
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
