"""Parameter groups as every TSN-family code base has them, the optimisers, and their step from gradients to weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tin.errors import TinError
from tin.recipes import OptimSettings
from tin.train import nvidia_apex
from tin.train.layout import place_state

_NORMS = (nn.modules.batchnorm._BatchNorm,)


def parameter_groups(
    model: nn.Module, lr: float, weight_decay: float, partial_bn: bool = False, fc_lr5: bool = True
) -> list[dict[str, Any]]:
    """Split a model's parameters into the seven groups of TSN, TSM and TIN, as MMAction2 and the authors' code have them.

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


def build_optimizer(model: nn.Module, settings: OptimSettings, lr: float) -> torch.optim.Optimizer:
    """The recipe's optimiser over `parameter_groups`.

    * `sgd`: `torch.optim.SGD`, fused.
    * `apex-sgd`: FusedSGD of NVIDIA apex; the same steps.
    * `lamb`: LAMB (You et al. 2020) of NVIDIA apex, in the form whose verdict and step count stay on the device
      (FusedMixedPrecisionLamb). `momentum` is its β1, β2 is 0.999, ε 1e-6; weight decay is decoupled. The groups and
      their factors are the same; in those without decay (biases, BatchNorm) its steps are Adam's, without the trust ratio.
      Its learning rate is a part of each layer's norm, so SGD's is no guide: published ones for large batches are 1e-3 to 1e-2.

    SGD's momentum starts as zeros, which makes the first step what it always was: PyTorch would leave the buffers
    uninitialised where the first step is left out, as the first steps with fp16 may be.

    Args:
        model: already on its device and in its memory format.
        settings: the recipe's; `settings.lr` is not read.
        lr: the scaled base learning rate.

    Raises:
        TinError: NVIDIA apex is asked for and cannot be used; the message says how to get it.
    """
    groups = parameter_groups(model, lr, settings.weight_decay, settings.partial_bn, settings.fc_lr5)
    parameters = [parameter for group in groups for parameter in group["params"]]
    if settings.kind != "sgd":
        apex = nvidia_apex.require(settings.kind, parameters[0].device)
        if settings.kind == "lamb":
            return nvidia_apex.fused_lamb(apex, groups, lr, settings.momentum)
        return nvidia_apex.fused_sgd(apex, groups, lr, settings.momentum, settings.nesterov)
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=settings.momentum, nesterov=settings.nesterov, fused=True)
    if settings.momentum:
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
    optimizer.register_load_state_dict_post_hook(place_state)
    return optimizer


class GradientNorms(NamedTuple):
    """2-norms of the gradients before clipping, on the device."""

    total: Tensor
    """0-dim, over all parameters together."""
    per_parameter: Tensor
    """(parameters,) in the order they were given; 0 where a parameter has no gradient."""
    skip: Tensor
    """0-dim float32: 1 where the total is not finite, else 0; for `guarded_step`."""


@torch.no_grad()
def clip_gradients(
    parameters: Iterable[nn.Parameter], max_norm: float | None, *, fused_by_apex: bool = False
) -> GradientNorms:
    """Measure the gradients, and scale them so that their total norm is at most `max_norm`; nothing waits for the device.

    The norms, the total and the scaled gradients are those of `torch.nn.utils.clip_grad_norm_`, bit for bit. With several
    processes the gradients are the exchanged ones, so every process finds the same norms and the same `skip`.

    Args:
        parameters: at least one with a gradient.
        max_norm: None measures only.
        fused_by_apex: take the norms with NVIDIA apex's kernel (`optim.kind` apex-sgd and lamb). Its own clip function would
            wait for the device.
    """
    parameters = list(parameters)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = nvidia_apex.gradient_norms(gradients) if fused_by_apex else torch.stack(torch._foreach_norm(gradients))
    total = torch.linalg.vector_norm(norms)
    if max_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, total)
    if len(gradients) < len(parameters):
        found, none = iter(norms.unbind()), norms.new_zeros(())
        norms = torch.stack([none if parameter.grad is None else next(found) for parameter in parameters])
    return GradientNorms(total, norms, 1.0 - total.isfinite().float())


def guarded_step(optimizer: torch.optim.Optimizer, skip: Tensor) -> None:
    """`optimizer.step()`, or nothing at all where `skip` is 1: decided on the device, so the host need not wait.

    Where it is 1, weights, momentum and step counts stay as they are, bit for bit. The one order that is right with fp16,
    bf16 and float32 alike, because a `GradScaler` that is not enabled does nothing:

        scaler.scale(loss).backward()          # of every part of an accumulated batch
        scaler.unscale_(optimizer)             # fp16: gradients ÷ scale, and a record of what was not finite
        norms = clip_gradients(parameters, max_norm)
        guarded_step(optimizer, norms.skip)    # in place of scaler.step(optimizer)
        scaler.update()                        # fp16: backs off by that record, or grows

    `unscale_` leaves infinities infinite, so what made the scaler back off makes `skip` 1.

    Args:
        optimizer: of `build_optimizer`.
        skip: 0-dim float32 on the parameters' device, exactly 0 or 1.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        nvidia_apex.guarded_step(optimizer, skip)
        return
    optimizer.found_inf = skip  # type: ignore[attr-defined]  # what a GradScaler sets; the fused kernel reads it
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]


def _group(name: str, lr_mult: float, weight_decay: float, lr: float) -> dict[str, Any]:
    return {
        "name": name,
        "params": [],
        "param_names": [],
        "lr": lr * lr_mult,
        "lr_mult": lr_mult,
        "weight_decay": weight_decay,
    }
