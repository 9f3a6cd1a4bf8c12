"""Networks that look trained, and networks in which every weight tells where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

import tin
from tin import recipes
from tin.checkpoints import save_checkpoint
from tin.models import TemporalResNet

NAMES = ["fight", "no fight", "打架"]


def trained_looking(arch: str, num_classes: int = 7, num_segments: int = 4) -> TemporalResNet:
    """In evaluation mode, always the same numbers; logits of the order of 1 to 10."""
    torch.manual_seed(0)
    model = tin.build_model(arch, num_classes, num_segments)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 3)
            nn.init.uniform_(module.weight, 0.2, 1.2)
            nn.init.normal_(module.bias, 0, 0.3)
    nn.init.normal_(model.fc.weight, std=0.1)
    return model.eval()


def trained_file(folder: Path, *settings: str) -> Path:
    """What a training run leaves: a TIN of three classes (NAMES) that looks trained, of clips of 4 frames of 32×32."""
    small = [
        "model.arch=tin_resnet18",
        "model.num_classes=3",
        "model.num_segments=4",
        "data.input_size=32",
        "data.short_side=40",
    ]
    recipe = recipes.load("tin_motion", [*small, *settings]).model_dump(mode="json")
    state = trained_looking("tin_resnet18", 3, 4).state_dict()
    save_checkpoint(folder / "best.pt", {"state_dict": state, "recipe": recipe, "label_names": NAMES})
    return folder / "best.pt"


def filled(arch: str, seed: int, classes: int = 10, segments: int = 8) -> TemporalResNet:
    """A model in which every weight and buffer has a value of its own."""
    with torch.device("meta"):
        model = tin.build_model(arch, classes, num_segments=segments)
    model.to_empty(device="cpu")
    for i, value in enumerate(model.state_dict().values()):
        value.fill_(seed + i / 1024 if value.is_floating_point() else seed + i)
    return model


def same(model: TemporalResNet, expected: Mapping[str, Tensor]) -> None:
    actual = model.state_dict()
    assert list(actual) == list(expected)
    wrong = [name for name in expected if not torch.equal(actual[name], expected[name])]
    assert wrong == []
