"""What this package runs on here: versions, kernels, GPUs, and what is missing and how to get it."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tin import _native, ops
from tin.bench.machine import describe
from tin.errors import TinError
from tin.train import nvidia_apex

_REBUILD = "pip install --no-build-isolation --no-deps --force-reinstall . in a clone of the repository"


@dataclass(frozen=True)
class Missing:
    """Something that would make a difference."""

    what: str
    consequence: str
    remedy: str


def describe_environment() -> dict[str, Any]:
    """Facts about this process's machine and packages; asks the GPU's driver, computes nothing.

    Returns:
        `machine` and `versions` (`tin.bench.machine.describe`, with cuDNN and NCCL of PyTorch's build); `op`: what runs on a CPU and on
        CUDA and why, the SIMD level of the CPU kernels, and what each library was built for; `gpus`: of each its name, compute capability,
        memory, multiprocessors; `apex`: None where it can be used, else why not.
    """
    here = describe(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    backend = ops.backend()
    nccl = torch.cuda.nccl.version() if torch.version.cuda and torch.distributed.is_nccl_available() else None
    versions = {
        **{name: value for name, value in here["versions"].items() if name != "op"},
        "cudnn": _cudnn(),
        "numpy": np.__version__,
        "nccl": ".".join(map(str, nccl)) if isinstance(nccl, tuple) else nccl,
    }
    return {
        "machine": here["machine"],
        "versions": versions,
        "op": {
            "cpu": backend.cpu,
            "cpu_reason": backend.cpu_reason,
            "simd": backend.simd,
            "cuda": backend.cuda,
            "cuda_reason": backend.cuda_reason,
            "libraries": {name: _record(name) for name in ("libtin_cpu.so", "libtin_cuda.so")},
        },
        "gpus": [_gpu(number) for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)],
        "apex": _apex(),
    }


def missing(environment: dict[str, Any]) -> list[Missing]:
    """What `describe_environment` did not find, with its consequence and how to get it."""
    op, gpus = environment["op"], environment["gpus"]
    found: list[Missing] = []
    if op["cpu"] != "native":
        found.append(
            Missing(
                f"the CPU kernels ({op['cpu_reason']})", "the op runs in PyTorch, several times slower",
                f"install a C++20 compiler (apt-get install g++), then {_REBUILD}",
            )
        )  # fmt: skip
    if torch.version.cuda is None:
        found.append(
            Missing(
                "CUDA in PyTorch", "everything runs on the CPU",
                "install PyTorch's CUDA build (pip install torch), if there is an NVIDIA GPU",
            )
        )  # fmt: skip
    elif op["cuda"] != "native":
        found.append(
            Missing(
                f"the CUDA kernels ({op['cuda_reason']})", "the op runs in PyTorch on GPUs",
                f"install nvcc of CUDA {torch.version.cuda.split('.')[0]}, then TIN_CUDA=1 {_REBUILD}",
            )
        )  # fmt: skip
    if torch.version.cuda is not None and not gpus:
        found.append(
            Missing(
                "an NVIDIA GPU that PyTorch can use", "everything runs on the CPU, and PyAV decodes",
                "if the machine has one: nvidia-smi must list it (its driver), and a container needs --gpus all",
            )
        )  # fmt: skip
    built = (op["libraries"]["libtin_cuda.so"] or {}).get("architectures")
    for gpu in gpus:
        if op["cuda"] == "native" and built and not runs_on(built, gpu["capability"]):
            found.append(
                Missing(
                    f"CUDA kernels for compute capability {gpu['capability']} ({gpu['name']})", "the op does not run there",
                    f"TORCH_CUDA_ARCH_LIST={gpu['capability']} {_REBUILD}",
                )
            )  # fmt: skip
    if gpus and importlib.util.find_spec("pynvml") is None:
        found.append(
            Missing(
                "nvidia-ml-py", "training does not report how busy the GPU is", "pip install nvidia-ml-py",
            )
        )  # fmt: skip
    if environment["apex"] is not None:
        found.append(
            Missing(
                f"NVIDIA apex ({environment['apex']})", "--optimizer apex-sgd and lamb are not to be had; sgd is",
                f"on a machine with an NVIDIA GPU and nvcc: {nvidia_apex.INSTALL}",
            )
        )  # fmt: skip
    return found


def runs_on(architectures: list[str], capability: str) -> bool:
    """Whether code for these architectures ("8.6", "10.0+PTX") runs on a GPU of this compute capability ("8.9").

    Machine code runs on its own generation from its own minor version on (an "a" or "f" ties it to its own); PTX on anything newer.
    """
    major, minor = map(int, capability.split("."))
    for name in architectures:
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", name)
        if match is None:
            continue
        own = (int(match[1]), int(match[2]))
        if match[3]:
            if own == (major, minor):
                return True
        elif (own[0] == major and own[1] <= minor) or (match[4] and own <= (major, minor)):
            return True
    return False


def _cudnn() -> str | None:
    number = torch.backends.cudnn.version() if torch.version.cuda else None
    return None if number is None else f"{number // 10_000}.{number // 100 % 100}.{number % 100}"


def _record(library: str) -> dict[str, Any] | None:
    """What setup.py wrote down when it built a library; None for one that is absent or older than that."""
    path = _native.LIBRARY_DIR / library
    try:
        record = json.loads(path.with_name(f"{library}.json").read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _gpu(number: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(number)
    return {
        "index": number,
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
    }


def _apex() -> str | None:
    """Why NVIDIA apex cannot be used; None where it can."""
    if importlib.util.find_spec("apex") is None:
        return "not installed"
    try:
        nvidia_apex.require("lamb", torch.device(nvidia_apex.DEVICE_TYPE))
    except TinError as error:
        return str(error).partition("NVIDIA apex's, ")[2].partition(". Get it")[0] or str(error)
    return None
