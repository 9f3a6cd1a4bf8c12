"""`tin-cli train` and `tin-cli test` as a user types them, on real encoded videos."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import REPOSITORY

Cli = Callable[..., Any]
SMALL = [
    "--recipe", "tin_motion", "--arch", "tin_resnet18", "--num-classes", "2", "--batch-size", "8", "--device", "cpu",
    "--set", "data.input_size=32", "--set", "data.short_side=40",
]  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fights(real_videos: Path, tin_cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of the real labelled clips, made by the documented command."""
    out = tmp_path_factory.mktemp("fights")
    result = tin_cli("data", "prepare", "folder", real_videos / "fights", "--out", out, "--val", "0.25")
    assert result.status == 0, result.err
    return out


@pytest.fixture(scope="module")
def run_dir(fights: Path, tin_cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training run on them."""
    work_dir = tmp_path_factory.mktemp("runs") / "fights"
    result = tin_cli(
        "train", *SMALL, "--data", fights, "--work-dir", work_dir, "--epochs", "2", "--set", "train.validate_every=1"
    )
    assert result.status == 0, result.err
    assert "epoch 2/2" in result.out
    assert "validation: top-1" in result.out
    assert "tensorboard --logdir" in result.out
    return work_dir


def test_training_leaves_what_the_readme_says(run_dir: Path) -> None:
    assert {"last.pt", "best.pt", "recipe.json", "log.jsonl", "tensorboard"} <= {p.name for p in run_dir.iterdir()}


def test_testing_scores_every_video_once_at_any_world_size(
    run_dir: Path, fights: Path, cli: Cli, tin_cli: Cli, tmp_path: Path
) -> None:
    results = []
    # by default the list that the run was validated on
    for call, processes, data in ((cli, 1, []), (tin_cli, 2, ["--data", fights])):
        out = tmp_path / f"{processes}.json"
        result = call(
            "test", "--checkpoint", run_dir / "last.pt", *data, "--out", out, "--device", "cpu",
            "--nproc-per-node", processes, "--eval", "top_k_accuracy,mean_class_accuracy",
        )  # fmt: skip
        assert result.status == 0, result.err
        assert "15 of 15 videos scored, 0 failed" in result.out or "14 of 14" in result.out or "16 of 16" in result.out
        results.append(json.loads(out.read_text()))
    one, two = results
    assert one["videos"] == two["videos"]
    assert one["metrics"] == pytest.approx(two["metrics"])
    assert set(one["metrics"]) == {"top1_acc", "mean_class_accuracy"}
    assert one["label_names"] == ["fight", "nofight"]
    assert len(one["scores"]) == one["coverage"]["expected"] == one["coverage"]["scored"]
    assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in one["scores"])
    torch.testing.assert_close(torch.tensor(one["scores"]), torch.tensor(two["scores"]), rtol=1e-4, atol=1e-5)


def test_a_prepared_model_scores_the_same(run_dir: Path, fights: Path, cli: Cli, tin_cli: Cli, tmp_path: Path) -> None:
    results = []
    for call, name, fast in ((cli, "eager", []), (tin_cli, "fast", ["--fast"])):
        out = tmp_path / f"{name}.json"
        result = call(
            "test", "--checkpoint", run_dir / "last.pt", "--data", fights, "--out", out, "--device", "cpu", *fast,
            "--set", "data.test_crop=three",
        )  # fmt: skip
        assert result.status == 0, result.err
        results.append(json.loads(out.read_text()))
    eager, fast_result = results
    assert "--fast" in fast_result["command"]
    assert fast_result["coverage"] == eager["coverage"]
    torch.testing.assert_close(torch.tensor(fast_result["scores"]), torch.tensor(eager["scores"]), rtol=1e-4, atol=1e-5)


def test_unreadable_videos_are_reported_by_name_and_not_fatal(
    run_dir: Path, real_videos: Path, tin_cli: Cli, tmp_path: Path
) -> None:
    codecs = real_videos / "codecs"
    names = [
        "k400_SOX5yA1l24A.mp4",
        "corrupted.mp4",
        "audio_only_nasa.mp3",
        "ssv2_id166766_webm_named_mp4.mp4",
        "gone.mp4",
        "rot_90.mov",
    ]
    (tmp_path / "list.txt").write_text("".join(f"{name} 1\n" for name in names))
    result = tin_cli(
        "test", "--checkpoint", run_dir / "last.pt", "--list", tmp_path / "list.txt", "--root", codecs, "--out", tmp_path / "r.json",
        "--device", "cpu",
    )  # fmt: skip
    assert result.status == 0, result.err
    coverage = json.loads((tmp_path / "r.json").read_text())["coverage"]
    failed = {failure["id"]: failure["reason"] for failure in coverage["failures"]}
    assert {"audio_only_nasa.mp3", "gone.mp4"} <= set(failed) <= {"audio_only_nasa.mp3", "gone.mp4", "corrupted.mp4"}
    assert coverage["scored"] + coverage["failed"] == coverage["expected"] == 6
    assert all(name in result.err for name in failed)


def test_a_mistake_in_one_process_of_several_ends_them_all(fights: Path, tin_cli: Cli, tmp_path: Path) -> None:
    result = tin_cli(
        "train", *SMALL, "--data", fights, "--num-classes", "3", "--work-dir", tmp_path / "x", "--nproc-per-node", "2"
    )
    assert result.status == 2, result.err
    assert "names 2 classes, the model has 3" in result.err
    assert "Traceback" not in result.err


def test_ctrl_c_saves_and_resume_goes_on(fights: Path, tin_cli: Cli, tmp_path: Path) -> None:
    work_dir = tmp_path / "interrupted"
    command = [
        "train",
        *SMALL,
        "--data",
        str(fights),
        "--work-dir",
        str(work_dir),
        "--no-validate",
        "--set",
        "train.log_every=1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "cli.main", *command, "--epochs", "500"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "step 2/" in line:
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "--resume goes on from there" in err
    assert "Traceback" not in err
    done = torch.load(work_dir / "last.pt", weights_only=True)["progress"]
    assert done["global_step"] >= 2
    resumed = tin_cli(*command, "--epochs", done["epoch"] + 1, "--resume")
    assert resumed.status == 0, resumed.err
    assert f"at epoch {done['epoch'] + 1}, step {done['step'] + 1}" in resumed.out


def test_tensorboard_serves_the_run_over_http(run_dir: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", str(run_dir), "--port", str(port), "--host", "127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        base = f"http://127.0.0.1:{port}/data/plugin/scalars"
        tags: dict[str, Any] = {}
        deadline = time.monotonic() + 90
        while not tags and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{base}/tags", timeout=5) as answer:
                    tags = json.load(answer)
            except OSError:
                pass
            if not tags:
                time.sleep(0.5)
        names = set(tags["tensorboard"])
        assert {
            "train/loss",
            "train/lr",
            "speed/clips_per_second",
            "speed/data_wait",
            "system/memory_mb",
            "val/top1_acc",
        } <= names
        with urllib.request.urlopen(f"{base}/scalars?run=tensorboard&tag=train/loss", timeout=10) as answer:
            served = [(point[1], point[2]) for point in json.load(answer)]
    finally:
        server.terminate()
        server.wait(30)
    events = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    logged = [(event["global_step"], event["loss"]) for event in events if event["event"] == "step"]
    assert served == [(step, pytest.approx(loss, rel=1e-5)) for step, loss in logged]
