"""Parameter groups equal the peers' by name, and a step equals plain SGD with the same groups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import tin
from tin.errors import TinError
from tin.recipes import OptimSettings
from tin.train import build_optimizer, freeze_partial_bn, parameter_groups


@pytest.mark.parametrize(("name", "classes", "decay"), [("mmaction_sthv1", 174, 5e-4), ("mmaction_k400", 400, 1e-4)])
def test_groups_equal_mmaction2_name_by_name(golden: Path, name: str, classes: int, decay: float) -> None:
    expected = {
        (group["lr_mult"], group["wd"], frozenset(group["params"]))
        for group in json.loads((golden / "param_groups.json").read_text())[name]
        if group["params"]
    }
    groups = parameter_groups(tin.build_model("tin_resnet50", classes), lr=1.0, weight_decay=decay)
    assert {(g["lr_mult"], g["weight_decay"], frozenset(g["param_names"])) for g in groups} == expected
    assert sum(len(g["params"]) for g in groups) == 289


def test_ten_steps_equal_plain_sgd_written_out() -> None:
    torch.manual_seed(0)
    model = tin.build_model("tin_resnet18", 3, num_segments=2, dropout=0.0).double()
    twin = tin.build_model("tin_resnet18", 3, num_segments=2, dropout=0.0).double()
    twin.load_state_dict(model.state_dict())
    settings = OptimSettings(lr=0.01, momentum=0.9, weight_decay=1e-3)
    optimizer = build_optimizer(model, settings, lr=0.01)
    groups = parameter_groups(twin, 0.01, 1e-3)
    velocity = {p: torch.zeros_like(p) for g in groups for p in g["params"]}
    frames, labels = torch.randn(4, 3, 32, 32, dtype=torch.float64), torch.tensor([0, 2])
    for _ in range(10):
        for net in (model, twin):
            net.zero_grad()
            nn.functional.cross_entropy(net(frames), labels).backward()
        optimizer.step()
        with torch.no_grad():
            for group in groups:
                for p in group["params"]:
                    assert p.grad is not None
                    velocity[p] = 0.9 * velocity[p] + p.grad + group["weight_decay"] * p
                    p -= group["lr"] * velocity[p]
    for mine, plain in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, plain, rtol=0, atol=1e-12)


def test_partial_bn_trains_only_the_first() -> None:
    model = tin.build_model("tsn_resnet18", 4)
    model.train()
    freeze_partial_bn(model)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.training for norm in norms] == [True] + [False] * (len(norms) - 1)
    names = [n for g in parameter_groups(model, 0.1, 0.0, partial_bn=True) for n in g["param_names"]]
    assert [n for n in names if ".bn" in n or n.startswith("bn")] == ["bn1.weight", "bn1.bias"]


def test_unknown_layers_are_refused() -> None:
    with pytest.raises(TinError, match="no parameter group for LayerNorm 'norm'"):
        parameter_groups(nn.ModuleDict({"norm": nn.LayerNorm(3)}), 0.1, 0.0)


def test_without_fc_lr5_the_classifier_is_a_layer_like_any_other() -> None:
    groups = {g["name"]: g for g in parameter_groups(tin.build_model("tsn_resnet18", 4), 0.1, 1e-4, fc_lr5=False)}
    assert "fc.weight" in groups["weight"]["param_names"]
    assert groups["bias"]["param_names"] == ["fc.bias"]
    assert not {"classifier_weight", "classifier_bias"} & set(groups)
