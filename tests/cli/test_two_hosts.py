"""One training job on two hosts: network namespaces with a cable between them, that is cut in mid-epoch."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.conftest import EPOCHS
from tests.cli.running import ON_TWO_PROCESSES, Run, deterministic_training, differences, running, saved_state

ADDRESSES = {"A": "10.213.77.1", "B": "10.213.77.2"}


@dataclass(frozen=True)
class Host:
    """A network namespace, kept by a process that sleeps in it."""

    name: str
    pid: int
    in_user_namespace: bool

    @property
    def entrance(self) -> list[str]:
        user = ["--user", "--preserve-credentials"] if self.in_user_namespace else []
        return ["nsenter", "--target", str(self.pid), *user, "--net", "--"]

    def ip(self, command: str) -> None:
        done = subprocess.run([*self.entrance, "ip", *command.split()], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"ip {command}: {done.stderr.strip()}")

    def unplug(self) -> None:
        """The other end of the cable loses its signal, and keeps its address."""
        self.ip(f"link set cable{self.name} down")

    def plug(self) -> None:
        self.ip(f"link set cable{self.name} up")

    def run(self, *command: object) -> AbstractContextManager[Run]:
        return running(*self.entrance, *command)


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that share this machine's name and disk, and reach each other alone."""
    for tool in ("ip", "nsenter", "unshare"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here: install iproute2 and util-linux")
    own_user = os.geteuid() != 0
    with ExitStack() as stack:

        def hold(*prefix: str) -> int:
            asleep = [*prefix, "sh", "-c", "echo ready; exec sleep 600"]
            process = stack.enter_context(
                subprocess.Popen(asleep, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                assert process.stderr is not None
                pytest.skip(f"network namespaces are not permitted here: {process.stderr.read().strip()}")
            return process.pid

        if own_user:
            user = hold("unshare", "--user", "--map-root-user")
            common = ("nsenter", "--target", str(user), "--user", "--preserve-credentials", "--", "unshare", "--net")
        else:
            common = ("unshare", "--net")
        a, b = (Host(name, hold(*common), own_user) for name in ADDRESSES)
        try:
            a.ip(f"link add cableA type veth peer name cableB netns {b.pid}")
            for host in (a, b):
                host.ip(f"addr add {ADDRESSES[host.name]}/24 dev cable{host.name}")
                host.ip("link set lo up")
                host.plug()
        except OSError as error:
            pytest.skip(f"no cable can be laid between network namespaces here: {error}")
        yield a, b


def on_two(motion: Path, work_dir: Path, *more: object) -> list[object]:
    """The command that both hosts are given."""
    meeting = ("--nnodes", "2", "--rdzv-endpoint", f"{ADDRESSES['A']}:29400", "--timeout", "6")
    return deterministic_training(motion, work_dir, EPOCHS, *ON_TWO_PROCESSES, *meeting, *more)


def crash(run: Run) -> None:
    """What a power failure does to the processes of a host."""
    processes = [run.process, *psutil.Process(run.process.pid).children(recursive=True)]
    for process in processes:
        process.kill()
    run.process.wait()


@pytest.mark.slow
def test_a_run_on_two_hosts_re_forms_after_the_cable_is_cut_and_loses_nothing(
    hosts: tuple[Host, Host], motion: Path, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    """At the end of every epoch the ranks compare their weights, and a difference would end the run."""
    a, b = hosts
    command = on_two(motion, tmp_path / "run", "--max-restarts", "1")
    with a.run(*command) as first:
        with b.run(*command) as second:
            first.until("2 processes on cpu")
            first.until("epoch 2/3  step 3/8")
            b.unplug()
            crash(second)
        first.until("lost its connection to the others (Timed out")
        first.until("starting again, 1 of 1 times")
        b.plug()
        with b.run(*command) as second:
            first.until("going on from")
            assert "at epoch 2, step" in first.lines[-1]
            assert second.end() == 0, second.text
            assert "epoch" not in second.text, "rank 0 alone speaks"
        assert first.end() == 0, first.text
    assert "Traceback" not in first.text + second.text
    assert differences(saved_state(tmp_path / "run"), uninterrupted) == []


@pytest.mark.prove
@pytest.mark.parametrize("lost", ["cable", "guest", "host of the meeting"])
def test_a_run_without_restarts_ends_on_both_hosts_and_resumes(
    hosts: tuple[Host, Host], motion: Path, uninterrupted: dict[str, Any], tmp_path: Path, lost: str
) -> None:
    a, b = hosts
    command = on_two(motion, tmp_path / "run", "--resume")
    with a.run(*command) as first, b.run(*command) as second:
        first.until("epoch 2/3  step 3/8")
        cut = time.monotonic()
        if lost == "cable":
            b.unplug()
        else:
            crash(second if lost == "guest" else first)
        for run in {"cable": (first, second), "guest": (first,), "host of the meeting": (second,)}[lost]:
            assert run.end() == 1, run.text
            assert run.lines[-1].startswith("tin-cli: error: "), run.text
            assert "lost its connection to the others" in run.text
            assert "Traceback" not in run.text
        assert time.monotonic() - cut < 200
    b.plug()
    with a.run(*command) as first, b.run(*command) as second:
        assert first.end() == 0, first.text
        assert second.end() == 0, second.text
    assert "at epoch 2, step" in first.text
    assert differences(saved_state(tmp_path / "run"), uninterrupted) == []
