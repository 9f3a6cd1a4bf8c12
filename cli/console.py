"""What a run shows: live bars on a terminal, plain lines everywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

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
    """The terminal's `tin.train.Reporter`; a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=self.console, transient=True,
            )  # fmt: skip
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def message(self, text: str) -> None:
        self._print(text)

    def epoch_start(self, epoch: int, epochs: int, first_step: int, steps: int) -> None:
        if self._progress:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(
                "", total=steps, completed=first_step, epoch=f"{epoch}/{epochs}", numbers=""
            )

    def step(self, done: int) -> None:
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=done)

    def report(self, report: StepReport) -> None:
        numbers = (
            f"loss {report.loss:.4f}  top-1 {100 * report.top1:5.1f} %  lr {report.lr:.3g}  "
            f"{report.clips_per_second:.1f} clips/s  data wait {100 * report.data_wait:.0f} %  "
            f"left {timedelta(seconds=round(report.eta_s))}"
        )
        if self._progress and self._task is not None:
            self._progress.update(self._task, numbers=numbers)
        if not self._progress or report.step == report.steps:
            width = len(str(report.steps))
            self._print(f"epoch {report.epoch}/{report.epochs}  step {report.step:{width}}/{report.steps}  {numbers}")

    def validation(self, epoch: int, metrics: Mapping[str, float], best: bool) -> None:
        self._print(f"epoch {epoch}  validation: {format_metrics(metrics)}{'  (best so far)' if best else ''}")

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)
