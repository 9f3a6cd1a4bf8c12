"""`--max-bad`: training and testing stop with status 2 and the list of files, in one process and in several."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tin
from cli._bad import Part
from tests.pipelines.videos import write_video

Cli = Callable[..., Any]
GOOD, BAD = 12, 4
SETTINGS = [
    "--recipe", "tin_motion", "--set", "model.arch=tsn_resnet18", "--set", "model.num_classes=2", "--device", "cpu", "--set",
    "data.input_size=32", "--set", "data.short_side=40", "--set", "train.log_every=1", "--batch-size", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(real_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of good files, and of bad ones that nobody knows before a clip of them is decoded: after 28 of 50 frames they end."""
    folder = tmp_path_factory.mktemp("data")
    names = [write_video(folder / f"{number}.mp4").name for number in range(GOOD)]
    for number in range(BAD):
        names.insert(
            4 * number, shutil.copy(real_videos / "codecs" / "corrupted.mp4", folder / f"bad{number}.mp4").name
        )
    for name in ("train.txt", "val.txt"):
        (folder / name).write_text("".join(f"{name} {number % 2}\n" for number, name in enumerate(names)))
    return folder


@pytest.mark.parametrize(
    ("text", "part"), [("1%", 0.01), ("0.01", 0.01), ("0", 0.0), ("100 %", 1.0), (" 2.5% ", 0.025)]
)
def test_parts_are_percentages_or_fractions(text: str, part: float) -> None:
    assert Part().convert(text, None, None) == pytest.approx(part)


@pytest.mark.parametrize("text", ["2", "-1%", "101%", "nan", "many", "%", ""])
def test_other_parts_are_refused_with_what_is_expected(cli: Cli, text: str) -> None:
    result = cli("train", "--max-bad", text)
    assert result.status == 2
    assert f"'--max-bad': {text!r} is no part: give a percentage as 1%" in result.err


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_training_stops_with_the_list(data: Path, tin_cli: Cli, tmp_path: Path, processes: int) -> None:
    """On two processes neither meets more than are allowed."""
    allowed = BAD - 1
    result = tin_cli(
        "train", *SETTINGS, "--data", data, "--work-dir", tmp_path / "run", "--no-validate", "--epochs", "3",
        "--nproc-per-node", processes, "--max-bad", f"{100 * allowed / (GOOD + BAD)}%",
    )  # fmt: skip
    assert result.status == 2, result.err
    failed = [line for line in result.err.splitlines() if line.startswith("failed: ")]
    assert sorted(line.split(": ")[1] for line in failed) == [f"bad{number}.mp4" for number in range(BAD)]
    assert all("decoding failed after 28 frames" in line for line in failed)
    assert result.err.count(f"error: {BAD} of {GOOD + BAD} videos unreadable") == 1
    assert "at most 18.75 % may be" in result.err
    assert "Traceback" not in result.err


@pytest.mark.slow
def test_training_that_allows_them_goes_on_with_substitutes(data: Path, tin_cli: Cli, tmp_path: Path) -> None:
    result = tin_cli(
        "train", *SETTINGS, "--data", data, "--work-dir", tmp_path / "run", "--no-validate", "--epochs", "1",
        "--max-bad", f"{BAD / (GOOD + BAD)}",
    )  # fmt: skip
    assert result.status == 0, result.err
    assert "epoch 1/1  step 8/8" in result.out


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_testing_stops_with_the_list(data: Path, tin_cli: Cli, tmp_path: Path, processes: int) -> None:
    model = tin.build_model("tsn_resnet18", 2, 8)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "model.pth")
    result = tin_cli(
        "test", *SETTINGS, "--checkpoint", tmp_path / "model.pth", "--data", data, "--nproc-per-node", processes,
        "--max-bad", "1%",
    )  # fmt: skip
    assert result.status == 2, result.err
    assert "failed: bad" in result.err
    # Said once by the process that ran into it, and with several once more where the launcher names the cause.
    assert result.err.count("may be (max_bad, --max-bad)") == processes
    assert "may be (max_bad, --max-bad)" in result.err.splitlines()[-1]
    assert "Traceback" not in result.err
