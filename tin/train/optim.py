"""SGD's parameter groups as every TSN-family code base has them, and the optimiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tin.errors import TinError
from tin.recipes import OptimSettings

_NORMS = (nn.modules.batchnorm._BatchNorm,)


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, partial_bn: bool = False, fc_lr5: bool = True
) -> list[dict[str, Any]]:
    """Split a model's parameters into the seven groups of TSN, TSM and TIN (REFERENCE: equal in MMAction2 and the authors' code).

    Stem weight ×1; stem bias ×2, no decay; other convolution and linear weights ×1; their biases ×2, no decay; BatchNorm weights
    and biases ×1, no decay; classifier weight ×5; classifier bias ×10, no decay.

    Args:
        model: as built by `tin.build_model`; its classifier is `fc`.
        lr: base learning rate.
        weight_decay: L2 factor of the groups that decay.
        fc_lr5: False treats the classifier as any other layer.
        partial_bn: leave out every BatchNorm but the first (see `freeze_partial_bn`).

    Returns:
        Non-empty groups for `torch.optim`: name, params, param_names, lr, lr_mult, weight_decay.

    Raises:
        TinError: a parameter belongs to a kind of layer that no group covers.
    """
    groups = {
        "stem_weight": _group("stem_weight", 1.0, weight_decay, lr),
        "stem_bias": _group("stem_bias", 2.0, 0.0, lr),
        "weight": _group("weight", 1.0, weight_decay, lr),
        "bias": _group("bias", 2.0, 0.0, lr),
        "norm": _group("norm", 1.0, 0.0, lr),
        "classifier_weight": _group("classifier_weight", 5.0, weight_decay, lr),
        "classifier_bias": _group("classifier_bias", 10.0, 0.0, lr),
    }
    seen_stem = False
    norms = 0
    for module_name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own:
            continue
        if isinstance(module, _NORMS):
            norms += 1
            if partial_bn and norms > 1:
                continue
            kinds = dict.fromkeys(own, "norm")
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            prefix = ""
            if module_name == "fc" and fc_lr5:
                prefix = "classifier_"
            elif isinstance(module, nn.Conv2d) and not seen_stem:
                prefix, seen_stem = "stem_", True
            kinds = {leaf: prefix + leaf for leaf in own}
        else:
            raise TinError(f"no parameter group for {type(module).__name__} '{module_name}'")
        for leaf, parameter in own.items():
            group = groups[kinds[leaf]]
            group["params"].append(parameter)
            group["param_names"].append(f"{module_name}.{leaf}")
    return [group for group in groups.values() if group["params"]]


def freeze_partial_bn(model: nn.Module) -> None:
    """Put every BatchNorm but the first into evaluation mode, and its parameters out of training; call after each `model.train()`."""
    norms = [module for module in model.modules() if isinstance(module, _NORMS)]
    for norm in norms[1:]:
        norm.eval()
        for parameter in norm.parameters(recurse=False):
            parameter.requires_grad_(False)


def build_optimizer(model: nn.Module, settings: OptimSettings, lr: float) -> torch.optim.SGD:
    """SGD over `parameter_groups`, in PyTorch's fused form where the parameters' device has one.

    Args:
        model: already on its device.
        settings: the recipe's; `settings.lr` is not read.
        lr: the scaled base learning rate.
    """
    return torch.optim.SGD(
        parameter_groups(model, lr, settings.weight_decay, settings.partial_bn, settings.fc_lr5),
        lr=lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        fused=True,
    )


def _group(name: str, lr_mult: float, weight_decay: float, lr: float) -> dict[str, Any]:
    return {
        "name": name,
        "params": [],
        "param_names": [],
        "lr": lr * lr_mult,
        "lr_mult": lr_mult,
        "weight_decay": weight_decay,
    }
