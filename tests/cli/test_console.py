"""What a run shows: a live panel on a terminal, stable lines everywhere else."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest
from rich.console import Console

from cli.console import TrainingConsole
from tests.conftest import REPOSITORY
from tin.train.progress import StepReport


def report(**changes: Any) -> StepReport:
    return StepReport(**{
        "epoch": 2, "epochs": 4, "step": 50, "steps": 100, "loss": 1.23456, "top1": 0.5, "lr": 0.0125, "clips_per_second": 123.4,
        "data_wait": 0.03, "grad_norm": 2.5, "memory_mb": 2048.0, "eta_s": 3725.0, "top5": None, "lrs": {}, "updates": 150, "skipped": 0,
        "bad_videos": 0, "gpu_utilisation": None, "scale": None, **changes,
    })  # fmt: skip


def panel(width: int, *reports: StepReport, **console: Any) -> str:
    """What stands on a terminal at the last moment of a run."""
    out = io.StringIO()
    shown = TrainingConsole(Console(file=out, force_terminal=True, width=width, height=40, **console))
    with shown:
        shown.epoch_start(2, 4, 0, 100)
        for one in reports:
            shown.step(one.step)
            shown.report(one)
        shown.validation(1, {"top1_acc": 0.4375}, best=True)
        shown.validating(30, 120)
        assert shown._live
        before = len(out.getvalue())
        shown._live.refresh()
        return without_codes(out.getvalue()[before:])


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("width", [80, 140])
def test_the_panel_shows_the_run(width: int) -> None:
    text = panel(
        width, report(top5=0.75, gpu_utilisation=0.97, scale=65536.0, bad_videos=3, skipped=2, loss=float("nan")), report(top5=0.75)
    )  # fmt: skip
    for wanted in (
        "epoch 2/4", "step 50/100", "37.5 %", "left 1:02:0", "loss 1.2346", "top-1  50.0 %", "top-5  75.0 %", "lr 0.0125",
        "gradient norm 2.5", "clips/s 123.4", "data wait   3.0 %", "memory 2.0 GiB", "best top-1  43.8 % (epoch 1)", "bad videos 0",
        "skipped steps 0", "validation", "video 30/120",
    ):  # fmt: skip
        assert wanted in text, f"{wanted} is missing in\n{text}"
    assert "GPU busy" not in text
    assert {len(line) for line in text.splitlines() if line.strip()} == {width}


def test_the_panel_shows_gpu_and_trouble_where_there_is_some() -> None:
    text = panel(100, report(gpu_utilisation=0.97, scale=65536.0, bad_videos=3, skipped=2))
    for wanted in ("GPU busy  97.0 %", "loss scale 65536", "bad videos 3", "skipped steps 2"):
        assert wanted in text, f"{wanted} is missing in\n{text}"


def test_a_resumed_run_shows_the_best_of_before() -> None:
    out = io.StringIO()
    with TrainingConsole(Console(file=out, force_terminal=True, width=100)) as shown:
        shown.epoch_start(3, 4, 10, 100)
        shown.report(report(best=0.625))
        assert shown._live
        shown._live.refresh()
    assert "best top-1  62.5 %" in without_codes(out.getvalue())


def test_without_a_terminal_there_are_lines_alone() -> None:
    out = io.StringIO()
    with TrainingConsole(Console(file=out, width=60)) as shown:
        shown.message("12 [bold] videos")
        shown.epoch_start(2, 4, 0, 100)
        shown.step(50)
        shown.report(report())
        shown.report(report(step=100, top5=0.75, bad_videos=3, skipped=2, gpu_utilisation=0.5))
        shown.validating(3, 9)
        shown.validation(2, {"top1_acc": 0.5, "coverage": 1.0}, best=True)
    assert out.getvalue().splitlines() == [
        "12 [bold] videos",
        "epoch 2/4  step  50/100  loss 1.2346  top-1  50.0 %  lr 0.0125  123.4 clips/s  data wait 3 %  left 1:02:05",
        "epoch 2/4  step 100/100  loss 1.2346  top-1  50.0 %  top-5  75.0 %  lr 0.0125  123.4 clips/s  data wait 3 %  "
        "bad videos 3  skipped steps 2  left 1:02:05",
        "epoch 2  validation: top-1 50.00 %  (best so far)",
    ]


SCRIPT = """
import sys
from cli.console import TrainingConsole
from tests.cli.test_console import report
with TrainingConsole() as shown:
    shown.message("three lines before")
    shown.epoch_start(2, 4, 0, 100)
    shown.report(report())
    print("a library talks")
    shown._live and shown._live.refresh()
    shown.report(report(step=100))
    shown.message("trained in 0:00:01")
"""


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_a_real_terminal_is_left_as_it_was(term: str) -> None:
    """The panel is gone at the end, the lines stay, and the cursor is visible again; a dumb terminal gets plain lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    environment = {**os.environ, "TERM": term}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=REPOSITORY, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    text = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    os.close(ours)
    assert process.wait() == 0
    left = [re.sub("  loss.*", "", line) for line in screen(text.decode())]
    middle = ["epoch 2/4  step  50/100"] if term == "dumb" else []
    assert left == [
        "three lines before", *middle, "a library talks", "epoch 2/4  step 100/100", "trained in 0:00:01",
    ]  # fmt: skip
    if term == "dumb":
        assert b"\x1b" not in text
    else:
        assert "│ epoch 2/4" in text.decode()
        assert text.rindex(b"\x1b[?25h") > text.rindex(b"\x1b[?25l")  # the cursor is shown again


def screen(text: str) -> list[str]:
    """What stands on a terminal after the codes that rich uses: carriage return, line up, clear line, and colours."""
    lines, row, column = [""], 0, 0
    for code, character in re.findall(r"\x1b\[([0-9;?]*[A-Za-z])|([^\x1b])", text):
        if code.endswith("A"):
            row -= int(code[:-1] or 1)
        elif code == "2K":
            lines[row] = ""
        elif character == "\r":
            column = 0
        elif character == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif character:
            lines[row] = lines[row][:column].ljust(column) + character + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines if line.strip()]
