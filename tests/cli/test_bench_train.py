"""`tin-cli bench train` and `bench scaling` as a user runs them: real videos, real processes, a table, words and a file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Result
from tin import build_model

Cli = Callable[..., Result]
SMALL = ("--set", "data.input_size=32", "--set", "model.num_segments=2", "--device", "cpu")


@pytest.fixture
def fights(tmp_path: Path, real_videos: Path) -> tuple[Path, Path]:
    """A list of eight real videos, and its root."""
    root = real_videos / "fights"
    files = [*sorted((root / "fight").iterdir())[:4], *sorted((root / "nofight").iterdir())[:4]]
    lines = [f"{file.relative_to(root)} {int(file.parent.name == 'nofight')}\n" for file in files]
    (tmp_path / "train.txt").write_text("".join(lines))
    return tmp_path / "train.txt", root


@pytest.mark.slow
def test_training_from_real_videos_is_measured_and_its_limit_named(
    tin_cli: Cli, tmp_path: Path, fights: tuple[Path, Path]
) -> None:
    path, root = fights
    out = tmp_path / "train.json"
    result = tin_cli(
        "bench", "train", *SMALL, "--train-list", path, "--root", root, "--num-classes", 2, "--batch-size", 2,
        "--workers", 1, "--steps", 3, "--runs", 2, "--out", out,
    )  # fmt: skip
    assert (result.status, result.err) == (0, "")
    record = json.loads(out.read_text())
    assert record["command"].startswith("tin-cli bench train --set")
    assert record["versions"]["tin"]
    assert record["machine"]["keeps_freed_memory"]
    measured = record["results"]["train"]
    assert [line["name"] for line in measured["rows"]] == ["end to end", "loader alone", "model alone"]
    assert all(line["samples"] == 2 and line["name"] in result.out for line in measured["rows"])
    settings = measured["settings"]
    assert (settings["videos"], settings["workers"], settings["steps"], settings["batch_size"]) == (8, 1, 3, 2)
    assert settings["list"] == str(path)
    assert settings["omp_wait_policy"] == "passive"  # as tin-cli train sets it
    assert settings["frames_decoded_per_used"] > 1  # these files have long groups of pictures
    assert measured["verdict"]["limit"] in ("loader", "model", "both")
    assert measured["verdict"]["words"] in result.out


def test_training_needs_labels(cli: Cli, fights: tuple[Path, Path]) -> None:
    path, root = fights
    path.write_text("".join(line.rpartition(" ")[0] + "\n" for line in path.read_text().splitlines()))
    result = cli("bench", "train", *SMALL, "--train-list", path, "--root", root)
    assert result.status == 2
    assert "training needs 'path label' in every line" in result.err


def test_a_prediction_prints_its_table_for_the_recipe_asked_for(cli: Cli) -> None:
    result = cli("bench", "scaling", "--predict", "--arch", "tin_resnet18", "--batch-size", "4",
                 "--clips-per-second", "1000")  # fmt: skip
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].count("GPUs of 1000 clips/s") == 3
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["4"] * 8 + ["32"] * 8
    parts = [float(cell.removesuffix(" % ")) for line in lines[2:] for cell in line.split("|")[4:7]]
    assert all(0 < part <= 100 for part in parts)


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two processes need two cores")
def test_scaling_is_measured_over_real_processes(tin_cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "scaling.json"
    result = tin_cli("bench", "scaling", *SMALL, "--batch-size", 2, "--max-processes", 2, "--steps", 1, "--runs", 1,
                     "--out", out)  # fmt: skip
    assert (result.status, result.err) == (0, "")
    measured = json.loads(out.read_text())["results"]["scaling"]
    one, two = measured["rows"]
    assert (one["name"], two["name"]) == ("1 process", "2 processes")
    assert one["ratio"] == one["machine_efficiency"] == one["exchange_efficiency"] == 1.0
    assert one["exchange_alone_ms"] == one["exchange_ms"] == 0.0
    assert two["exchange_alone_ms"] > 0
    assert two["samples"] == 2  # one a start
    assert f"{two['median']:.4g}" in result.out
    settings = measured["settings"]
    assert (settings["threads_a_process"], settings["backend"], settings["starts"]) == (1, "gloo", 2)
    assert settings["gradient_bytes"] == 4 * sum(p.numel() for p in build_model("tin_resnet18", 8, 2).parameters())
    (compared,) = measured["model"]
    assert compared["predicted_step_ms"]["overlap"] <= compared["predicted_step_ms"]["no_overlap"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--steps", "0"], "--steps"),
        (["train", "--dataset", "k400", "--data", "."], "train.txt"),
        (["train", "--recipe", "tin_moton"], "tin_motion"),
        (["train", "--out", "nowhere/x.json"], "there is no folder"),
        (["train", "data"], "unexpected extra argument (data)"),
        (["train", "--device", "tpu", "--train-list", "train.txt"], "--device tpu"),
        (["train", "--set", "train.bach_size=4"], "batch_size"),
        (["scaling", "--max-processes", "4096"], "4096 processes: this machine has"),
        (["scaling", "--max-processes", "1"], "--max-processes"),
        (["scaling", "--out", "nowhere/x.json"], "there is no folder"),
    ],
)
def test_a_mistake_is_one_clear_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.txt").write_text("a.mp4 0\n")
    (tmp_path / "elsewhere").mkdir()
    result = cli("bench", *arguments)
    assert result.status == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
