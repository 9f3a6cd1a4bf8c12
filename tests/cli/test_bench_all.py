"""`tin-cli bench all` and `bench compare` as a user runs them: real runs, a part that fails, one that has no time, two results compared."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.cli.conftest import Result
from tests.cli.running import gone, running
from tin.bench.records import read_record, write_record

Cli = Callable[..., Result]
SMALL = ("--arch", "tin_resnet18", "--input-size", "32", "--num-segments", "2", "--runs", "2", "--device", "cpu")


@pytest.fixture(scope="module")
def measured(tin_cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A folder of real results, two runs of inference, unless the machine doubles its speed; training fails for want of labels."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "train.txt").write_text("a.mp4\n")
    out = folder / "speed"
    result = tin_cli(
        "bench", "all", "--out", out, "--quick", "--parts", "train,inference", *SMALL, "--list", folder / "train.txt",
        "--tolerance", "100%",
    )  # fmt: skip
    return out, result


@pytest.mark.slow
def test_a_part_that_fails_loses_no_other_and_the_status_says_it(measured: tuple[Path, Result]) -> None:
    out, result = measured
    assert result.status == 1, result.err
    assert {path.name for path in out.iterdir()} == {
        "inference.json", "all.json", "summary.md", "chart.png", "train.log",
    }  # fmt: skip
    assert "'a.mp4' has no label: training needs 'path label' in every line" in (out / "train.log").read_text()
    whole = json.loads((out / "all.json").read_text())
    assert list(whole["parts"]) == ["inference", "train"]
    assert whole["parts"]["train"]["state"] == "failed"
    assert "'a.mp4' has no label" in whole["parts"]["train"]["reason"]
    assert "train     failed" in result.out
    assert "| train | failed: " in (out / "summary.md").read_text()


@pytest.mark.slow
def test_runs_are_joined_into_a_result_file(measured: tuple[Path, Result]) -> None:
    out, result = measured
    content = read_record(out / "inference.json").content
    runs = content["stability"]["runs"]
    assert runs >= 2, "a number is never judged by one run"
    stable = all(line["unstable"] is None for line in content["results"]["inference"]["rows"])
    assert content["stability"] == {"stable": stable, "runs": runs, "tolerance": 1.0, "failed": None}
    assert f"{'stable' if stable else 'unstable'}, {runs} runs" in result.out
    assert content["command"].startswith("tin-cli bench inference --arch tin_resnet18 --input-size 32")
    assert content["command"].endswith(f"--out {out}/inference.json")
    assert content["part_of"].startswith(f"tin-cli bench all --out {out}")
    assert content["machine"]["cpu"]
    assert content["versions"]["torch"]
    rows = content["results"]["inference"]["rows"]
    assert len(rows) == 5
    text = (out / "summary.md").read_text()
    for line in rows:
        assert line["samples"] == len(line["values"]) == 2 * runs
        assert len(line["run_medians"]) == len(line["run_ratios"]) == runs
        assert (
            min(line["values"]) <= line["interval"][0] <= line["median"] <= line["interval"][1] <= max(line["values"])
        )
        assert f"{line['median']:.4g} ms" in text
        assert line["name"] in result.out
    assert Image.open(out / "chart.png").size[0] == 1000


@pytest.mark.slow
def test_results_are_compared_by_the_command_and_its_status(
    measured: tuple[Path, Result], cli: Cli, tmp_path: Path
) -> None:
    old, _ = measured
    new = tmp_path / "new"
    shutil.copytree(old, new)
    same = cli("bench", "compare", old, new)
    assert (same.status, same.err) == (0, "")
    assert same.out == "5 rows by their figure, threshold 5 %: 0 slower, 0 faster, 0 unclear, 5 the same\n"

    content = read_record(new / "inference.json").content
    row = content["results"]["inference"]["rows"][1]
    for key in ("median", "interval", "run_medians"):
        row[key] = [99 * value for value in row[key]] if isinstance(row[key], list) else 99 * row[key]
    content["versions"]["torch"] = "9.9"
    write_record(new / "inference.json", content)
    slower = cli("bench", "compare", old, new)
    assert slower.status == 1
    assert slower.err == f"warning: inference.json: versions differ: torch {_torch(old)} → 9.9\n"
    line = next(line for line in slower.out.splitlines() if "SLOWER" in line)
    assert line.startswith("inference tin_resnet18, one clip ")
    assert "+9800.0 %" in line
    assert cli("bench", "compare", old, new, "--by", "ratio").status == 0, "the ratios are what they were"

    told = cli("bench", "compare", old / "inference.json", new / "inference.json", "--json", "--threshold", "1%")
    assert told.status == 1
    answer = json.loads(told.out)
    assert (answer["threshold"], answer["regressions"], len(answer["rows"])) == (0.01, 1, 5)
    (found,) = [row for row in answer["rows"] if row["verdict"] == "regression"]
    assert found["worse"] == pytest.approx(99)
    assert found["new"]["spread"][0] > found["old"]["spread"][1]


def _torch(folder: Path) -> str:
    version: str = read_record(folder / "inference.json").content["versions"]["torch"]
    return version


@pytest.mark.slow
def test_what_has_no_time_or_no_videos_is_left_out_and_named(tin_cli: Cli, tmp_path: Path) -> None:
    result = tin_cli(
        "bench", "all", "--out", tmp_path / "speed", "--quick", "--parts", "data,op,scaling", *SMALL, "--max-minutes", "0.01",
        TIN_DATA=str(tmp_path / "nowhere"),
    )  # fmt: skip
    assert result.status == 1
    parts = json.loads((tmp_path / "speed" / "all.json").read_text())["parts"]
    assert {name: part["state"] for name, part in parts.items()} == {
        "op": "failed", "data": "left out", "scaling": "left out",
    }  # fmt: skip
    assert parts["op"]["reason"] == "it did not end in time (--max-minutes)"
    assert "tin-cli data motion" in parts["data"]["reason"]
    assert parts["scaling"]["reason"] in ("no time was left (--max-minutes 0.01)", "it takes two cores")
    assert sorted(path.name for path in (tmp_path / "speed").iterdir()) == ["all.json", "op.log", "summary.md"]


@pytest.mark.slow
def test_an_interruption_keeps_what_was_measured_and_leaves_no_process(tmp_path: Path) -> None:
    out = tmp_path / "speed"
    command = [
        sys.executable,
        "-m",
        "cli.main",
        "bench",
        "all",
        "--out",
        out,
        "--quick",
        "--parts",
        "inference,op",
        *SMALL,
    ]
    with running(*command) as run:
        run.until("inference ")
        while not (children := psutil.Process(run.process.pid).children(recursive=True)):
            time.sleep(0.05)
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 130
    assert gone(children)
    assert "tin-cli: error: interrupted" in run.text
    assert read_record(out / "inference.json").content["stability"]["runs"] == 1
    parts = json.loads((out / "all.json").read_text())["parts"]
    assert parts["op"] == {"state": "left out", "runs": 0, "reason": "interrupted before"}
    assert sorted(path.name for path in out.iterdir()) == ["all.json", "chart.png", "inference.json", "summary.md"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["all"], "Missing option '--out'"),
        (["all", "--out", "full"], "--out full is not empty"),
        (["all", "--out", "new", "--parts", "op,modle"], "'modle': the parts are inference, op, model, data"),
        (["all", "--out", "new", "--arch", "tin_resnet51"], "did you mean 'tin_resnet50'"),
        (["all", "--out", "new", "--dataset", "k400", "--data", "full"], "no list full/train.txt"),
        (["all", "--out", "new", "--tolerance", "x"], "'x' is no part: give a percentage as 1%"),
        (["all", "--out", "new", "--device", "tpu"], "--device tpu"),
        (["compare", "full"], "Missing argument 'NEW'"),
        (["compare", "full", "gone"], "'gone' does not exist"),
        (["compare", "full", "full"], "full holds no result of tin-cli bench"),
        (["compare", "full/x.txt", "full"], "name two files or two folders"),
        (["compare", "full/x.txt", "full/x.txt"], "full/x.txt is no result of tin-cli bench"),
    ],
)
def test_a_mistake_is_one_clear_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x.txt").write_text("")
    result = cli("bench", *arguments)
    assert result.status == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()
