"""The table of published weights says what their publishers say."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest
import torchvision

import tin
from tin import recipes
from tin.errors import TinError
from tin.models import ARCHITECTURES
from tin.zoo import Published, find, published

MMACTION2 = "https://download.openmmlab.com/mmaction/recognition/"
REPORTED = {  # file: network, classes, top-1, top-5 in percent
    "tin/tin_r50_1x1x8_40e_sthv1_rgb/tin_r50_1x1x8_40e_sthv1_rgb_20200729-4a33db86.pth": ("tin", 174, 44.25, 73.94),
    "tin/tin_r50_1x1x8_40e_sthv2_rgb/tin_r50_1x1x8_40e_sthv2_rgb_20200912-b27a7337.pth": ("tin", 174, 56.70, 83.62),
    "tin/tin_tsm_finetune_r50_1x1x8_50e_kinetics400_rgb/"
    "tin_tsm_finetune_r50_1x1x8_50e_kinetics400_rgb_20200810-4a146a70.pth": ("tin", 400, 70.89, 89.89),
    "tsm/tsm_r50_1x1x8_50e_kinetics400_rgb/tsm_r50_1x1x8_50e_kinetics400_rgb_20200607-af7fb746.pth": (
        "tsm", 400, 70.24, 89.56,
    ),
    "tsm/tsm_r50_1x1x8_50e_kinetics400_rgb/tsm_r50_1x1x8_50e_kinetics400_rgb_20210701-68d582b4.pth": (
        "tsm", 400, 70.73, 89.81,
    ),
    "tsm/tsm_r50_1x1x8_50e_sthv1_rgb/tsm_r50_1x1x8_50e_sthv1_rgb_20210203-01dce462.pth": ("tsm", 174, 45.58, 75.02),
}  # fmt: skip


def test_every_file_of_mmaction2_has_the_reported_numbers() -> None:
    found = {
        model.url.removeprefix(MMACTION2): (model.arch.partition("_")[0], model.num_classes, model.top1, model.top5)
        for model in published().values()
        if model.dataset != "ImageNet"
    }
    assert found == REPORTED


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_the_imagenet_files_are_those_of_torchvision(depth: int) -> None:
    theirs: Any = getattr(torchvision.models, f"ResNet{depth}_Weights").IMAGENET1K_V1
    model = find(f"resnet{depth}_imagenet")
    assert model.url == theirs.url
    assert model.mebibytes == theirs.meta["_file_size"]
    reported = theirs.meta["_metrics"]["ImageNet-1K"]
    assert (model.top1, model.top5) == (reported["acc@1"], reported["acc@5"])
    assert model.num_classes == len(theirs.meta["categories"])
    assert model.depth == depth


@pytest.mark.parametrize("model", published().values(), ids=lambda model: model.name)
def test_every_entry_is_whole(model: Published) -> None:
    assert model.url.startswith("https://")
    assert model.file.endswith(f"-{model.sha256}.pth")
    assert re.fullmatch(r"[0-9a-f]{8}", model.sha256)
    assert 0 < model.top1 < model.top5 < 100
    assert model.licence
    assert model.source.startswith("https://")
    if model.dataset != "ImageNet":
        assert model.arch in ARCHITECTURES
        assert model.num_segments == 8
    if model.recipe:
        settings = recipes.load(model.recipe).model
        assert (settings.arch, settings.num_classes) == (model.arch, model.num_classes)


def test_every_field_is_explained() -> None:
    assert Published.__doc__ is not None
    for field in fields(Published):
        assert re.search(rf"\b{field.name}\b", Published.__doc__), field.name


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(TinError, match=r"unknown published model 'tin_r50_k40': did you mean 'tin_r50_k400'\?"):
        find("tin_r50_k40")
    assert tin.build_model(find("tsm_r50_sthv1").arch, 174)
