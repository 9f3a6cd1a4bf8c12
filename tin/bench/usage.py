"""Processor time of this process and of all that it started."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def processor_seconds() -> float:
    """User and system time so far, in seconds: of this process, of its living descendants, and of those that ended and were waited for.

    Linux counts the living descendants; elsewhere they count once they have ended.
    """
    own = os.times()
    total = time.process_time() + own.children_user + own.children_system
    children: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # proc(5): after the name in brackets the state, the parent, …, utime, stime, cutime, cstime
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended since
            continue
        children[int(fields[1])].append((int(path.parent.name), sum(map(int, fields[11:15])) / _TICK))
    left = [os.getpid()]
    while left:
        for pid, seconds in children[left.pop()]:
            total += seconds
            left.append(pid)
    return total
