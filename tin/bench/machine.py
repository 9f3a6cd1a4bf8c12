"""What a result was measured on and with: kept beside every number, because without it none can be compared."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import tin
from tin import ops


def describe(device: torch.device) -> dict[str, Any]:
    """`machine` (CPU model, cores, memory, GPU, driver) and `versions` (this package and commit, PyTorch, CUDA, DALI, Python)."""
    return {"machine": _machine(device), "versions": _versions()}


def _machine(device: torch.device) -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "device": str(device),
        "gpu": _gpu(device) if device.type == "cuda" else None,
    }


def _versions() -> dict[str, Any]:
    backend = ops.backend()
    return {
        "tin": tin.__version__,
        "commit": _commit(),
        "op": {"cpu": backend.cpu, "cuda": backend.cuda, "simd": backend.simd},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": metadata.version("torchvision"),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "dali": _dali(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpu(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    driver = _answer("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {
        "name": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
        "count": torch.cuda.device_count(),
        "driver": driver.splitlines()[0] if driver else None,
    }


def _dali() -> str | None:
    """Its wheels are named after a CUDA version; this room does not import it."""
    found = [d for d in metadata.distributions() if (d.name or "").lower().startswith("nvidia-dali-cuda")]
    return found[0].version if found else None


def _commit() -> str | None:
    """The commit of the checkout that this package runs from, with `+` when files differ from it; None when installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    commit = _answer("git", "-C", str(root), "rev-parse", "--short=12", "HEAD")
    changed = _answer("git", "-C", str(root), "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if commit and changed else commit


def _answer(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
