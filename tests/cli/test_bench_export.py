"""`tin-cli bench export` on a small network: each way to run it, against eager."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Result

Cli = Callable[..., Result]


@pytest.mark.slow
def test_files_are_timed_beside_eager_and_prepared(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "export.json"
    small = ("--arch", "tsn_resnet18", "--input-size", "32", "--num-segments", "2", "--runs", "2", "--threads", "1")
    result = cli("bench", "export", *small, "--format", "onnx", "--format", "torch-export", "--out", out)
    assert result.status == 0, result.err
    measured = json.loads(out.read_text())["results"]["export"]
    assert measured["settings"]["formats"] == ["onnx", "torch-export"]
    rows = {row["name"]: row for row in measured["rows"]}
    assert list(rows) == ["eager", "prepared", "ONNX Runtime", "torch.export"]
    assert all(row["ratio_to"] == "eager" and row["samples"] == 2 and row["median"] > 0 for row in rows.values())
    assert rows["eager"]["ratio"] == 1
    assert rows["prepared"]["difference"] is None
    assert 0 <= rows["ONNX Runtime"]["difference"] <= 1e-4
    assert "logits differ by" in result.out


def test_an_architecture_that_is_not_there_is_named(cli: Cli) -> None:
    result = cli("bench", "export", "--arch", "tni_resnet50")
    assert result.status == 2
    assert "did you mean 'tin_resnet50'?" in result.err
