"""FusedSGD and FusedMixedPrecisionLamb as their callers see them."""

from __future__ import annotations

import copy
from typing import Any

import amp_C
import torch

from apex.multi_tensor_apply import multi_tensor_applier


class FusedSGD(torch.optim.Optimizer):
    def __init__(
        self, params: Any, lr: float, momentum: float = 0, dampening: float = 0, weight_decay: float = 0,
        nesterov: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
            },
        )
        self._dummy_overflow_buf = torch.tensor([0], dtype=torch.int, device=self.param_groups[0]["params"][0].device)

    def zero_grad(self) -> None:
        super().zero_grad()

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            first = not all("momentum_buffer" in self.state[p] for p in weights)
            for p in weights:
                self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.data))
            lists = [[p.grad for p in weights], weights, [self.state[p]["momentum_buffer"] for p in weights]]
            multi_tensor_applier(
                amp_C.multi_tensor_sgd, self._dummy_overflow_buf, lists, group["weight_decay"], group["momentum"],
                group["dampening"], group["lr"], group["nesterov"], first, False, 1.0,
            )  # fmt: skip


class FusedMixedPrecisionLamb(torch.optim.Optimizer):
    def __init__(
        self, params: Any, lr: float = 1e-3, step: int = 0, bias_correction: bool = True,
        betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6, weight_decay: float = 0.01,
        max_grad_norm: float = 1.0, use_nvlamb: bool = False, reduced_precision_dtype: Any = None,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": torch.tensor(lr), "step": torch.tensor([step], dtype=torch.int), "betas": betas, "eps": eps,
            "bias_correction": bias_correction, "weight_decay": weight_decay, "max_grad_norm": max_grad_norm,
        }  # fmt: skip
        super().__init__(params, defaults)
        device = self.param_groups[0]["params"][0].device
        for group in self.param_groups:
            for name in ("lr", "step"):
                group[name] = group[name].to(device)
        self._dummy_overflow_buf = torch.tensor([0], dtype=torch.int, device=device)
        self.param_groups_full_precision: list[Any] = []
        self._use_nvlamb = use_nvlamb

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        for name in ("lr", "step"):
            self.param_groups[-1][name] = self.defaults[name].clone()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        saved = copy.deepcopy(state_dict)
        weights = [p for group in self.param_groups for p in group["params"]]
        self.state.clear()
        self.state.update({weights[number]: state for number, state in saved["state"].items()})
        for group, of_file in zip(self.param_groups, saved["param_groups"], strict=True):
            group.update({**of_file, "params": group["params"]})

    @torch.no_grad()
    def step(self, closure: Any = None, grad_scaler: Any = None) -> None:
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        found_inf = grad_scaler._check_inf_per_device(self)[weights[0].device]
        self._dummy_overflow_buf.copy_(found_inf)
        scale = grad_scaler._get_scale_async()
        inverse = scale.double().reciprocal().float()
        norm = multi_tensor_applier(
            amp_C.multi_tensor_l2norm, self._dummy_overflow_buf, [[p.grad for p in weights]], False
        )[0]
        for group in self.param_groups:
            group["step"] += (self._dummy_overflow_buf != 1).to(torch.int)
            some = [p for p in group["params"] if p.grad is not None]
            for p in some:
                for name in ("exp_avg", "exp_avg_sq"):
                    self.state[p].setdefault(name, torch.zeros_like(p.data))
            lists = [[p.grad for p in some], [p.data for p in some]]
            lists += [[self.state[p][name] for p in some] for name in ("exp_avg", "exp_avg_sq")]
            multi_tensor_applier(
                amp_C.multi_tensor_lamb_mp, self._dummy_overflow_buf, lists, group["lr"], *group["betas"], group["eps"],
                group["step"], int(group["bias_correction"]), group["weight_decay"], 1, 1, norm,
                self.defaults["max_grad_norm"] * scale, self._use_nvlamb, found_inf, inverse,
            )  # fmt: skip
