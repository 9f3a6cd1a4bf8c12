"""Run as a program: loads every file of a folder, each in a process of its own, and writes down what that came to.

Usage: python -m tests.tin.load_hostile FOLDER RESULT.json
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import torch

import tin
from tin.checkpoints import load_state
from tin.errors import TinError
from tin.info.checkpoint import describe_checkpoint

SECONDS = 60
"""After which a process counts as hung; CPU time, so that a busy machine changes nothing."""


def main(folder: Path, result: Path) -> None:
    torch.set_num_threads(1)
    model = tin.build_model("tin_resnet18", 10)
    outcomes = []
    for path in sorted(folder.iterdir()):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.write(write, json.dumps(load(model, path)).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read()
        status = os.waitpid(child, 0)[1]
        outcome = json.loads(said) if said else {"outcome": "died", "text": _why(status)}
        outcomes.append({"name": path.name, "bytes": path.stat().st_size, **outcome})
    result.write_text(json.dumps(outcomes))


def load(model: torch.nn.Module, path: Path) -> dict[str, object]:
    """`outcome`: the file is "refused" while it is read, or read and "unfit" for the model, or "loaded"; "raised" is a defect."""
    start = time.process_time()
    outcome = "refused"
    try:
        load_state(path)
        outcome = "unfit"
        text = str(tin.load_checkpoint(model, path, strict=False))
        outcome = "loaded"
    except TinError as error:
        text = str(error)
    except BaseException as error:
        outcome, text = "raised", f"{type(error).__name__}: {error}"
    facts = describe_checkpoint(path)  # what tin-cli info shows: it must not fail either
    return {
        "outcome": outcome,
        "text": text,
        "readable": "unreadable" not in facts,
        "seconds": time.process_time() - start,
        "peak": _peak(),
    }


def _peak() -> int:
    """Most memory this process has had, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _why(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit {os.WEXITSTATUS(status)}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
