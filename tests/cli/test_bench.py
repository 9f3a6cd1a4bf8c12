"""`tin-cli bench` as a user runs it: tables, a result file, real videos, one line for every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Result

Cli = Callable[..., Result]
SMALL = ("--arch", "tin_resnet18", "--input-size", "32", "--num-segments", "2", "--runs", "2", "--device", "cpu")


@pytest.fixture
def fights(tmp_path: Path, real_videos: Path) -> tuple[Path, Path]:
    """A list of eight real videos, and its root."""
    root = real_videos / "fights"
    files = [*sorted((root / "fight").iterdir())[:4], *sorted((root / "nofight").iterdir())[:4]]
    lines = [f"{file.relative_to(root)} {int(file.parent.name == 'nofight')}\n" for file in files]
    (tmp_path / "train.txt").write_text("".join(lines))
    return tmp_path / "train.txt", root


@pytest.mark.slow
def test_plain_bench_runs_four_and_stores_them(tin_cli: Cli, tmp_path: Path, fights: tuple[Path, Path]) -> None:
    path, root = fights
    out = tmp_path / "all.json"
    result = tin_cli("bench", *SMALL, "--list", path, "--root", root, "--workers", 1, "--threads", 1, "--out", out)
    assert (result.status, result.err) == (0, "")
    record = json.loads(out.read_text())
    assert list(record["results"]) == ["inference", "op", "model", "data"]
    assert record["command"].startswith("tin-cli bench --arch tin_resnet18")
    assert record["machine"]["torch_threads"] == 1
    assert record["versions"]["tin"]
    for name, measured in record["results"].items():
        assert f"{name}: " in result.out
        for line in measured["rows"]:
            assert line["ratio"] > 0
            assert line["samples"] == 2
            assert line["name"] in result.out
    data = record["results"]["data"]
    assert data["settings"]["videos"] == 8
    assert data["settings"]["list"] == str(path)
    assert [line["name"] for line in data["rows"]] == ["loader alone", "decoding alone"]
    assert all(line["cpu_seconds_per_clip"] > 0 for line in data["rows"])
    assert data["rows"][0]["frames_decoded_per_used"] > 1  # these files have long groups of pictures
    assert data["settings"]["workers"] == 1


def test_only_what_is_named_is_run(cli: Cli, tmp_path: Path) -> None:
    result = cli("bench", "inference", *SMALL, "--out", tmp_path / "x.json")
    assert result.status == 0
    assert "inference: tin_resnet18, batch 1, 2×32², float32, 2 samples" in result.out
    assert list(json.loads((tmp_path / "x.json").read_text())["results"]) == ["inference"]


def test_op_shows_every_yardstick_in_both_layouts(cli: Cli, tmp_path: Path) -> None:
    result = cli("bench", "op", *SMALL, "--quick", "--layout", "both", "--out", tmp_path / "x.json")
    assert result.status == 0, result.err
    for head in (
        "ratio to copy of the same bytes",
        "MB moved",
        "reference / op",
        "peers / op",
        "left out of the short form",
    ):
        assert head in result.out
    assert "compiled / op" not in result.out
    measured = json.loads((tmp_path / "x.json").read_text())["results"]["op"]
    assert measured["settings"]["layouts"] == ["channels_last", "contiguous"]
    last = [line for line in measured["rows"] if "512×1×1" in line["name"]]
    forms = {(line["name"].partition(" 512")[0], line["layout"]) for line in last}
    in_both = {(what, layout) for what in ("forward", "backward") for layout in ("channels_last", "contiguous")}
    in_network = {("in place", "channels_last"), ("both gradients", "channels_last")}
    assert forms == in_both | in_network


@pytest.mark.slow
def test_without_a_list_the_files_are_left_out_and_it_says_so(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIN_DATA", str(tmp_path / "nowhere"))
    result = cli("bench", *SMALL, "--runs", "1", "--out", tmp_path / "x.json")
    assert result.status == 0
    assert "data skipped: no list given" in result.err
    assert list(json.loads((tmp_path / "x.json").read_text())["results"]) == ["inference", "op", "model"]


def test_benchmarks_that_share_their_options_follow_one_another(
    cli: Cli, tmp_path: Path, fights: tuple[Path, Path]
) -> None:
    path, root = fights
    out = tmp_path / "x.json"
    result = cli("bench", "data", "inference", *SMALL, "--list", path, "--root", root, "--quick", "--out", out)
    assert (result.status, result.err) == (0, "")
    assert list(json.loads(out.read_text())["results"]) == ["inference", "data"]


def test_help_lists_the_benchmarks_and_each_explains_itself(cli: Cli) -> None:
    names = ("inference", "op", "model", "data", "train", "scaling", "all", "compare")
    everything = cli("bench", "--help").out
    assert [
        line.split()[0] for line in everything.splitlines() if line.startswith("  ") and line.split()[0] in names
    ] == [*names]
    for name in names:
        assert f"tin-cli bench {name}" in cli("bench", name, "--help").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modle"], "unknown benchmark 'modle': did you mean 'model'?"),
        (["op", "train"], "'train' is not one of"),
        (["--arch", "tin_resnet51"], "unknown architecture 'tin_resnet51': did you mean 'tin_resnet50'"),
        (["--batch-size", "0"], "--batch-size"),
        (["--dtype", "int8"], "--dtype"),
        (["--layout", "nhwc"], "--layout"),
        (["--device", "tpu"], "--device tpu"),
        (["--input-size", "8"], "--input-size"),
        (["--num-segments", "0"], "--num-segments"),
        (["--threads", "0"], "--threads"),
        (["--runs", "x"], "--runs"),
        (["--list", "nowhere.txt"], "nowhere.txt"),
        (["data", "--dataset", "k400", "--data", "."], "train.txt"),
        (["--out", "nowhere/x.json"], "there is no folder"),
        (["--fast"], "--fast"),
    ],
)
def test_a_mistake_is_one_clear_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli("bench", *arguments)
    assert result.status == 2
    assert result.out == ""
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1
