"""`tin-cli test`: the same result at any number of processes, its views, weights and metrics, and the files that it writes."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from tests.conftest import REPOSITORY
from tests.tin.networks import trained_looking
from tin.checkpoints import save_checkpoint
from tin.evaluation import Result, load_result
from tin.evaluation.schema import json_schema
from tin.recipes import load

Cli = Callable[..., Any]
SMALL = ["model.arch=tin_resnet18", "model.num_classes=2", "model.num_segments=4", "data.input_size=32", "data.short_side=40",
         "train.batch_size=2"]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that looks trained, with averages of its weights that differ from them."""
    network = trained_looking("tin_resnet18", num_classes=2)
    weights = network.state_dict()
    averages = {
        name: value + 0.05 * torch.rand_like(value) for name, value in weights.items() if name.startswith("fc.")
    }
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    recipe = load("tin_motion", SMALL).model_dump(mode="json")
    save_checkpoint(path, {"state_dict": weights, "ema": {"averages": averages}, "recipe": recipe})
    return path


@pytest.fixture(scope="module")
def seven(real_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A list of seven real videos and of two that fail, one of them known to before decoding and the other not."""
    folder = tmp_path_factory.mktemp("list")
    fights = sorted((real_videos / "fights").rglob("*.mp4"), key=lambda path: path.stat().st_size)[:7]
    paths = [
        *fights[:2],
        real_videos / "codecs" / "audio_only_nasa.mp3",
        *fights[2:5],
        real_videos / "codecs" / "corrupted.mp4",
        *fights[5:],
    ]
    (folder / "val.txt").write_text("".join(f"{path} {int('nofight' in str(path))}\n" for path in paths))
    (folder / "labels.txt").write_text("fight\nnofight\n")
    return ["--list", folder / "val.txt"]


def scored(call: Cli, out: Path, checkpoint: Path, *arguments: object) -> Result:
    result = call("test", "--checkpoint", checkpoint, "--device", "cpu", "--workers", "1", "--out", out, *arguments)
    assert result.status == 0, result.err
    return load_result(out)


@pytest.mark.slow
def test_three_processes_give_the_result_of_one_with_ten_crops_of_two_clips(
    cli: Cli, tin_cli: Cli, checkpoint: Path, seven: list[object], tmp_path: Path
) -> None:
    """Seven videos, which 3 does not divide, and two that fail."""
    many = [*seven, "--views", "ten-crop", "--num-clips", "2", "--topk", "1"]
    one = scored(cli, tmp_path / "1.json", checkpoint, *many)
    assert one.views is not None
    assert (one.views.crop, one.views.clips, one.views.views) == ("ten", 2, 20)
    assert (one.coverage.expected, one.coverage.scored, one.coverage.failed) == (9, 7, 2)
    assert [Path(failure.id).name for failure in one.coverage.failures] == ["audio_only_nasa.mp3", "corrupted.mp4"]
    other = scored(tin_cli, tmp_path / "3.json", checkpoint, *many, "--nproc-per-node", 3)
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-6, rtol=0)
    assert other.videos == one.videos
    assert other.metrics == pytest.approx(one.metrics, abs=1e-6)
    assert other.coverage == one.coverage
    assert other.per_class == [pytest.approx(row) if isinstance(row, float) else row for row in one.per_class]
    for name, span in one.intervals.items():
        assert other.intervals[name] == pytest.approx(span, abs=1e-6)


def test_a_result_says_all_that_it_stands_on(cli: Cli, checkpoint: Path, seven: list[object], tmp_path: Path) -> None:
    outs = [tmp_path / "r.json", tmp_path / "r.csv", tmp_path / "r.pkl"]
    arguments = [
        "test",
        "--checkpoint",
        checkpoint,
        "--device",
        "cpu",
        *seven,
        *[part for out in outs for part in ("--out", out)],
    ]
    result = cli(*arguments, "--per-class")
    assert result.status == 0, result.err
    for out in outs:
        assert f"result written to {out}" in result.out
    assert "7 of 9 videos scored, 2 failed" in result.out
    assert re.search(r"^failed: .*audio_only_nasa.mp3: ", result.err, re.MULTILINE)
    assert re.search(r"^top-1 +\d+\.\d\d % +\d+\.\d\d … \d+\.\d\d$", result.out, re.MULTILINE)
    for name in ("mean class accuracy", "balanced accuracy", "mean average precision", "calibration error"):
        assert re.search(rf"^{name} +\d", result.out, re.MULTILINE)
    assert re.search(r"^nofight +\d+\.\d\d % +\d", result.out, re.MULTILINE)
    jsonschema.validate(json.loads(outs[0].read_text()), json_schema())
    read = load_result(outs[0])
    assert read.command == ["tin-cli", *read.command[1:]]
    assert read.recipe is not None
    assert read.recipe["model"]["arch"] == "tin_resnet18"
    assert read.label_names == ["fight", "nofight"]
    assert (read.list_name, read.root) == (str(seven[1]), str(Path(str(seven[1])).parent))
    assert read.created is not None
    assert timedelta(0) <= datetime.now(UTC) - datetime.fromisoformat(read.created) < timedelta(minutes=10)
    assert set(read.metrics) == {
        "top1_acc", "mean_class_accuracy", "balanced_accuracy", "mean_average_precision", "calibration_error",
    }  # fmt: skip
    assert {"tin", "torch"} <= set(read.versions)
    dumped = pickle.loads(outs[2].read_bytes())
    np.testing.assert_array_equal(np.stack([row for row in dumped if row is not None]), read.scores[read.scored])
    assert "2 of its entries are None" in result.err
    assert len(outs[1].read_text().splitlines()) == 10


def test_averaged_weights_are_taken_when_there_are_any_and_the_result_says_which(
    cli: Cli, checkpoint: Path, seven: list[object], tmp_path: Path
) -> None:
    made = {
        kind: scored(cli, tmp_path / f"{kind}.json", checkpoint, *seven, "--eval", "top_k_accuracy", "--weights", kind)
        for kind in ("auto", "ema", "raw")
    }
    said = {kind: result.checkpoint.weights for kind, result in made.items() if result.checkpoint}
    assert said == {"auto": "ema", "ema": "ema", "raw": "raw"}
    np.testing.assert_array_equal(made["auto"].scores, made["ema"].scores)
    assert np.nanmax(np.abs(made["raw"].scores - made["ema"].scores)) > 1e-3


def test_mmaction2_style_averaging_reads_the_scores_as_the_documentation_says(
    cli: Cli, checkpoint: Path, real_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two lines of docs/results.md, on two results of the same list."""
    fights = sorted((real_videos / "fights").rglob("*.mp4"), key=lambda path: path.stat().st_size)[:2]
    (tmp_path / "val.txt").write_text("".join(f"{path} 1\n" for path in fights))
    monkeypatch.chdir(tmp_path)
    for name, average in (("a", "prob"), ("b", "score")):
        scored(cli, Path(f"{name}.json"), checkpoint, "--list", "val.txt", "--average", average, "--out", f"{name}.pkl")
    expected = (load_result("a.json").scores + load_result("b.json").scores) / 2
    text = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(import (?:json|pickle).*?)```", text, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        space: dict[str, Any] = {}
        exec(example, space)
        np.testing.assert_allclose(space["mean"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "clips", "views", "sampling"),
    [
        (["--views", "three-crop"], 1, 3, "test"),
        (["--num-clips", "3"], 3, 3, "test"),
        (["--twice"], 2, 2, "twice"),
        (["--twice", "--num-clips", "2"], 2, 2, "twice"),
        (["--dense", "--num-clips", "2"], 2, 2, "dense_test"),
        (["--dense"], 10, 10, "dense_test"),
    ],
)
def test_options_name_the_views(
    cli: Cli,
    checkpoint: Path,
    real_videos: Path,
    tmp_path: Path,
    arguments: list[str],
    clips: int,
    views: int,
    sampling: str,
) -> None:
    (tmp_path / "val.txt").write_text(f"{real_videos}/fights/fight/fi002.mp4 1\n")
    made = scored(cli, tmp_path / "r.json", checkpoint, "--list", tmp_path / "val.txt", *arguments)
    assert made.views is not None
    assert (made.views.clips, made.views.views, made.views.sampling) == (clips, views, sampling)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--twice --dense", "--twice and --dense are two ways to choose frames"),
        ("--twice --num-clips 3", "--twice takes 2 clips of a video, not --num-clips 3"),
        (
            "--views ten-crop --set data.test_crop=center",
            "--views and --set data.test_crop=center say the same thing twice",
        ),
        ("--dense --set data.test_clips=3", "--dense and --set data.test_clips=3 say the same thing twice"),
        ("--views five-crop", "'five-crop' is not one of 'center', 'three-crop', 'ten-crop'"),
        ("--num-clips 0", "0 is not in the range"),
        ("--eval accuracy", "unknown metric 'accuracy'; known: top_k_accuracy, mean_class"),
        ("--eval time_order_accuracy", "time_order_accuracy needs reversals.txt beside"),
        ("--topk 1,5", "--topk 5: with 2 classes every video is right there"),
        ("--topk none", "'none' are no numbers of classes: give them as 1,5"),
        ("--out result.txt", "result.txt: a result is written as .json, .csv or .pkl"),
        ("--set data.test_sampling=twice --num-clips 3", "test_sampling 'twice' takes 2 clips"),
    ],
)
def test_mistakes_are_said_before_anything_is_scored(
    cli: Cli, checkpoint: Path, seven: list[object], arguments: str, message: str
) -> None:
    result = cli("test", "--checkpoint", checkpoint, "--device", "cpu", *seven, *arguments.split())
    assert result.status == 2
    assert message in result.err
    assert result.out == ""


def test_a_checkpoint_without_averages_has_none_to_give(cli: Cli, seven: list[object], tmp_path: Path) -> None:
    network = trained_looking("tin_resnet18", num_classes=2)
    recipe = load("tin_motion", SMALL).model_dump(mode="json")
    save_checkpoint(tmp_path / "raw.pt", {"state_dict": network.state_dict(), "recipe": recipe})
    result = cli("test", "--checkpoint", tmp_path / "raw.pt", "--device", "cpu", *seven, "--weights", "ema")
    assert result.status == 2
    assert "holds no averaged (EMA) weights" in result.err
