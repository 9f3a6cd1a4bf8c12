"""Chooses the DALI wheel and builds csrc/ into two plain shared libraries; every other setting is in pyproject.toml.

What the environment can say:
    CXX                   C++ compiler (default g++, then c++)
    TIN_CUDA=0 | 1        leave the CUDA kernels out | make their absence an error
    TORCH_CUDA_ARCH_LIST  GPU architectures, in PyTorch's syntax, as "9.0" or "8.0;9.0+PTX"
    CUDA_HOME             where nvcc is, in bin/
    TIN_DALI_CUDA=12|13   CUDA release of the DALI wheel (default: that of the installed PyTorch)
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
LIBRARIES = ROOT / "tin" / "lib"
ARCHITECTURES = "8.0;8.6;8.9;9.0;10.0+PTX"
NAMED_ARCHITECTURES = {  # PyTorch's names
    "Ampere": "8.0;8.6+PTX",
    "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX",
    "Blackwell": "10.0;12.0+PTX",
}
# Oldest LibTorch the libraries load into: two digits each for major, minor, patch (torch/headeronly/version.h)
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020b000000000000"
SIMD_LEVELS = {
    "generic": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"],
}


ONNX = [  # what `tin-cli export --format onnx` needs
    "onnx>=1.19",
    "onnxscript>=0.5.4",
    "onnxruntime>=1.23",
]


class BuildError(Exception):
    """A library cannot be built here; the message says why."""


# ---------------------------------------------------------------------------------------------------------------------
# dependencies


def torch_package() -> Path:
    """Folder of the installed PyTorch."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuildError("PyTorch is not installed: install it first and pass --no-build-isolation")
    return Path(spec.origin).parent


def torch_cuda() -> str | None:
    """CUDA release PyTorch was built for, as "13.0", without importing it; None for a build without CUDA."""
    cuda: str | None = runpy.run_path(str(torch_package() / "version.py"))["cuda"]
    return cuda


def dali_requirement(cuda_major: str) -> str:
    return {"12": "nvidia-dali-cuda120>=2.0", "13": "nvidia-dali-cuda130>=2.4"}[cuda_major]


def dali_cuda() -> str:
    """CUDA major release of the DALI wheel. Both wheels install into nvidia/dali, so there must never be two."""
    chosen = os.environ.get("TIN_DALI_CUDA")
    if chosen is not None:
        if chosen not in ("12", "13"):
            raise SystemExit(f"TIN_DALI_CUDA must be 12 or 13, got {chosen!r}")
        return chosen
    try:
        return "12" if (torch_cuda() or "").startswith("12.") else "13"
    except BuildError:
        return "13"


# ---------------------------------------------------------------------------------------------------------------------
# compilers


