"""BatchNorm's running statistics: the same on all ranks, and never those of a step that was left out."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tin.distributed import World


class NormStatistics:
    """Keeps the running statistics of a model's BatchNorms in step with its weights.

    A forward pass moves each rank's statistics by its own batch, before anybody knows whether the step counts. `settle`
    makes them the mean over the ranks, in one exchange of all of them together (0.2 MB for a ResNet-50), and after a step
    that is left out it makes them what they were after the last good one. So all ranks hold the same statistics after every
    step, the checkpoint of rank 0 is the whole state, and a NaN in a batch poisons nothing.

    Only BatchNorms in training mode take part; frozen ones (partial BN) are not touched. SyncBatchNorms have the same
    statistics on every rank already and are left out of the exchange.

    Args:
        model: on its device, SyncBatchNorm already converted. A state that it loads later counts as good.
        world: this process among those of the run; the process group must exist by the first `settle`.
    """

    def __init__(self, model: nn.Module, world: World) -> None:
        self._world = world
        self._norms = [
            module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None
        ]
        self._norms.sort(key=lambda norm: isinstance(norm, nn.SyncBatchNorm))  # those to exchange come first
        model.register_load_state_dict_post_hook(self._loaded)
        self._remember()

    @torch.no_grad()
    def settle(self, skip: Tensor | None = None) -> None:
        """Call once after each step, on all ranks, before the model leaves training mode; nothing waits for the device.

        Args:
            skip: 0-dim, 1 where the step was left out on all ranks, else 0 (`tin.train.optim.clip_gradients` has it); None: it
                was not.
        """
        norms = [norm for norm in self._norms if norm.training]
        if not norms:
            return
        values, counts = _buffers(norms)
        now, counted = torch.cat(values), torch.stack(counts)
        if self._world.size > 1:
            own = [norm for norm in norms if not isinstance(norm, nn.SyncBatchNorm)]
            shared = now[: 2 * sum(norm.num_features for norm in own)]
            if len(shared):
                dist.all_reduce(shared)
                shared.div_(self._world.size)
        good = [self._good[norm] for norm in norms]
        good_values = [value for of_norm in good for value in of_norm[:2]]
        good_counts = [of_norm[2] for of_norm in good]
        if skip is not None:
            left_out = skip > 0
            now = torch.where(left_out, torch.cat(good_values), now)  # chosen, not multiplied: NaN · 0 is NaN
            counted = torch.where(left_out, torch.stack(good_counts), counted)
        parts = now.split([len(value) for value in values])
        for targets in (values, good_values):
            torch._foreach_copy_(targets, parts)
        for numbers in (counts, good_counts):
            torch._foreach_copy_(numbers, counted.unbind())

    def _loaded(self, module: nn.Module, keys: Any) -> None:
        self._remember()

    def _remember(self) -> None:
        self._good = {norm: [value.clone() for value in _of(norm)] for norm in self._norms}


def _of(norm: _BatchNorm) -> tuple[Tensor, Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    return norm.running_mean, norm.running_var, norm.num_batches_tracked


def _buffers(norms: list[_BatchNorm]) -> tuple[list[Tensor], list[Tensor]]:
    """Means and variances, by turns, and counters."""
    buffers = [_of(norm) for norm in norms]
    return [value for of_norm in buffers for value in of_norm[:2]], [of_norm[2] for of_norm in buffers]
