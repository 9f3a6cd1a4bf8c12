"""What a process of several does beside its work: name its rank, tell the launcher why it failed, and end with the launcher."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import time
import traceback

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
LAUNCHER = "TIN_LAUNCHER_PID"


def rank() -> int:
    """The rank of this process, 0 where it is the only one."""
    text = os.environ.get("RANK") or (os.environ.get("SLURM_PROCID") if "SLURM_STEP_NUM_TASKS" in os.environ else None)
    return int(text) if text and text.isdecimal() else 0


def prefix() -> str:
    """What stands before every line of a rank other than 0."""
    return f"[rank {rank()}] " if rank() else ""


def begin() -> None:
    """To be called first: rank 0 speaks as if it were alone, warnings of the others carry their rank, and a process whose launcher is
    killed is asked to stop, as by SIGTERM."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # c10d warns of every host without a name
    if prefix():
        logging.basicConfig(level=logging.WARNING, format=f"{prefix()}%(message)s")
        logging.captureWarnings(True)
    if "TORCHELASTIC_RUN_ID" not in os.environ or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.environ.get(LAUNCHER, str(os.getppid())) != str(os.getppid()):  # it died before we asked
        sys.exit(128 + signal.SIGTERM)


def record_failure(error: BaseException, message: str, status: int, *, of_others: bool = False) -> None:
    """Leave the reason where the elastic agent that started this process looks for it (ours and torchrun); nothing without an agent.

    Args:
        message: one line.
        status: the exit status to come.
        of_others: another process is the cause, this one ends with it.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    stack = "".join(traceback.format_exception(error))
    extra = {"py_callstack": stack, "timestamp": str(int(time.time()))}
    message_of_torch = {"message": message, "errorCode": status, "extraInfo": extra}
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"message": message_of_torch, "of_others": of_others}, file)
    except OSError as problem:
        logging.getLogger("tin").warning("the reason of the failure could not be written to %s: %s", path, problem)
