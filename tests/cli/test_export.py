"""`tin-cli export` as a user types it: files that run on real videos, what they say of themselves, and one line for every mistake."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.tin.networks import NAMES, trained_file, trained_looking
from tin.export import read_metadata

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_file(tmp_path_factory.mktemp("checkpoint"), "data.mean=[100.0, 110.0, 120.0]")


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "tin.onnx"
    command = [sys.executable, "-m", "cli.main", "export", checkpoint, path, "--format", "onnx"]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    first, second = ran.stdout.splitlines()
    assert re.fullmatch(
        r".*/tin\.onnx: onnx, 4\d,\d{3},\d{3} bytes: tin_resnet18, float32, clips of 4 frames of 32×32, 3 classes",
        first,
    )
    assert re.fullmatch(
        r"largest difference from the network at 1, 3 and 8 clips: \d(\.\d)?e-0[5-9] in a logit", second
    )
    assert [found.name for found in path.parent.iterdir()] == ["tin.onnx"]
    return path


def test_an_onnx_file_says_all_that_its_input_needs(exported: Path, checkpoint: Path) -> None:
    about = read_metadata(exported)
    assert about["labels"] == NAMES
    assert about["checkpoint"] == {
        "file": "best.pt", "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(), "weights": "raw",
    }  # fmt: skip
    how = about["preprocessing"]
    assert (how["mean"], how["short_side"], how["crop"]) == ([100.0, 110.0, 120.0], 40, "center")
    assert how["sampling"] == "test"
    assert about["input"]["shape"] == ["clips", 4, 3, 32, 32]
    assert set(about["versions"]) >= {"tin", "torch", "onnx", "onnxscript"}


def test_the_example_of_the_documentation_says_what_predict_says(
    cli: Cli, exported: Path, checkpoint: Path, real_videos: Path
) -> None:
    for name in ("hmdb51_SchoolRules_wave.avi", "odd321x241_vp9.mp4"):
        video = real_videos / "codecs" / name
        predicted = cli("predict", video, "--checkpoint", checkpoint, "--json")
        assert predicted.status == 0, predicted.err
        expected = {one["label"]: one["score"] for one in json.loads(predicted.out)["top"]}
        example = [sys.executable, REPOSITORY / "docs" / "onnx" / "predict.py", exported, video]
        ran = subprocess.run(example, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        printed = {line[8:]: float(line[:5]) / 100 for line in ran.stdout.splitlines()}
        assert printed == pytest.approx(expected, abs=0.01)  # frames are uint8 there after the resize, float here


def test_a_program_of_another_size_takes_that_size(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "tin.pt2"
    result = cli("export", checkpoint, path, "--format", "torch-export", "--size", "48x32")
    assert (result.status, result.err) == (0, "")
    assert "clips of 4 frames of 48×32" in result.out
    assert read_metadata(path)["input"]["shape"] == ["clips", 4, 3, 48, 32]
    network = trained_looking("tin_resnet18", 3, 4)
    frames = torch.randn(3, 4, 3, 48, 32)
    with torch.no_grad():
        logits = torch.export.load(path).module()(frames)
        torch.testing.assert_close(logits, network(frames.flatten(0, 1)), rtol=0, atol=1e-4)


def test_weights_without_a_recipe_take_a_named_one(cli: Cli, tmp_path: Path) -> None:
    weights, path = tmp_path / "weights.pth", tmp_path / "tin.pt2"
    torch.save({"state_dict": trained_looking("tin_resnet18", 8, 4).state_dict()}, weights)
    result = cli("export", weights, path, "--format", "torch-export")
    assert result.status == 2
    assert "--recipe" in result.err
    named = ("--recipe", "tin_motion", "--set", "model.num_segments=4", "--set", "data.input_size=32")
    result = cli("export", weights, path, "--format", "torch-export", *named)
    assert result.status == 0, result.err
    assert result.out.endswith("no class names: the checkpoint has none\n")
    assert read_metadata(path)["labels"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tin.pt2", "--format", "onnx"), "tin.pt2: this format is written to a file that ends in .onnx"),
        (("tin.onnx",), "Missing option '--format'"),
        (("tin.onnx", "--format", "onnx", "--size", "big"), "'big' is no size: give a side as 224"),
        (("tin.onnx", "--format", "onnx", "--size", "4"), "frames of 4×4 cannot be"),
        (("gone/tin.onnx", "--format", "onnx"), "there is no folder"),
        (
            ("there.onnx", "--format", "onnx"),
            "there.onnx is there already: give another name, or --force to replace it",
        ),
        (("tin.pt2", "--format", "aoti", "--device", "tpu"), "--device tpu: expected auto, cpu, cuda or cuda:N"),
        (("tin.pt2", "--format", "aoti", "--weights", "ema"), "holds no averaged (EMA) weights"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    cli: Cli, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").write_text("mine")
    result = cli("export", checkpoint, *arguments)
    assert (result.status, result.out) == (2, "")
    assert words in result.err
    assert result.err.count("\n") == 1
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("there.onnx", "mine")]
