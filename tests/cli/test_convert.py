"""`tin-cli convert` as a user types it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

import tin
from tests.tin.networks import filled, same
from tin.checkpoints import load_state
from tin.checkpoints.convert_names import TARGETS

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("convert") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(num_classes=10).state_dict(), path)
    return path


def test_a_file_goes_there_and_back_and_each_step_is_reported(cli: Cli, tmp_path: Path) -> None:
    saved = filled("tin_resnet18", 1)
    torch.save(saved.state_dict(), tmp_path / "in.pth")
    there = cli("convert", tmp_path / "in.pth", tmp_path / "mm.pth", "--to", "mmaction2")
    assert (there.status, there.err) == (0, "")
    first, second = there.out.splitlines()
    assert first.endswith("in.pth (plain names): tin_resnet18, 186 tensors (166 float32, 20 int64), 42.7 MiB")
    assert "mm.pth (mmaction2): 186 tensors written, 186 of them under another name, 0 dropped; read back" in second
    back = cli("convert", tmp_path / "mm.pth", tmp_path / "back.pt", "--to", "tin", "--as", "tin", "--weights", "raw")
    assert "mm.pth (MMAction2 TIN names): tin_resnet18" in back.out
    model = filled("tin_resnet18", 2)
    assert tin.load_checkpoint(model, tmp_path / "back.pt").complete
    same(model, saved.state_dict())


def test_what_must_be_said_is_asked_for_and_what_exists_stays(cli: Cli, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "tsn.pth"
    refused = cli("convert", source, out, "--to", "mmaction2")
    assert (refused.status, refused.out, out.exists()) == (2, "", False)
    assert refused.err.startswith("tin-cli: error: ")
    assert "say which it is (--as tsm or --as tsn)" in refused.err
    assert refused.err.count("\n") == 1
    assert cli("convert", source, out, "--to", "mmaction2", "--as", "tsn").status == 0
    assert "exists: name another file, or write over it with --force" in cli("convert", source, out, "--to", "tin").err
    assert cli("convert", source, out, "--to", "mmaction2", "--as", "tsm", "--force").status == 0
    assert "backbone.layer1.0.conv1.conv.net.weight" in load_state(out)["state_dict"]
    assert "the shift of a TSM" in cli("convert", out, tmp_path / "x.pth", "--to", "torchvision").err
    assert cli("convert", out, tmp_path / "x.pth", "--to", "torchvision", "--drop-temporal").status == 0


def test_every_target_can_be_asked_for(cli: Cli, source: Path) -> None:
    from cli.convert import convert

    (option,) = [parameter for parameter in convert.params if parameter.name == "to"]
    assert tuple(option.type.choices) == TARGETS  # type: ignore[attr-defined]
    assert "no/such/file" in cli("convert", "no/such/file", "x", "--to", "tin").err
