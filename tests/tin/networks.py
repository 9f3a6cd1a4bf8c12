"""Networks that look trained: batch norms with statistics and a classifier with weights that matter."""

from __future__ import annotations

import torch
from torch import nn

import tin
from tin.models import TemporalResNet


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
