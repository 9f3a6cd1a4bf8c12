"""`tin-cli plot` on logs as training writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tin.test_runs import write

Cli = Callable[..., Any]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, loss in (("tin/first", 2.0), ("tsn/first", 1.0)):
        (tmp_path / name).parent.mkdir()
        write(tmp_path / name, range(1, 21), loss, validated=(10, 20))
    return tmp_path


def test_one_run_is_drawn_into_curves_png(cli: Cli, runs: Path) -> None:
    result = cli("plot", "tin/first")
    assert result.status == 0, result.err
    assert result.out.splitlines() == ["first: 2 epochs, 2 validations", "drawn into curves.png"]
    with Image.open("curves.png") as picture:
        assert picture.format == "PNG"
        assert picture.width == 1420


def test_runs_of_one_name_are_told_apart(cli: Cli, runs: Path) -> None:
    result = cli("plot", "tin/first", "tsn/first/log.jsonl", "--out", "both.svg")
    assert result.status == 0, result.err
    assert "tin/first: 2 epochs" in result.out
    svg = Path("both.svg").read_text()
    assert "<!-- tin/first -->" in svg
    assert "<!-- offsets of tsn/first -->" in svg


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "Missing argument"),
        ("gone", "'gone' does not exist"),
        ("tin", "tin holds no log.jsonl: give the --work-dir"),
        ("tin/first --out curves.gif", "curves.gif: give the picture a name that ends in .png or .svg"),
        ("tin/first tin/first/log.jsonl", "the same run twice"),
    ],
)
def test_every_mistake_is_one_line(cli: Cli, runs: Path, arguments: str, message: str) -> None:
    result = cli("plot", *arguments.split())
    assert result.status == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1
