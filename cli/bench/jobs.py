"""Runs of benchmarks in processes of their own: one that crashes or hangs costs its own numbers and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tin.bench.stability import Criterion
    from tin.bench.summary import Part

MAX_RUNS = 10
"""Of a part; what is unstable by then stays so."""


@dataclass
class Job:
    """A part, and what its runs have given so far.

    Attributes:
        command: what follows `tin-cli`, without --out.
        out: folder for its log.
        left_out: why it is not run at all.
        records: contents of the result files of its runs.
        failed: why a run gave none.
        seconds: of the longest run.
    """

    name: str
    command: list[str]
    out: Path
    left_out: str | None = None
    records: list[dict[str, Any]] = field(default_factory=list)
    failed: str | None = None
    seconds: float = 0.0

    def part(self, criterion: Criterion) -> Part:
        """What came of it."""
        from tin.bench.stability import join_runs
        from tin.bench.summary import Part

        results = [record["results"][self.name] for record in self.records]
        joined = join_runs(results, criterion) if results else None
        left_out = self.left_out or (None if results or self.failed else "interrupted before")
        return Part(self.name, len(results), joined, self.failed, left_out)

    def run(self, left: float) -> float:
        """Run once more, for `left` seconds at most, and keep the result, or why there is none; returns the seconds it took."""
        from tin.bench.records import read_record

        path = self.out / f".{self.name}.json"
        start = time.monotonic()
        try:
            status, output = _run([*self.command, "--out", str(path)], left)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        took = time.monotonic() - start
        self.seconds = max(self.seconds, took)
        if status == 0:
            self.records.append(read_record(path).content)
        elif status is not None or not self.records:  # without time for another run those before still stand
            self.failed = "it did not end in time (--max-minutes)" if status is None else _reason(status, output)
            (self.out / f"{self.name}.log").write_text(output, encoding="utf-8")
        path.unlink(missing_ok=True)
        return took


def run_all(jobs: Sequence[Job], criterion: Criterion, minutes: float) -> None:
    """Run every job once, then every one again, then in turns those that are not stable, while there is time."""
    from tin.bench.stability import MIN_RUNS

    deadline = time.monotonic() + 60 * minutes
    for turn in range(MAX_RUNS):
        for job in jobs:
            left = deadline - time.monotonic()
            if turn == 0 and job.left_out is None and left <= 0:
                job.left_out = f"no time was left (--max-minutes {minutes:g})"
            if job.left_out is not None:
                if turn == 0:
                    click.echo(f"{job.name:10}    –   {job.part(criterion).words}")
                continue
            settled = turn >= MIN_RUNS and job.part(criterion).state == "stable"
            if job.failed is not None or settled or job.seconds > left:
                continue
            took = job.run(left)
            part = job.part(criterion)
            words = part.words if part.state == "failed" or part.runs >= MIN_RUNS else "1 run"
            click.echo(f"{job.name:10}{took:4.0f} s  {words}")


def _run(arguments: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Exit status and output of a `tin-cli` of its own; None where it was ended for taking longer."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # or it would go on without us
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True,  # so that its processes can be ended with it
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                return None, output
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
    return process.returncode, output


def _reason(status: int, output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    said = [line.removeprefix("tin-cli: error: ") for line in lines if line.startswith("tin-cli: error: ")]
    if said:
        return said[-1]
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return f"its process {how}{f': {lines[-1].strip()}' if lines else ''}"
