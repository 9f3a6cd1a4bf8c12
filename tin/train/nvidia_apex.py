"""NVIDIA apex's fused optimisers and norm: found, told from its namesake, and used without waiting for the device.

Written against apex of 2026-07 (github.com/NVIDIA/apex, commit 6424da3b). Three things its documentation does not say:
* FusedSGD's kernel leaves everything as it is where the integer in `_dummy_overflow_buf` is not 0, on the device.
* FusedLAMB ignores that buffer and counts its steps on the host, so it cannot leave one out without asking the device.
  FusedMixedPrecisionLamb is the same update with the verdict and the count on the device; `lamb` is that one.
* `apex.contrib.clip_grad` passes its coefficient to the kernel as a host number, which waits for the device at every step.
  Its norm kernel, `multi_tensor_l2norm`, does not; PyTorch's `foreach` multiplies by a coefficient that stays where it is.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tin.errors import TinError
from tin.train.layout import place_state

DEVICE_TYPE = "cuda"
"""Where apex's kernels run."""

INSTALL = (
    "git clone https://github.com/NVIDIA/apex && cd apex && "
    "APEX_CPP_EXT=1 APEX_CUDA_EXT=1 pip install -v --no-build-isolation ."
)
"""NVIDIA's own way; it compiles CUDA code and needs nvcc of the CUDA version that torch was built with."""


def require(kind: str, device: torch.device) -> Any:
    """The module `apex.optimizers`.

    Args:
        kind: the recipe's `optim.kind`, for the message.
        device: of the parameters.

    Raises:
        TinError: apex is missing, is the other project of that name, or lacks its kernels; the device is no GPU.
    """
    found = importlib.util.find_spec("apex")
    if found is None:
        raise _unusable(kind, "which is not installed")
    places = [Path(place) for place in found.submodule_search_locations or ()]
    if not any((place / "optimizers").is_dir() for place in places):
        raise _unusable(
            kind,
            f"and the 'apex' at {places[0] if places else found.origin} is another project: pip uninstall apex first",
        )
    try:
        importlib.import_module("amp_C")
        optimizers = importlib.import_module("apex.optimizers")
    except Exception as error:  # a build for another torch fails to link: OSError, RuntimeError, …
        raise _unusable(
            kind, f"and the one at {places[0]} lacks its CUDA kernels or does not fit this torch ({error})"
        ) from error
    if device.type != DEVICE_TYPE:
        raise TinError(
            f"--optimizer {kind}: apex runs on NVIDIA GPUs, this run is on {device.type}; use --optimizer sgd"
        )
    return optimizers


def fused_sgd(optimizers: Any, groups: list[dict[str, Any]], lr: float, momentum: float, nesterov: bool) -> Any:
    """apex's FusedSGD over parameter groups."""

    class SGD(optimizers.FusedSGD):
        """Takes `set_to_none` as every optimiser of PyTorch does."""

        def zero_grad(self, set_to_none: bool = True) -> None:
            torch.optim.Optimizer.zero_grad(self, set_to_none)

    optimizer = SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    optimizer.register_load_state_dict_post_hook(place_state)
    return optimizer


def fused_lamb(optimizers: Any, groups: list[dict[str, Any]], lr: float, beta1: float) -> Any:
    """apex's FusedMixedPrecisionLamb over parameter groups, with learning rates that are numbers, as in any optimiser.

    Gradients are clipped before the step (`tin.train.optim.clip_gradients`), so apex's own limit is infinite.
    """

    class Lamb(optimizers.FusedMixedPrecisionLamb):
        """Loads its state to where the parameters are: apex's own leaves it where the file had it."""

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            super().load_state_dict(state_dict)
            for group in self.param_groups:
                group["step"] = group["step"].to(group["params"][0].device)
            place_state(self)

    rates = [group["lr"] for group in groups]
    optimizer = Lamb(
        [{**group, "lr": torch.tensor(group["lr"])} for group in groups],
        lr=lr,
        betas=(beta1, 0.999),
        max_grad_norm=float("inf"),
    )
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return optimizer


def guarded_step(optimizer: Any, skip: Tensor) -> None:
    """One step of an optimiser of this module, or none where `skip` is 1, decided on the device."""
    if not hasattr(optimizer, "param_groups_full_precision"):
        optimizer._dummy_overflow_buf.copy_(skip)
        optimizer.step()
        return
    rates = [group["lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = torch.full((), rate, device=skip.device)  # filled on the device: a copy from the host would wait
    try:
        optimizer.step(grad_scaler=_Verdict(skip))
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def gradient_norms(gradients: Sequence[Tensor]) -> Tensor:
    """The 2-norm of each gradient, (n,) float32, in one fused launch per 110 tensors."""
    kernels: Any = importlib.import_module("amp_C")
    applier: Any = importlib.import_module("apex.multi_tensor_apply").multi_tensor_applier
    unused = torch.zeros(1, dtype=torch.int32, device=gradients[0].device)
    return applier(kernels.multi_tensor_l2norm, unused, [list(gradients)], True)[1]


class _Verdict:
    """What FusedMixedPrecisionLamb asks of a gradient scaler, for gradients that are unscaled already."""

    def __init__(self, skip: Tensor) -> None:
        self._skip = skip

    def _check_inf_per_device(self, optimizer: Any) -> dict[torch.device, Tensor]:
        return {self._skip.device: self._skip}

    def _get_scale_async(self) -> Tensor:
        return torch.ones(1, device=self._skip.device)


def _unusable(kind: str, why: str) -> TinError:
    return TinError(
        f"--optimizer {kind} is NVIDIA apex's, {why}. Get it, on a machine with an NVIDIA GPU and nvcc, with: {INSTALL} "
        "(the 'apex' of the package index is another project). Or use --optimizer sgd: PyTorch's own fused SGD takes the "
        "same steps as apex-sgd, in fused kernels too"
    )