def cpu_library(folder: Path) -> tuple[list[list[str]], list[str]]:
    """Commands that compile, and the one that links, libtin_cpu.so with objects in `folder`."""
    compiler = host_compiler()
    flags = [*compiler, "-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
    objects, commands = [], []
    for source in ("register_cpu", "register_join_cpu", "register_norm_cpu", "register_nets_cpu", "cpu_level"):
        objects.append(str(folder / f"{source}.o"))
        commands.append([*flags, *torch_headers(), "-c", f"csrc/{source}.cpp", "-o", objects[-1]])
    # no contraction to fused multiply-adds: every processor gives the same bits, and memory is the limit anyway
    flags.append("-ffp-contract=off")
    levels = SIMD_LEVELS if is_x86_64(compiler) else {"generic": []}
    for source in ("interlace", "join", "norm", "fold"):
        for level, extra in levels.items():
            objects.append(str(folder / f"{source}_{level}.o"))
            commands.append([*flags, *extra, f"-DTIN_LEVEL={level}", "-c", f"csrc/{source}_cpu.cpp", "-o", objects[-1]])
    return commands, [*compiler, "-shared", *objects, *torch_libraries()]


def cuda_library(folder: Path) -> tuple[list[list[str]], list[str]]:
    """Likewise libtin_cuda.so."""
    compiler, nvcc = host_compiler(), find_nvcc()
    flags = ["-std=c++20", "-O3"]
    host = ["-fPIC", "-fvisibility=hidden"]
    headers = ["-Wall", "-Wextra", *torch_headers()]
    through = ["-ccbin", compiler[0], "-Xcompiler", ",".join(host), "--threads", "0", *architecture_flags(nvcc)]
    objects, commands = [], []
    for source in ("register_cuda.cpp", "register_residual_cuda.cpp", "interlace_cuda.cu", "residual_cuda.cu"):
        objects.append(str(folder / f"{source}.o"))
        compile_ = [nvcc, *flags, *through] if source.endswith(".cu") else [*compiler, *flags, *host, *headers]
        commands.append([*compile_, "-c", f"csrc/{source}", "-o", objects[-1]])
    runtime = [f"-L{cuda_runtime(nvcc).parent}", "-lcudart_static", "-lrt", "-ldl", "-lpthread"]
    return commands, [*compiler, "-shared", *objects, *runtime, *torch_libraries()]


def host_compiler() -> list[str]:
    for candidate in [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "c++"]:
        words = candidate.split()
        if shutil.which(words[0]):
            return [str(shutil.which(words[0])), *words[1:]]
    raise BuildError(f"no C++ compiler: {os.environ.get('CXX') or 'g++'} is not there; install one or set CXX")


def is_x86_64(compiler: list[str]) -> bool:
    target = subprocess.run([*compiler, "-dumpmachine"], capture_output=True, text=True).stdout
    return target.startswith("x86_64")


def torch_headers() -> list[str]:
    return [STABLE_ABI, "-isystem", str(torch_package() / "include")]


def torch_libraries() -> list[str]:
    # Not libtorch_cuda: the library would not load where PyTorch has no CUDA. Not libtorch_python: no Python ABI.
    return [f"-L{torch_package() / 'lib'}", "-ltorch_cpu", "-lc10"]


def find_nvcc() -> str:
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    for candidate in [*(f"{home}/bin/nvcc" for home in homes), "nvcc", "/usr/local/cuda/bin/nvcc"]:
        if shutil.which(candidate):
            return str(shutil.which(candidate))
    raise BuildError("no nvcc: install the CUDA toolkit or set CUDA_HOME")


def cuda_runtime(nvcc: str) -> Path:
    """The static CUDA runtime of nvcc's toolkit, which nvcc itself names: what is on PATH may be a script."""
    spoken = subprocess.run([nvcc, "--dryrun", "-c", "x.cu"], capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.+?)\s*$", spoken, re.MULTILINE)
    toolkit = Path(top[1]) if top else Path(nvcc).resolve().parent.parent
    for folder in ("lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib"):
        if (toolkit / folder / "libcudart_static.a").is_file():
            return toolkit / folder / "libcudart_static.a"
    raise BuildError(f"no libcudart_static.a in the CUDA toolkit {toolkit}")


def architecture_flags(nvcc: str) -> list[str]:
    """-gencode flags for TORCH_CUDA_ARCH_LIST, or for the default list as far as this nvcc knows it."""
    wanted = os.environ.get("TORCH_CUDA_ARCH_LIST")
    known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True).stdout.split()
    flags = []
    for name in re.split(r"[;,\s]+", expand_names(wanted or ARCHITECTURES).strip()):
        match = re.fullmatch(r"(\d+)\.(\d[af]?)(\+PTX)?", name)
        if match is None:
            raise SystemExit(f'TORCH_CUDA_ARCH_LIST: {name!r} is no architecture; write as "9.0" or "8.0;9.0+PTX"')
        number = match[1] + match[2]
        if not wanted and f"compute_{number}" not in known:
            continue
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if match[3]:
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def expand_names(architectures: str) -> str:
    for name, numbers in NAMED_ARCHITECTURES.items():
        architectures = re.sub(rf"\b{name}\b(\+PTX)?", numbers, architectures)
    return architectures


def check_cuda_is_wanted() -> None:
    """Raises where the CUDA kernels could be built but never used."""
    cuda = torch_cuda()
    if cuda is None:
        raise BuildError("this PyTorch was built without CUDA")
    release = re.search(
        r"release (\d+)\.", subprocess.run([find_nvcc(), "--version"], capture_output=True, text=True).stdout
    )
    if release and release[1] != cuda.split(".")[0]:
        raise BuildError(f"nvcc is of CUDA {release[1]} and PyTorch of CUDA {cuda}: a driver may not run both")


# ---------------------------------------------------------------------------------------------------------------------
# the build


def build(name: str, commands_for: object) -> Path:
    """Brings tin/lib/`name` up to date and returns its path; raises BuildError, leaving no outdated library behind."""
    target = LIBRARIES / name
    recipe = ROOT / "build" / f"{name}.json"  # the commands the library was made with, to see when they change
    try:
        with tempfile.TemporaryDirectory() as folder:
            compile_commands, link_command = commands_for(Path(folder))  # type: ignore[operator]
            text = json.dumps([*compile_commands, link_command], indent=1).replace(folder, "")
            if up_to_date(target) and recipe.is_file() and recipe.read_text() == text and record_of(target).is_file():
                print(f"{name} is up to date", file=sys.stderr)
                return target
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(run, compile_commands))
            LIBRARIES.mkdir(exist_ok=True)
            part = str(LIBRARIES / f".{name}.part")
            run([*link_command, "-o", part])
            record_of(target).write_text(json.dumps(described(compile_commands)) + "\n")
            os.replace(part, target)  # a process that has the old library mapped keeps it
            recipe.parent.mkdir(exist_ok=True)
            recipe.write_text(text)
    except BuildError:
        remove(target)
        raise
    return target


def record_of(library: Path) -> Path:
    """The file beside a library that says what it was built for; `tin-cli info` shows it."""
    return library.with_name(f"{library.name}.json")


