"""AOTInductor packages: from Python, and from the C++ example, compiled and run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.tin.networks import trained_looking
from tests.tin.test_export import cut
from tin import _native, ops
from tin.export import describe, export, read_metadata
from tin.models import TemporalResNet

SIZE = (32, 48)
COMPILER = shutil.which("g++") or shutil.which("c++")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason="no C++ compiler"),
    pytest.mark.skipif(not ops.has_native("cpu"), reason=f"no compiled op: {ops.backend().cpu_reason}"),
]


@pytest.fixture(scope="module")
def network() -> TemporalResNet:
    return cut(trained_looking("tin_resnet18", num_classes=3, num_segments=4))  # deeper takes longer to compile


@pytest.fixture(scope="module")
def package(network: TemporalResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "tin.pt2"
    assert export(network, path, "aoti", size=SIZE).difference <= 1e-4
    return path


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.randn(5, 4, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def scores(network: TemporalResNet, frames: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network(frames.flatten(0, 1)).softmax(1)


def test_a_new_python_needs_the_op_and_nothing_else_of_the_network(
    package: Path, frames: torch.Tensor, scores: torch.Tensor, tmp_path: Path
) -> None:
    torch.save(frames, tmp_path / "frames.pt")
    code = (
        "import sys, torch, tin.ops\n"
        "model = torch._inductor.aoti_load_package(sys.argv[1])\n"
        "logits = model(torch.load(sys.argv[2]))\n"
        "assert 'tin.models' not in sys.modules\n"
        "torch.save(logits, sys.argv[3])\n"
    )
    command = [sys.executable, "-c", code, package, tmp_path / "frames.pt", tmp_path / "logits.pt"]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt").softmax(1), scores, rtol=0, atol=1e-5)


def test_its_metadata_is_there_for_python_and_for_programs_without_a_json_reader(
    package: Path, network: TemporalResNet
) -> None:
    assert read_metadata(package) == describe(network, SIZE)
    plain = torch._inductor.aoti_load_package(str(package)).get_metadata()
    assert (plain["num_segments"], plain["height"], plain["width"]) == ("4", "32", "48")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """docs/cpp, built as docs/export.md says where there is CMake, else by the compiler alone."""
    out = tmp_path_factory.mktemp("cpp")
    torch_folder = Path(torch.__path__[0])
    if shutil.which("cmake"):
        configure = ["cmake", "-S", REPOSITORY / "docs" / "cpp", "-B", out, f"-DTORCH={torch_folder}"]
        commands = [configure, ["cmake", "--build", out]]
    else:
        libraries = [
            f"-L{torch_folder}/lib",
            f"-Wl,-rpath,{torch_folder}/lib",
            "-Wl,--no-as-needed",
            "-ltorch",
            "-ltorch_cpu",
            "-lc10",
            "-ldl",
        ]
        source = REPOSITORY / "docs" / "cpp" / "main.cpp"
        commands = [[COMPILER, "-std=c++20", source, f"-I{torch_folder}/include", *libraries, "-o", out / "tin_run"]]
    for command in commands:
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    return out / "tin_run"


def test_prints_the_network_s_classes(
    program: Path, package: Path, frames: torch.Tensor, scores: torch.Tensor, tmp_path: Path
) -> None:
    clips = tmp_path / "clips.f32"
    clips.write_bytes(frames.numpy().tobytes())
    ran = subprocess.run(
        [program, package, clips, _native.LIBRARY_DIR / "libtin_cpu.so"], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    parts = ran.stdout.split("clip ")[1:]
    assert len(parts) == len(frames)
    for expected, part in zip(scores, parts, strict=True):
        printed = {int(number): float(score) for score, number in re.findall(r"([\d.]+)  class (\d+)", part)}
        assert list(printed) == expected.argsort(descending=True).tolist()
        assert [printed[number] for number in range(3)] == pytest.approx(expected.tolist(), abs=1e-5)


def test_names_a_library_or_clips_that_are_wrong(program: Path, package: Path, tmp_path: Path) -> None:
    library, clips = _native.LIBRARY_DIR / "libtin_cpu.so", tmp_path / "clips.f32"
    clips.write_bytes(b"\0" * 100)
    for arguments, words in {
        (package, clips, tmp_path / "none.so"): "none.so: cannot open shared object file",
        (package, clips, library): "clips.f32 holds no whole number of clips of 4 frames of 3x32x48",
        (package, tmp_path / "no.f32", library): "cannot open",
    }.items():
        ran = subprocess.run([program, *arguments], capture_output=True, text=True)
        assert ran.returncode == 1
        assert words in ran.stderr
