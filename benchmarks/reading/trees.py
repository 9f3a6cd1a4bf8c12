"""A reader in processes of its own, which can be stopped and go on, and whose processor time is known."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

_ROOT = Path(__file__).resolve().parents[2]


class Tree:
    """A reader in processes of its own."""

    def __init__(self, name: str, job: dict[str, Any]) -> None:
        read, write = os.pipe()
        command = [sys.executable, "-m", "benchmarks.reading.serve", name, json.dumps(job), str(write)]
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.popen = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log, pass_fds=(write,), text=True
        )
        os.close(write)
        self.answers = os.fdopen(read, encoding="utf-8")

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        """End all its processes."""
        if self.popen.poll() is None:
            self.signal(signal.SIGKILL)
        self.popen.wait()
        self.log.close()

    def ask(self, **request: Any) -> Any:
        """The answer; raises RuntimeError with the last line of what it printed when it died instead."""
        assert self.popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.write(json.dumps(request) + "\n")
            self.popen.stdin.flush()
        line = self.answers.readline()
        if not line:
            self.popen.wait()
            self.log.seek(0)
            lines = self.log.read().strip().splitlines()
            raise RuntimeError(lines[-1] if lines else "it ended without a word")
        return json.loads(line)

    def signal(self, number: signal.Signals) -> None:
        """To every process."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def cpu_seconds(self) -> float:
        """Processor time of all its processes so far."""
        total = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def _processes(self) -> list[psutil.Process]:
        root = psutil.Process(self.popen.pid)
        return [root, *root.children(recursive=True)]
