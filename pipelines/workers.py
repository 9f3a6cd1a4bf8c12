"""A pool of decoding processes that names the task of a process that dies or hangs, and replaces it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from pipelines import worker
from pipelines.decode import Tally
from pipelines.errors import DataError, DecodeError, WorkerError

Result = tuple[Any, Any, DataError | None]  # key, value, error

TASK_SECONDS = 600.0  # no clip takes this long: the file makes the decoder hang
_AHEAD = 2  # tasks a process holds, so that it need not wait for the next
_MAX_STARTS_LOST = 3


class CrashError(DecodeError):
    """Decoding a file killed two processes; the reason names the signal or exit status."""


class HangError(DecodeError):
    """A file was not done within the time for one task, and its process was ended."""


class WorkerPool:
    """Runs `decode` tasks and those of worker.TASKS in processes of their own; with no processes, in the caller's.

    The processes are started afresh (nothing is forked, so no thread or decoder state is copied) and import neither
    torch nor DALI. A process that dies takes its task to one more try in another; when that dies too, the task's
    result is an error with the signal's name. A task that does not finish in `task_seconds` is ended and is an error.

    Args:
        num_workers: processes; 0 decodes in the calling thread.
        task_seconds: longest time for one task.
    """

    def __init__(self, num_workers: int, task_seconds: float = TASK_SECONDS) -> None:
        self._waiting: deque[tuple[Hashable, str, tuple[Any, ...]]] = deque()
        self._task_seconds = task_seconds
        self._retried: set[Hashable] = set()
        self._lost_starts = 0
        self.tally = Tally()
        """What the `decode` tasks that have answered cost; those that ended with their process left no account."""
        self._processes: list[_Process] = []
        self._close = weakref.finalize(self, _end, self._processes)
        for _ in range(num_workers):
            self._processes.append(_Process())

    def submit(self, key: Hashable, kind: str, *arguments: Any) -> None:
        """Queue a task: `decode` with decode_frames' (path, indices[, layout]), or a kind of worker.TASKS with its arguments."""
        self._waiting.append((key, kind, arguments))
        self._dispatch()

    def collect(self, timeout: float = 0.1) -> list[Result]:
        """Results (key, value, error) that have arrived, waiting up to `timeout` seconds for the first.

        Raises WorkerError when processes die before they are ready, again and again.
        """
        if not self._processes:
            return [self._run_here(*self._waiting.popleft())] if self._waiting else []
        self._dispatch()
        sockets = {process.sock: process for process in self._processes}
        readable, _, _ = select.select(list(sockets), [], [], timeout)
        results: list[Result] = []
        for sock in readable:
            process = sockets[sock]
            received = worker.receive(sock)
            if received is None:
                results += self._replace(process)
            elif received[0] == worker.READY:
                self._lost_starts = 0
                process.ready()
            else:
                (key, value, error, tally), fds = received
                process.finish()
                self._count(tally)
                self._retried.discard(key)
                results.append((key, worker.open_shared(fds[0], value) if fds else value, error))
        now = time.monotonic()
        for process in self._processes:
            if process.since is not None and process.tasks and now - process.since > self._task_seconds:
                results.append(self._give_up(process))
        self._dispatch()
        return results

    def cancel(self) -> None:
        """Forget the tasks that no process has begun; results of others still come."""
        self._waiting.clear()

    def close(self) -> None:
        """End all processes, whatever they are doing, and wait for them. Safe to call again."""
        self._close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [process.popen.pid for process in self._processes]

    def _run_here(self, key: Hashable, kind: str, arguments: tuple[Any, ...]) -> Result:
        tally = Tally()
        try:
            if kind == "decode":
                return key, worker.decode_counted(*arguments, tally=tally), None
            return key, worker.TASKS[kind](*arguments), None
        except DataError as error:
            return key, None, error
        finally:
            self._count(tally)

    def _count(self, tally: Tally) -> None:
        self.tally.frames += tally.frames
        self.tally.seconds += tally.seconds

    def _dispatch(self) -> None:
        while self._waiting and self._processes:
            process = min(self._processes, key=lambda p: len(p.tasks))
            if len(process.tasks) >= _AHEAD:
                return
            process.begin(self._waiting.popleft())

    def _replace(self, process: _Process) -> list[Result]:
        """Start another process for one that died; its first task is the one it died of."""
        code = process.end()
        tasks = list(process.tasks)
        results: list[Result] = []
        if process.since is None:
            self._lost_starts += 1
            if self._lost_starts > _MAX_STARTS_LOST:
                raise WorkerError(f"decoding processes do not start ({_manner(code)}); see their messages above")
        elif tasks:
            key, _, arguments = tasks[0]
            if key in self._retried:
                self._retried.discard(key)
                tasks.pop(0)
                reason = f"the decoding process died of it twice ({_manner(code)})"
                error = CrashError(worker.subject(arguments), reason)
                results.append((key, None, error))
            else:
                self._retried.add(key)
        self._waiting.extendleft(reversed(tasks))
        self._processes[self._processes.index(process)] = _Process()
        return results

    def _give_up(self, process: _Process) -> Result:
        key, _, arguments = process.tasks.popleft()
        process.end()
        self._waiting.extendleft(reversed(process.tasks))
        self._processes[self._processes.index(process)] = _Process()
        return key, None, HangError(worker.subject(arguments), f"not decoded within {self._task_seconds:g} seconds")


class _Process:
    """One worker process, the socket to it and the tasks it holds, oldest first."""

    def __init__(self) -> None:
        self.sock, theirs = socket.socketpair()
        home = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH", "")) if part)
        with theirs:
            self.popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipelines.worker", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C reaches the parent, which ends its workers
            )
        self.tasks: deque[tuple[Hashable, str, tuple[Any, ...]]] = deque()
        self.since: float | None = None  # when the oldest task began; None until the process is ready

    def ready(self) -> None:
        self.since = time.monotonic()

    def begin(self, task: tuple[Hashable, str, tuple[Any, ...]]) -> None:
        if not self.tasks and self.since is not None:
            self.since = time.monotonic()
        self.tasks.append(task)
        with contextlib.suppress(ConnectionError):  # it has died; its socket says so to the next collect
            worker.send(self.sock, task)

    def finish(self) -> None:
        self.tasks.popleft()
        self.since = time.monotonic()

    def end(self) -> int:
        self.sock.close()
        self.popen.kill()
        return self.popen.wait()


def _end(processes: list[_Process]) -> None:
    for process in processes:
        process.popen.kill()
    for process in processes:
        process.end()
    processes.clear()


def _manner(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