def described(commands: list[list[str]]) -> dict[str, object]:
    """What compile commands make: the oldest LibTorch it loads into, and GPU architectures in the syntax of TORCH_CUDA_ARCH_LIST."""
    digits = re.search(r"0x(\w\w)(\w\w)", STABLE_ABI)
    assert digits is not None
    record: dict[str, object] = {"stable_abi": ".".join(str(int(part, 16)) for part in digits.groups())}
    names: dict[str, None] = {}
    for flag in (flag for command in commands for flag in command):
        if match := re.fullmatch(r"-gencode=arch=compute_\w+,code=(sm|compute)_(\d+)(\d[af]?)", flag):
            number = f"{match[2]}.{match[3]}"
            if match[1] == "compute":  # follows the machine code of the same number
                del names[number]
                number += "+PTX"
            names[number] = None
    return record | ({"architectures": list(names)} if names else {})


def remove(library: Path) -> None:
    library.unlink(missing_ok=True)
    record_of(library).unlink(missing_ok=True)


def up_to_date(target: Path) -> bool:
    sources = [Path(__file__), *(ROOT / "csrc").iterdir()]
    return target.is_file() and target.stat().st_mtime >= max(source.stat().st_mtime for source in sources)


def run(command: list[str]) -> None:
    print(" ".join(command), file=sys.stderr)
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError as error:
        raise BuildError(f"{command[0]} does not start: {error}") from error
    if result.returncode != 0:
        raise BuildError(f"{' '.join(command)}\nended with {result.returncode}:\n{result.stdout}{result.stderr}")


def cuda_switch() -> str:
    switch = os.environ.get("TIN_CUDA", "")
    if switch not in ("", "0", "1"):
        raise SystemExit(f"TIN_CUDA must be 0 or 1, got {switch!r}")
    return switch


class BuildLibraries(build_ext):
    """Builds into tin/lib/, where an editable install finds the libraries, and copies them into a wheel."""

    def run(self) -> None:
        built = []
        try:
            built.append(build("libtin_cpu.so", cpu_library))
        except BuildError as error:
            self._report(
                f"the CPU kernels were not built: {error}", "run their PyTorch reference, several times slower"
            )
        switch = cuda_switch()
        try:
            if switch == "0":
                remove(LIBRARIES / "libtin_cuda.so")
            else:
                if switch != "1":
                    check_cuda_is_wanted()
                built.append(build("libtin_cuda.so", cuda_library))
        except BuildError as error:
            if switch == "1":
                raise SystemExit(f"TIN_CUDA=1, but the CUDA kernels were not built: {error}") from error
            self._report(f"the CUDA kernels were not built: {error}", "run the PyTorch reference on GPUs")
        if self.inplace or self.editable_mode:
            return
        folder = Path(self.build_lib) / "tin" / "lib"
        shutil.rmtree(folder, ignore_errors=True)  # build_py copies whatever an earlier build left in the source tree
        folder.mkdir(parents=True)
        for library in built:
            shutil.copy2(library, folder)
            shutil.copy2(record_of(library), folder)

    def get_outputs(self) -> list[str]:
        return [str(path) for path in (Path(self.build_lib) / "tin" / "lib").glob("*.so*")]

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    def _report(self, what: str, consequence: str) -> None:
        print(f"\nWARNING: {what}\nThe installation works, but will {consequence}.\n", file=sys.stderr)


class AnyPythonWheel(bdist_wheel):
    """The libraries hold no Python ABI: one wheel serves every Python of a platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    # never imported as an extension: its presence makes setuptools run BuildLibraries and tag the wheel with a platform
    # (and `depends` puts the sources into an sdist)
    ext_modules=[Extension("tin.lib", sources=[], depends=[f"csrc/{path.name}" for path in (ROOT / "csrc").iterdir()])],
    cmdclass={"build_ext": BuildLibraries, "bdist_wheel": AnyPythonWheel},
    install_requires=[
        "torch>=2.11",  # the stable ABI that csrc/ is built for
        "torchvision>=0.26",
        "numpy>=2.0",
        "safetensors>=0.5",
        "av>=17.1",  # reads one stream and leaves the others (Stream.discard)
        "click>=8.1",
        "rich>=13",
        "pydantic>=2.7",
        "tensorboard>=2.16",
        "matplotlib>=3.8",
        "pillow>=10",
        "filelock>=3.12",
        dali_requirement(dali_cuda()),
    ],
    extras_require={
        "cuda12": [dali_requirement("12")],  # set TIN_DALI_CUDA=12 as well, so that the other wheel stays away
        "export": ONNX,
        "test": [
            *ONNX,
            "pytest>=8",
            "pytest-timeout>=2.3",
            "hypothesis>=6.100",
            "scikit-learn>=1.5",
            "psutil>=6",
            "selenium>=4.20",  # tests of the report open it in Chromium, where that is installed
            "jsonschema>=4.20",
            "sybil>=9",  # runs the examples of docs/python
            "trustme>=1.1",  # certificates for the HTTPS servers of the tests
            "ruff>=0.6",
            "mypy>=1.11",
            "types-setuptools",
        ],
    },
)
