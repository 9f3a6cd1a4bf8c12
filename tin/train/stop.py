"""Signals that ask a run to stop: noted the moment they come, answered at the same step on every rank."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist

from tin.distributed import World, connection_errors_named, side_group

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
# A scheduler may signal a launcher and its processes alike, and the launcher passes it on: within this time it is one request.
ECHO_SECONDS = 1.0


class StopRequest:
    """Catches SIGINT, SIGTERM, SIGUSR1 (Slurm's warning) and SIGHUP (a closed terminal) while its context lasts.

    The first signal is noted for `poll`. A second one ends the process at once with status 128 + n, even while the main thread is
    stuck in a collective: a thread reads the signals from a pipe. In a process of several, echoes of the first within
    `ECHO_SECONDS` do not count as a second. A hang-up that is ignored when the context begins, as under nohup, stays ignored. After
    several ranks have agreed to stop, SIGTERM stays ignored.

    Every rank must enter, poll and leave alike. Must be entered in the main thread.

    Args:
        world: this process among those of the run; with several the process group must exist.
        say: told, on rank 0, that the request was heard; called from another thread.
    """

    def __init__(self, world: World, say: Callable[[str], None] | None = None) -> None:
        self._world = world
        self._say = say if world.is_main else None
        self._signum = 0  # the first signal of this process
        self._agreed: int | None = None
        self._before: dict[int, Any] = {}
        self._group: dist.ProcessGroup | None = None
        self._exchange: tuple[dist.Work, torch.Tensor] | None = None

    def __enter__(self) -> Self:
        self._group = side_group(self._world)
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._fd_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for signum in SIGNALS:
            if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, self._handle)
        self._watcher = threading.Thread(target=self._watch, name="stop-request", daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._fd_before)
        os.write(self._write, bytes(1))  # which ends the thread
        self._watcher.join()
        os.close(self._write)
        os.close(self._read)
        if self._agreed is not None:
            # The launcher sends it to the others when the first has ended.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if error is None:
            self._finish()  # nothing may be under way when the group goes

    @property
    def noted(self) -> bool:
        """Whether this process has had a signal, which the others may not know of yet."""
        return bool(self._signum)

    def poll(self, *, settle: bool = False) -> int | None:
        """The number of the signal that asks the run to stop, the same at the same call on every rank; None to go on.

        Several ranks exchange what they heard with one small message on gloo that is begun here and read at the next call, so that a
        call waits neither for the device nor, as long as no rank is a whole step behind, for the others.

        Args:
            settle: read what all ranks have heard until now, which waits for them. For the last call before something long.

        Raises:
            LostPeers: another rank is gone.
        """
        if self._world.size == 1:
            return self._signum or None
        if self._agreed is None:
            self._finish()
        if self._agreed is None:
            self._begin()
            if settle:
                self._finish()
        return self._agreed

    def _begin(self) -> None:
        heard = torch.tensor([self._signum], dtype=torch.int32)
        with connection_errors_named(self._world):
            work = dist.all_reduce(heard, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        assert work is not None
        self._exchange = (work, heard)

    def _finish(self) -> None:
        if self._exchange is None:
            return
        work, heard = self._exchange
        self._exchange = None
        with connection_errors_named(self._world):
            work.wait()
        self._agreed = int(heard) or None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        """Wait for the thread to read it from the pipe: the next `poll` is to know.

        Without a lock, as `threading.Event` has one: another signal's handler may run in the middle of this, in the same thread,
        and would wait for itself.
        """
        deadline = time.monotonic() + 5
        while not self._signum and time.monotonic() < deadline:
            time.sleep(0.001)

    def _watch(self) -> None:
        """Read signal numbers from the pipe that the interpreter's own handler writes to."""
        echoes_until = 0.0
        while signum := os.read(self._read, 1)[0]:
            if signum not in self._before:
                continue
            if self._signum:
                if time.monotonic() < echoes_until:
                    continue
                _leave(signum)
            self._signum = signum
            echoes_until = time.monotonic() + (ECHO_SECONDS if self._world.size > 1 else 0.0)
            if self._say:
                again = "Ctrl-C again leaves" if signum == signal.SIGINT else "a second signal ends it"
                self._say(f"{signal.Signals(signum).name}: finishing this step, then saving; {again} at once")


def _leave(signum: int) -> None:
    if sys.stdout.isatty():
        os.write(1, b"\x1b[?25h\n")  # a live display hides the cursor
    os._exit(128 + signum)
