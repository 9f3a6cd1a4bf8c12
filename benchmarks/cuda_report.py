"""Compiles the CUDA kernels for every architecture and reports registers, shared memory and spills (`make cuda-report`).

    python benchmarks/cuda_report.py [--log FILE]

Needs nvcc, no GPU. The whole output of `ptxas -v` goes to the log. Exit status 1 where a kernel spills.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("80", "86", "89", "90", "100")
_ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)'")
_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


def main() -> int:
    """Compile, print a line a source and architecture, return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, default=ROOT / "build" / "cuda-report.log")
    log: Path = parser.parse_args().log
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        print("no nvcc: install the CUDA toolkit", file=sys.stderr)
        return 2
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    jobs = [(source, arch) for source in sorted((ROOT / "csrc").glob("*.cu")) for arch in ARCHITECTURES]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(lambda job: _compile(nvcc, *job, Path(folder)), jobs))
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"{version}\n" + "\n".join(texts))
    spilling = 0
    print(f"{'source':22} {'arch':7} {'kernels':>7} {'registers, most':>16} {'spill bytes':>12}   ({version})")
    for (source, arch), text in zip(jobs, texts, strict=True):
        registers, spills = _read(text)
        spilling += sum(spills.values())
        print(f"{source.name:22} sm_{arch:4} {len(registers):7} {max(registers.values()):16} {sum(spills.values()):12}")
        for name, size in spills.items():
            if size:
                print(f"    {name}: {size} bytes")
    print(f"log: {log}")
    return 1 if spilling else 0


def _compile(nvcc: str, source: Path, arch: str, folder: Path) -> str:
    flags = ["-std=c++20", "-O3", "-Xptxas=-v", f"-gencode=arch=compute_{arch},code=sm_{arch}"]
    command = [nvcc, *flags, "-c", str(source), "-o", str(folder / f"{source.stem}_{arch}.o")]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}\n{result.stderr}")
    return result.stderr


def _read(text: str) -> tuple[dict[str, int], dict[str, int]]:
    """Registers and spilled bytes of each kernel."""
    registers: dict[str, int] = {}
    spills: dict[str, int] = defaultdict(int)
    kernel = ""
    for line in text.splitlines():
        if entry := _ENTRY.search(line):
            kernel = entry[1]
        elif spill := _SPILLS.search(line):
            spills[kernel] += int(spill[1]) + int(spill[2])
        elif used := _REGISTERS.search(line):
            registers[kernel] = int(used[1])
    return registers, spills


if __name__ == "__main__":
    sys.exit(main())
