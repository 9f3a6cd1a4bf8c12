"""Which of several failed processes failed first of its own accord, and why; told to the launchers of the other machines."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from tin.train.stop import SIGNALS

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.api import WorkerGroup
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_KEY = "tin/cause"
_OTHERS_SECONDS = 3.0  # that a machine waits for another to say what happened there
_HINTS = {
    signal.SIGKILL: "from outside; often the machine had no memory left, which dmesg would say",
    signal.SIGABRT: "NCCL does that when others do not answer; see its messages above",
}


@dataclass(frozen=True)
class Cause:
    """Why a run ended."""

    line: str
    """Rank, host, process and reason."""
    status: int
    """As the launcher's exit status: that of the process, 128 + n when signal n killed it."""
    of_others: bool = False
    """Only a consequence: the process lost others."""

    @property
    def is_stop(self) -> bool:
        """Somebody asked the run to stop, and it has saved."""
        return self.status in {128 + signum for signum in SIGNALS}

    @property
    def is_final(self) -> bool:
        """Another try would not help: a user's mistake, or the run was asked to stop."""
        return self.status == 2 or self.is_stop


def find_cause(failures: Mapping[int, ProcessFailure], worker_group: WorkerGroup) -> Cause:
    """The cause among this machine's failures, given by rank, in the order they were seen; that of another machine if it was there."""
    causes = {rank: _cause(rank, failure) for rank, failure in failures.items()}
    # SIGTERM may be the agent's, which ends the others with the first
    own = [rank for rank, cause in causes.items() if not cause.of_others and failures[rank].exitcode != -signal.SIGTERM]
    cause = causes[own[0] if own else next(iter(causes))]
    if worker_group.group_world_size and worker_group.group_world_size > 1:
        store = worker_group.store
        with suppress(RuntimeError, ValueError):  # the machine that holds the store may be the one that is gone
            if not cause.of_others:
                store.set(_KEY, json.dumps(asdict(cause)))
            else:
                store.wait([_KEY], timedelta(seconds=_OTHERS_SECONDS))
                root = Cause(**json.loads(store.get(_KEY)))
                cause = replace(root, line=f"{root.line}; {cause.line}")
    return cause


def _cause(rank: int, failure: ProcessFailure) -> Cause:
    place = f"rank {rank} on {socket.gethostname()}"
    who = f"{place} (process {failure.pid})"
    status = failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    message = failure.error_file_data.get("message")
    if isinstance(message, dict):
        of_others = bool(failure.error_file_data.get("of_others"))
        reason = str(message.get("message")).removeprefix(f"{place} ")  # which errors of lost peers begin with
        return Cause(f"{who}{' ' if of_others else ': '}{reason}", status, of_others)
    if failure.exitcode < 0:
        signum = signal.Signals(-failure.exitcode)
        hint = f" ({_HINTS[signum]})" if signum in _HINTS else ""
        return Cause(f"{who} was ended by {signum.name}{hint}", status)
    return Cause(f"{who} ended with status {status}; its own message is above", status)
