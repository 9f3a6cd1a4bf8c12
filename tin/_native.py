"""Finds and loads the compiled kernels that setup.py leaves in tin/lib, and says why when it cannot."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import torch

LIBRARY_DIR = Path(__file__).resolve().parent / "lib"


@dataclass(frozen=True)
class Native:
    """What was loaded. A reason is None when the kernels of that device are in place."""

    cpu_reason: str | None
    cuda_reason: str | None
    simd: str | None  # instruction set the CPU kernels chose at load time, None without CPU kernels


def load() -> Native:
    """Loads `libtin_cpu.so` and, under a CUDA build of PyTorch, `libtin_cuda.so`; registers their kernels with PyTorch.

    The libraries hold no Python ABI and speak LibTorch's stable ABI, so any PyTorch from 2.11 on can load them.
    """
    cpu_reason = _load_one("libtin_cpu.so", "setup.py found no working C++ compiler, or the sources were never built")
    if torch.version.cuda is None:
        cuda_reason: str | None = "this PyTorch was built without CUDA"
    else:
        cuda_reason = _load_one("libtin_cuda.so", "setup.py found no nvcc, or was told TIN_CUDA=0")
    return Native(cpu_reason, cuda_reason, _simd_level() if cpu_reason is None else None)


def _load_one(name: str, absence: str) -> str | None:
    """The reason why library `name` is not loaded, or None."""
    path = LIBRARY_DIR / name
    if not path.is_file():
        return f"no {name} in {LIBRARY_DIR}: {absence}"
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        return f"{path} does not load: {error}"
    return None


def _simd_level() -> str:
    function = ctypes.CDLL(str(LIBRARY_DIR / "libtin_cpu.so")).tin_simd_level
    function.restype = ctypes.c_char_p
    return str(function().decode())
