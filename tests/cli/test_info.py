"""`tin-cli info` for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import torch
import torchvision

Cli = Callable[..., Any]


def test_the_installation_is_described_twice_the_same(cli: Cli) -> None:
    words, facts = cli("info"), cli("info", "--json")
    assert words.status == facts.status == 0
    found = json.loads(facts.out)
    assert found["versions"]["pyav"] == av.__version__
    for name in ("torch", "python", "dali", "pyav", "ffmpeg", "numpy"):
        assert found["versions"][name] in words.out
    assert f"op on CPU: {'native kernels' if found['op']['cpu'] == 'native' else 'PyTorch reference'}" in words.out
    assert words.out.count("missing: ") == len(found["missing"]) == words.out.count("  to get it: ")
    assert ("GPU: none" in words.out) is (not found["gpus"])
    assert all("nvdec" in gpu for gpu in found["gpus"])


def test_a_model_is_described_by_block_and_by_layer(cli: Cli) -> None:
    blocks = cli("info", "--model", "tin_resnet50", "--num-classes", 174)
    assert blocks.status == 0, blocks.err
    lines = blocks.out.splitlines()
    assert lines[:3] == [
        "tin_resnet50, 174 classes, clips of 8 frames of 224×224",
        "parameters: 23,895,566",
        "multiply-adds of a clip (convolutions and linear layers): 32,700,178,304",
    ]
    rows = {line[:12].strip(): [int(n.replace(",", "")) for n in line[12:].split()] for line in lines[4:]}
    assert rows.pop("TIN's own") == [31_008, 237_440]
    assert [sum(column) for column in zip(*rows.values(), strict=True)] == [23_895_566, 32_700_178_304]
    layers = cli("info", "--model", "tin_resnet50", "--num-classes", 174, "--layers").out
    assert "layer4.2.tin.offset.fc1" in layers
    assert "Conv2d 64×3×7×7" in layers
    facts = json.loads(cli("info", "--model", "tin_resnet50", "--num-classes", 174, "--json").out)
    assert facts["multiply_adds"] == 32_700_178_304


def test_a_checkpoint_is_described_and_a_damaged_one_too(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18(num_classes=5).state_dict(), path)
    found = cli("info", "--checkpoint", path)
    assert found.status == 0, found.err
    assert "kind: weights; names: torchvision" in found.out
    assert "network: tsm_resnet18 or tsn_resnet18, 5 classes" in found.out
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    found = cli("info", "--checkpoint", path)
    assert found.status == 1
    assert "cannot be read" in found.out
    assert "is damaged" in found.out
    assert json.loads(cli("info", "--checkpoint", path, "--json").out)["sha256"] in found.out


def test_two_questions_at_once_and_an_unknown_model_are_mistakes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_text("")
    both = cli("info", "--checkpoint", tmp_path / "x.pt", "--model", "tin_resnet50")
    assert (both.status, "ask one" in both.err) == (2, True)
    unknown = cli("info", "--model", "tin_resnet51")
    assert (unknown.status, "did you mean" in unknown.err) == (2, True)
