"""One optimiser step: forward and backward over a batch, gradients clipped and exchanged, weights moved, nothing waited for."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from tin.distributed import World
from tin.errors import TinError
from tin.recipes import Recipe
from tin.train.amp import autocast
from tin.train.ema import Ema
from tin.train.mix import mix_clips
from tin.train.norm_stats import NormStatistics
from tin.train.optim import build_optimizer, clip_gradients, freeze_partial_bn, guarded_step
from tin.train.schedule import lr_factor


class Outcome(NamedTuple):
    """What a step came to; 0-dim tensors on the device, which nobody has waited for."""

    loss: Tensor
    """Mean over this process's batch."""
    hits1: Tensor
    hits5: Tensor
    """Clips of this process's batch whose label is the best score, or among the best five."""
    clips: int
    grad_norm: Tensor
    """Of all parameters and processes, before clipping."""
    parameter_norms: Tensor
    """(parameters,) of each, in the order of `TrainStep.names`."""
    skipped: Tensor
    """1.0 where the gradients were not finite and the weights were left alone, else 0.0."""
    scale: Tensor | None
    """Of the fp16 loss, before this step; None without one."""


class TrainStep:
    """A model with everything that moves its weights, called once a step.

    With `train.accumulate` k the batch is taken in k parts, one after the other, whose mean gradient makes the step; processes
    exchange gradients in the last part alone. A step with gradients that are not finite changes neither weights, nor
    momentum, nor BatchNorm statistics; it is decided on the device.

    Args:
        model: on the CPU or already on `device`, weights loaded; moved there in channels_last.
        recipe: decides everything not named here.
        lr: base learning rate, already scaled.
        steps_per_epoch: optimiser steps of an epoch at this world size.
        device: where to train.
        world: this process among those of the run; the process group must exist.
        seed: of dropout and mixing.

    Attributes:
        model, parallel: the network, and what wraps it for the exchange between processes.
        optimizer, scaler, ema, norm_statistics: what a checkpoint has to hold beside the weights.
        names: of the trained parameters.

    Raises:
        TinError: the recipe asks for what this device or installation does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        lr: float,
        steps_per_epoch: int,
        device: torch.device,
        world: World,
        seed: int,
    ) -> None:
        settings = recipe.train
        self.recipe, self.lr, self.steps_per_epoch = recipe, lr, steps_per_epoch
        self.device, self.world, self.seed = device, world, seed
        if settings.sync_bn and world.size > 1:
            if device.type != "cuda":
                raise TinError("train.sync_bn needs GPUs: PyTorch's SyncBatchNorm does not run on a CPU; leave it off")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train_mode()
        self.optimizer = build_optimizer(self.model, recipe.optim, lr)
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16")
        self.ema = Ema(self.model, settings.ema) if settings.ema is not None else None
        self.norm_statistics = NormStatistics(self.model, world)
        trained = {parameter: name for name, parameter in self.model.named_parameters()}
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.names = [trained[parameter] for parameter in self._parameters]
        self.parallel = self._wrap()
        self._forward = torch.compile(self.parallel) if settings.compile else self.parallel

    def train_mode(self) -> None:
        """Put the network into training mode, partial BatchNorm heeded; after every evaluation."""
        self.model.train()
        if self.recipe.optim.partial_bn:
            freeze_partial_bn(self.model)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        return autocast(self.recipe.train.amp, self.device)

    def __call__(self, batch: Any, *, position: float, global_step: int) -> Outcome:
        """Train on a batch.

        Args:
            batch: `frames` (N·T, 3, H, W) and `labels` (N,) on the device; N = batch_size · accumulate.
            position: optimiser steps from the beginning of the schedule, where an epoch has as many as it has at this world
                size; a fraction after a change of the world size within an epoch.
            global_step: steps taken, for the draws of dropout and mixing.
        """
        self._set_rates(position)
        # Dropout is a function of (seed, step, rank), so a resumed run draws what the uninterrupted one would have.
        torch.manual_seed((self.seed * 1_000_003 + global_step) * 4096 + self.world.rank)
        frames, targets, labels = self._mixed(batch, global_step)
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.recipe.train.accumulate
        losses, scores = [], []
        for part, (some_frames, some_targets) in enumerate(zip(frames.chunk(parts), targets.chunk(parts), strict=True)):
            with self._exchanging(part == parts - 1):
                with self.autocast():
                    logits = self._forward(some_frames).float()
                    loss = F.cross_entropy(logits, some_targets, label_smoothing=self.recipe.optim.label_smoothing)
                self.scaler.scale(loss / parts).backward()
            losses.append(loss.detach())
            scores.append(logits.detach())
        scale = self.scaler._get_scale_async() if self.scaler.is_enabled() else None
        if scale is not None:
            scale = scale.clone()
            self.scaler.unscale_(self.optimizer)
        optim = self.recipe.optim
        norms = clip_gradients(self._parameters, optim.clip_norm, fused_by_apex=optim.kind != "sgd")
        guarded_step(self.optimizer, norms.skip)
        self.scaler.update()
        self.norm_statistics.settle(norms.skip)
        if self.ema:
            self.ema.update()
        loss = losses[0] if parts == 1 else torch.stack(losses).mean()
        hits = _hits(torch.cat(scores), labels)
        return Outcome(loss, *hits, len(labels), norms.total, norms.per_parameter, norms.skip, scale)

    # ---- parts ---------------------------------------------------------------------------------------------------------------

    def _set_rates(self, position: float) -> None:
        factor = lr_factor(self.recipe.schedule, position, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * group["lr_mult"] * factor

    def _mixed(self, batch: Any, global_step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Frames, targets of the loss, and labels to count accuracy against."""
        settings = self.recipe.train
        if not (settings.mixup or settings.cutmix):
            return batch.frames, batch.labels, batch.labels
        mixed = mix_clips(
            batch.frames, batch.labels, self.recipe.model.num_classes,
            mixup=settings.mixup, cutmix=settings.cutmix, probability=settings.mix_probability,
            seed=self.seed, step=global_step, rank=self.world.rank,
        )  # fmt: skip
        return mixed.frames, mixed.targets, mixed.labels

    def _exchanging(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients are summed over the processes in the last part of a batch."""
        if last or not isinstance(self.parallel, DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()

    def _wrap(self) -> nn.Module:
        if self.world.size == 1:
            return self.model
        settings = self.recipe.train
        # DDP forms its buckets anew after the first step, and a sum over three processes or more depends on its bucket: a
        # resumed run would differ in the last bits. It does not where it looks for unused parameters.
        fixed_buckets = torch.are_deterministic_algorithms_enabled() and self.world.size > 2
        with warnings.catch_warnings():  # its successor, forward_sync_buffers, is not in the oldest PyTorch we support
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            parallel = DistributedDataParallel(
                self.model,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
                broadcast_buffers=False,  # NormStatistics shares them, in one exchange
                # PyTorch 2.15 fails on an internal assertion where a static graph's first backward pass is not exchanged.
                static_graph=settings.static_graph and settings.accumulate == 1 and not fixed_buckets,
                find_unused_parameters=fixed_buckets,
            )
        if settings.grad_compression == "bf16":
            parallel.register_comm_hook(None, bf16_compress_hook)
        return parallel


def _hits(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    best = scores.topk(min(5, scores.shape[1]), dim=1).indices == labels.unsqueeze(1)
    return best[:, 0].sum(), best.sum()
