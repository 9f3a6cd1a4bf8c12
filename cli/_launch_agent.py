"""The launcher: PyTorch's elastic agent, with our choice of addresses, our grace for saving, and a last line that names the cause."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from typing import Any

import click
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousError,
    RendezvousTimeoutError,
)

from cli import _worker
from cli._launch import LaunchOptions
from cli._launch_cause import Cause, find_cause
from cli._meeting import Meeting, local_meeting, meet
from tin.errors import TinError

# After a failure the others of this machine get this long to end by themselves: one that waits for the failed one in a GPU's
# collective cannot. PyTorch's own figure.
FAILED_SECONDS = 30


def run(options: LaunchOptions) -> int:
    """See `cli._launch.launch`."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # each has a level of its own
            logging.getLogger(name).setLevel(logging.CRITICAL)  # the last line says it better
    local_world_size = _processes(options)
    before = dict(os.environ)
    try:
        _tell_processes(local_world_size)
        with tempfile.TemporaryDirectory(prefix="tin-launch-") as folder:
            meeting = _meeting(options)
            spec = WorkerSpec(
                role="tin",
                local_world_size=local_world_size,
                entrypoint=sys.executable,
                args=("-m", "cli.main", *sys.argv[1:]),
                rdzv_handler=meeting.handler,
                max_restarts=options.max_restarts,
                monitor_interval=0.1,
                local_addr=meeting.address,
            )
            return _run(_Agent(spec, DefaultLogsSpecs(log_dir=folder), grace=options.timeout + 60), meeting)
    finally:  # who calls this in a process of its own may start others
        os.environ.clear()
        os.environ.update(before)


def _tell_processes(local_world_size: int) -> None:
    """Set what the processes inherit."""
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // local_world_size)))
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ",".join(_signals())
    # Torch would keep one store over all starts, where processes find the addresses of those that are gone.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.environ[_worker.LAUNCHER] = str(os.getpid())
    os.environ.pop("TIN_STARTED_AGAIN", None)


def _run(agent: _Agent, meeting: Meeting) -> int:
    closes = True
    try:
        result = agent.run()
    except SignalException as stopped:
        closes = False  # which would end the run for machines that are still saving
        return agent.status_after(stopped.sigval)
    except RendezvousTimeoutError:
        return _say(f"the other machines did not come to {meeting.endpoint} in time: start the same command on each", 1)
    except RendezvousClosedError:
        return _say(
            f"the others have ended the run '{meeting.run_id}': start it again on every machine, with --resume", 1
        )
    except RendezvousConnectionError:
        closes = False
        return _say(
            f"lost the connection to {meeting.endpoint}, where the machines meet, and the run ends with it; start it again on every "
            f"machine, with --resume", 1,
        )  # fmt: skip
    except RendezvousError as error:
        return _say(f"the machines could not meet at {meeting.endpoint}: {error}", 1)
    finally:
        # A machine that only lost the others leaves the run open to them; it may not reach the endpoint either.
        if closes and not (agent.cause and agent.cause.of_others):
            meeting.handler.shutdown()
    cause = agent.cause
    if result is None or not result.is_failed() or cause is None:
        return 0
    return cause.status if cause.is_stop else _say(cause.line, cause.status)


class _Agent(LocalElasticAgent):
    """Starts again only what another try may help, gives stopped processes time to save, and keeps the cause of a failure."""

    def __init__(self, spec: WorkerSpec, logs_specs: DefaultLogsSpecs, *, grace: float) -> None:
        super().__init__(spec, logs_specs)
        self.cause: Cause | None = None
        self._grace = grace
        self._starts = 0

    def status_after(self, signum: int) -> int:
        """The exit status when signal `signum` stopped the launcher: 0 if the processes had finished nevertheless."""
        handlers = self._pcontext.subprocess_handlers if self._pcontext else {}  # type: ignore[attr-defined]
        codes = {rank: handler.proc.poll() for rank, handler in handlers.items()}
        killed = [str(rank) for rank, code in codes.items() if code == -signal.SIGKILL]
        if killed:
            _say(
                f"local rank {', '.join(killed)} did not stop by itself and was killed; what it had not saved is lost",
                0,
            )
        return 0 if codes and not any(codes.values()) else 128 + signum

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        if self._starts:
            os.environ["TIN_STARTED_AGAIN"] = "1"
        self._starts += 1
        self.cause = None
        return super()._start_workers(worker_group)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result = super()._monitor_workers(worker_group)
        if result.is_failed():
            self.cause = find_cause(result.failures, worker_group)
            if self.cause.is_final:
                self._remaining_restarts = 0
        return result

    def _restart_workers(self, worker_group: WorkerGroup) -> None:
        if self.cause:
            limit = worker_group.spec.max_restarts
            _say(f"{self.cause.line}; starting again, {limit - self._remaining_restarts} of {limit} times", 0)
        else:
            click.echo("tin-cli: a machine came or went: starting again with those that are there", err=True)
        super()._restart_workers(worker_group)

    def _shutdown(self, death_sig: signal.Signals | None = None, timeout: int = FAILED_SECONDS) -> None:
        if death_sig is None:  # a failure, or the end
            super()._shutdown(signal.SIGTERM, FAILED_SECONDS)
            return
        try:  # a signal to the launcher, passed on: the processes finish their step and save
            super()._shutdown(death_sig, int(self._grace))
        except SignalException:  # a second one
            super()._shutdown(signal.SIGKILL, FAILED_SECONDS)


def _say(message: str, status: int) -> int:
    click.echo(f"tin-cli: error: {message}", err=True)
    return status


def _signals() -> list[str]:
    """Names of the signals to pass on; a hang-up that is ignored, as under nohup, stays ignored."""
    names = ["SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"]
    return [name for name in names if name != "SIGHUP" or signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN]


def _processes(options: LaunchOptions) -> int:
    if options.nproc_per_node is None:
        return 1
    if options.nproc_per_node:
        return options.nproc_per_node
    import torch

    return max(1, torch.cuda.device_count()) if options.device in ("auto", "cuda") else 1


def _meeting(options: LaunchOptions) -> Meeting:
    """Where the launchers of all machines meet.

    Raises:
        TinError: it is not said, or cannot be reached.
    """
    from tin import slurm

    least, most = options.nnodes or (1, 1)
    if options.rdzv_endpoint is None and most == 1:
        return local_meeting(f"tin-{uuid.uuid4().hex}")
    endpoint = options.rdzv_endpoint
    if endpoint is None:
        point = slurm.meeting_point()
        if point is None:
            raise TinError(
                "--nnodes needs --rdzv-endpoint HOST:PORT, the same on every machine: one of them, and a free port there"
            )
        endpoint = f"{point[0]}:{point[1]}"
    if options.nnodes is None:
        raise TinError("--rdzv-endpoint needs --nnodes, how many machines meet there")
    job = os.environ.get("SLURM_JOB_ID")
    return meet(endpoint, options.rdzv_id or (f"slurm-{job}" if job else "tin"), least, most)
