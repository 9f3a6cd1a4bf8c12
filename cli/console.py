"""What a run shows: live bars on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from tin.train.progress import StepReport

METRIC_NAMES = {
    "top1_acc": "top-1",
    "top5_acc": "top-5",
    "mean_class_accuracy": "mean class accuracy",
    "time_order_accuracy": "time-order accuracy",
    "coverage": "coverage",
}


def format_metrics(metrics: Mapping[str, float]) -> str:
    """`top-1 95.25 %, top-5 100.00 %` …; coverage only when something is missing."""
    shown = {
        name: value
        for name, value in metrics.items()
        if name in METRIC_NAMES and not (name == "coverage" and value == 1.0)
    }
    return ", ".join(f"{METRIC_NAMES[name]} {100 * value:.2f} %" for name, value in shown.items())


@contextmanager
def counting(console: Console, what: str, total: int, unit: str = "videos") -> Iterator[Callable[[int], None]]:
    """A bar for `total` things; yields the function that is told how many more are done. No bar without a terminal."""
    if not console.is_terminal:
        yield lambda count: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.update(task, advance=count)


@contextmanager
def callback_bar(what: str, shown: bool = True) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr for callbacks of (done, total), which appears with the first; None, and no bar, without a terminal."""
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: list[TaskID] = []

        def update(done: int, total: int) -> None:
            if not tasks:
                tasks.append(progress.add_task(what, total=total))
            progress.update(tasks[0], completed=done, total=total)

        yield update


class TrainingConsole:
    """The terminal's `tin.train.Reporter`: a live panel, or plain lines where there is no terminal; a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._is_live = self.console.is_terminal and not self.console.is_dumb_terminal
        self._live: Live | None = None
        self._epoch = self._epochs = self._done = self._steps = 0
        self._report: StepReport | None = None
        self._finish = 0.0
        self._best: tuple[float, int | None] | None = None
        self._validated: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def message(self, text: str) -> None:
        self._print(text)

    def epoch_start(self, epoch: int, epochs: int, first_step: int, steps: int) -> None:
        self._epoch, self._epochs, self._done, self._steps = epoch, epochs, first_step, steps
        if self._is_live and not self._live:  # not before: reading the lists has a bar of its own
            self._live = Live(console=self.console, get_renderable=self._panel, refresh_per_second=4, transient=True)
            self._live.start()

    def step(self, done: int) -> None:
        self._done = done

    def report(self, report: StepReport) -> None:
        self._report = report
        self._finish = time.monotonic() + report.eta_s
        if report.best is not None and (self._best is None or report.best > self._best[0]):
            self._best = (report.best, None)  # of a run that was resumed
        if not self._live or report.step == report.steps:
            self._print(format_report(report))

    def validating(self, done: int, total: int) -> None:
        self._validated = (done, total)

    def validation(self, epoch: int, metrics: Mapping[str, float], best: bool) -> None:
        self._validated = None
        if best and "top1_acc" in metrics:
            self._best = (metrics["top1_acc"], epoch)
        self._print(f"epoch {epoch}  validation: {format_metrics(metrics)}{'  (best so far)' if best else ''}")

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    # ---- the panel -----------------------------------------------------------------------------------------------------------

    def _panel(self) -> RenderableType:
        if not self._epoch:
            return ""
        return Panel(Group(self._bars(), self._numbers()), title="training", title_align="left")

    def _bars(self) -> Table:
        all_done, all_steps = (self._epoch - 1) * self._steps + self._done, self._epochs * self._steps
        left = f"left {_duration(max(0.0, self._finish - time.monotonic()))}" if self._report else ""
        bars = Table.grid(
            Column(), Column(ratio=1), Column(justify="right"), Column(), padding=(0, 2, 0, 0), expand=True
        )
        bars.add_row(
            f"epoch {self._epoch}/{self._epochs}", _bar(self._done, self._steps), f"step {self._done}/{self._steps}", ""
        )
        bars.add_row("run", _bar(all_done, all_steps), f"{100 * all_done / all_steps:.1f} %", left)
        if self._validated:
            done, total = self._validated
            bars.add_row("validation", _bar(done, total), f"video {done}/{total}", "")
        return bars

    def _numbers(self) -> Columns:
        cells = [Text.assemble((f"{name} ", "dim"), value, no_wrap=True) for name, value in self._shown()]
        return Columns(cells, padding=(0, 3))

    def _shown(self) -> Iterator[tuple[str, str]]:
        """Names and values."""
        report = self._report
        if report is None:
            return
        yield "loss", f"{report.loss:.4f}"
        yield "top-1", _percent(report.top1)
        if report.top5 is not None:
            yield "top-5", _percent(report.top5)
        yield "lr", f"{report.lr:.3g}"
        if report.grad_norm is not None:
            yield "gradient norm", f"{report.grad_norm:.3g}"
        yield "clips/s", f"{report.clips_per_second:.1f}"
        yield "data wait", _percent(report.data_wait)
        yield "memory", f"{report.memory_mb / 1024:.1f} GiB"
        if report.gpu_utilisation is not None:
            yield "GPU busy", _percent(report.gpu_utilisation)
        if report.scale is not None:
            yield "loss scale", f"{report.scale:g}"
        if self._best is not None:
            value, epoch = self._best
            yield "best top-1", _percent(value) + (f" (epoch {epoch})" if epoch else "")
        yield "bad videos", str(report.bad_videos)
        yield "skipped steps", str(report.skipped)


def format_report(report: StepReport) -> str:
    """One line, as logs have it; what is 0 as it should be is left out."""
    width = len(str(report.steps))
    numbers = [
        f"epoch {report.epoch}/{report.epochs}",
        f"step {report.step:{width}}/{report.steps}",
        f"loss {report.loss:.4f}",
        f"top-1 {_percent(report.top1)}",
        f"top-5 {_percent(report.top5)}" if report.top5 is not None else "",
        f"lr {report.lr:.3g}",
        f"{report.clips_per_second:.1f} clips/s",
        f"data wait {100 * report.data_wait:.0f} %",
        f"bad videos {report.bad_videos}" if report.bad_videos else "",
        f"skipped steps {report.skipped}" if report.skipped else "",
        f"left {_duration(report.eta_s)}",
    ]
    return "  ".join(filter(None, numbers))


def _bar(done: int, total: int) -> ProgressBar:
    return ProgressBar(total=total, completed=done)


def _percent(part: float) -> str:
    return f"{100 * part:5.1f} %"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
