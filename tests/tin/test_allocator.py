"""Freed memory stays with the process, unless somebody else has chosen."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

PROGRAM = """
import resource, torch
from tin.allocator import keep_freed_memory
print(keep_freed_memory())
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.zeros(2 ** 24)
before = faults()
for _ in range(10):
    torch.zeros(2 ** 24)  # 64 MiB, 16384 pages: more than glibc keeps by itself
print(faults() - before)
"""


@pytest.mark.parametrize(
    ("chosen", "done"),
    [({}, True), ({"MALLOC_TOP_PAD_": "0"}, False), ({"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}, False)],
)
def test_memory_is_used_again_without_the_systems_help(chosen: dict[str, str], done: bool) -> None:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_", "LD_PRE"))
    }
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**environment, **chosen}, capture_output=True, text=True, check=True
    )
    said, faults = result.stdout.split()
    assert said == str(done)
    assert (int(faults) < 16384) == done
