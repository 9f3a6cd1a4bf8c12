"""A signal stops all ranks at the same step; a second one ends a process at once, even a stuck one. Real signals, real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tin.distributed import World
from tin.train.stop import SIGNALS, StopRequest

# Takes steps until it is told to stop, as the training loop does, and says at which step that was; four times.
STEPS = """
import os, time, torch
from tin.distributed import barrier, process_group, world_from_environment
from tin.train.stop import StopRequest
world = world_from_environment()
say = lambda text: os.write(1, f"{text}\\n".encode())  # whole lines, whichever thread speaks
with process_group(world, torch.device("cpu"), timeout_s=60):
    for run in range(4):
        with StopRequest(world, say=say) as stop:
            step = 0
            while not (signum := stop.poll()):
                say(f"step {step}")
                time.sleep(0.002 * (1 + world.rank))
                step += 1
            time.sleep(0.5)  # late echoes
            say(f"stopped {step} {signum}")
            barrier(world)
"""
# Rank 0 waits for rank 1, which never comes, outside of the interpreter: no handler written in Python would run.
STUCK = """
import os, time, torch
import torch.distributed as dist
from tin.distributed import process_group, world_from_environment
from tin.train.stop import StopRequest
world = world_from_environment()
say = lambda text: os.write(1, f"{text}\\n".encode())  # whole lines, whichever thread speaks
with process_group(world, torch.device("cpu"), timeout_s=60), StopRequest(world, say=say) as stop:
    say("step 0")
    if world.is_main:
        dist.barrier()
    time.sleep(60)
"""


# Echoes by the hundred: some come while the handler of the one before them runs, and are handled within it.
FLOOD = """
import os, signal, threading, time
from unittest import mock
from tin.distributed import World
from tin.train.stop import StopRequest

def flood():
    for _ in range(150):
        for signum in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), signum)
        time.sleep(0.002)

with mock.patch("tin.train.stop.side_group"), mock.patch("tin.train.stop.ECHO_SECONDS", 30), StopRequest(World(size=2)) as stop:
    sender = threading.Thread(target=flood)
    sender.start()
    while sender.is_alive():
        time.sleep(0)
    print(stop.noted)
"""


@contextmanager
def started(script: str, world_size: int = 1) -> Iterator[list[subprocess.Popen[str]]]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    if world_size > 1:
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} if world_size > 1 else {} for rank in range(world_size)]
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env=environment | rank, stdout=subprocess.PIPE, text=True)
        for rank in ranks
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """What a process printed besides its steps, up to a line that begins with `text`."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        if line.startswith(text) or not line.startswith("step"):
            seen.append(line.rstrip())
        if line.startswith(text):
            return seen
    raise AssertionError(f"ended with {process.wait()} before '{text}', after {seen}")


@pytest.mark.slow
def test_two_ranks_stop_at_the_same_step_whichever_hears_the_signal() -> None:
    """The last two: Slurm signals every process of a step, and a launcher among them passes it on. It is one request."""
    both = (0, 1, 0, 1)
    runs = [((0,), signal.SIGTERM), ((1,), signal.SIGINT), (both, signal.SIGHUP), (both, signal.SIGUSR1)]
    with started(STEPS, 2) as ranks:
        for listeners, signum in runs:
            for rank in ranks:
                read_until(rank, "step 3")
            for listener in listeners:
                ranks[listener].send_signal(signum)
            (*said, stopped), (other_stopped,) = (read_until(rank, "stopped") for rank in ranks)
            assert stopped == other_stopped
            assert stopped.endswith(f" {int(signum)}")
            assert len(said) == (0 in listeners), "rank 0 alone speaks, once"
        assert [rank.wait(60) for rank in ranks] == [0, 0]


@pytest.mark.slow
def test_a_flood_of_signals_does_not_lock_the_main_thread() -> None:
    with started(FLOOD) as (process,):
        assert process.communicate(timeout=60) == ("True\n", None)
        assert process.returncode == 0


@pytest.mark.slow
def test_the_second_signal_ends_a_rank_that_is_stuck_waiting_for_another() -> None:
    with started(STUCK, 2) as (main, other):
        for rank in (main, other):
            read_until(rank, "step 0")
        main.send_signal(signal.SIGINT)
        read_until(main, "SIGINT: finishing this step")
        deadline = time.monotonic() + 30
        while main.poll() is None and time.monotonic() < deadline:  # until it no longer passes for an echo of the first
            main.send_signal(signal.SIGINT)
            time.sleep(0.2)
        assert main.returncode == 130
        assert other.poll() is None


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda signum: signum.name)
def test_a_signal_is_known_at_the_next_poll_and_handlers_return(signum: signal.Signals) -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    said: list[str] = []
    with StopRequest(World(), said.append) as stop:
        assert stop.poll() is None
        os.kill(os.getpid(), signum)
        assert stop.poll() == signum == stop.poll(settle=True)
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    assert signal.set_wakeup_fd(-1) == -1
    assert not any(thread.name == "stop-request" for thread in threading.enumerate())
    assert said == [said[0]]
    assert said[0].startswith(f"{signum.name}: finishing this step, then saving; ")


def test_an_ignored_hangup_stays_ignored() -> None:
    before: Any = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest(World()) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.poll() is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
