"""The training loop: one file to read in one sitting."""

from __future__ import annotations

import math
import signal
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tin import evaluation
from tin.checkpoints import save_checkpoint
from tin.distributed import World, barrier, check_failures, gather_objects, sum_over_ranks
from tin.errors import TinError
from tin.recipes import Recipe
from tin.train.amp import autocast
from tin.train.log import RunLog
from tin.train.meter import Meter, memory_mb
from tin.train.mix import mix_clips
from tin.train.optim import build_optimizer, freeze_partial_bn
from tin.train.progress import NullReporter, Reporter, StepReport
from tin.train.schedule import lr_factor
from tin.train.state import restore, snapshot


class EpochLoader(Protocol):
    """What the loop asks of a loader (`pipelines.Loader` is one)."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...

    def set_epoch(self, epoch: int, start_step: int = 0) -> None: ...


class Interrupted(Exception):
    """A signal ended the run after a finished, saved step."""

    def __init__(self, signum: int, checkpoint: Path) -> None:
        super().__init__(
            f"interrupted by {signal.Signals(signum).name}; state saved in {checkpoint}, --resume goes on from there"
        )
        self.exit_status = 128 + signum


@dataclass
class Progress:
    """Where a run stands; part of every checkpoint."""

    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps done in the running epoch."""
    global_step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    """Metrics of the best validation, by top-1, with its epoch."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    epochs: int
    metrics: Mapping[str, float]
    """Of the last validation; empty without one."""
    best: Mapping[str, float]
    seconds: float


class Trainer:
    """Trains a model by a recipe; `fit()` runs it to the end.

    Args:
        model: on the CPU or already on `device`, weights loaded.
        recipe: decides everything not named here.
        train_loader: batches of this process; `len`, iteration, `set_epoch(epoch, start_step)` (`pipelines.Loader`).
        work_dir: receives `last.pt`, `best.pt`, `log.jsonl`, `tensorboard/`.
        val_loader: evaluation batches of this process; None trains without validation.
        val_videos: length of the whole validation list.
        device: where to train.
        world: this process among those of the run; the process group must exist (`tin.distributed.process_group`).
        seed: of everything random in the network; the loader has its own copy.
        label_names, lists: stored in checkpoints: names of the classes, and the files of the "train" and "val" lists.
        reversals: class → class of the reversed video, for `time_order_accuracy`.
        reporter: told what happens, on the main process.

    Raises:
        TinError: the loss becomes NaN or infinite; a checkpoint to resume does not fit.
        Interrupted: after SIGINT or SIGTERM, when the running step is finished and saved.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        train_loader: EpochLoader,
        work_dir: Path,
        *,
        val_loader: Iterable[Any] | None = None,
        val_videos: int = 0,
        device: torch.device | str = "cpu",
        world: World | None = None,
        seed: int = 0,
        label_names: Sequence[str] | None = None,
        lists: Mapping[str, str] | None = None,
        reversals: Mapping[int, int] | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self.recipe = recipe
        self.device = torch.device(device)
        self.world = world or World()
        self.seed = seed
        self.work_dir = work_dir
        self.label_names = list(label_names) if label_names else None
        self.lists = dict(lists or {})
        self.reversals = dict(reversals or {})
        self.reporter = reporter if reporter and self.world.is_main else NullReporter()
        self.train_loader, self.val_loader, self.val_videos = train_loader, val_loader, val_videos
        self.steps_per_epoch = len(train_loader)

        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.optim.partial_bn:
            freeze_partial_bn(self.model)
        self.lr = scaled_lr(recipe, self.world.size)
        self.optimizer = build_optimizer(self.model, recipe.optim, self.lr)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.train.amp == "fp16")
        self.progress = Progress()
        self._parallel = self._wrap()
        self._signal: int | None = None
        self._failed = 0.0  # videos that could not be used, summed over ranks, when last looked at

    def fit(self) -> TrainResult:
        """Train from where `progress` stands to the last epoch of the recipe."""
        started = time.perf_counter()
        metrics: dict[str, float] = {}
        log = RunLog(self.work_dir, self.progress.global_step) if self.world.is_main else None
        epochs = self.recipe.schedule.epochs
        try:
            with self._catching_signals():
                while self.progress.epoch < epochs:
                    self._train_epoch(log)
                    self.progress.epoch += 1
                    self.progress.step = 0
                    due = self.progress.epoch % self.recipe.train.validate_every == 0 or self.progress.epoch == epochs
                    self._average_norm_statistics()
                    if due and self.val_loader is not None:
                        metrics = self._validate(log)
                    else:
                        self._save("last.pt")
        finally:
            if log:
                log.close()
        return TrainResult(epochs, metrics, dict(self.progress.best), time.perf_counter() - started)

    def resume(self, state: Mapping[str, Any], source: Path) -> None:
        """Continue a checkpoint of this class at its very next step.

        Raises:
            TinError: it is no training checkpoint, or of another model or schedule.
        """
        self.progress = Progress(
            **restore(state, source, self.recipe, self.model, self.optimizer, self.scaler, self._global_batch)
        )
        self._parallel = self._wrap()

    # ---- one epoch -----------------------------------------------------------------------------------------------------------

    def _train_epoch(self, log: RunLog | None) -> None:
        progress, settings = self.progress, self.recipe.train
        self._parallel.train()
        if self.recipe.optim.partial_bn:
            freeze_partial_bn(self.model)
        self.train_loader.set_epoch(progress.epoch, start_step=progress.step)
        self.reporter.epoch_start(progress.epoch + 1, self.recipe.schedule.epochs, progress.step, self.steps_per_epoch)
        meter = Meter(self.device)
        batches = iter(self.train_loader)
        while True:
            waiting = time.perf_counter()
            batch = next(batches, None)
            meter.wait += time.perf_counter() - waiting
            if batch is None:
                break
            self._train_step(batch, meter)
            progress.step += 1
            progress.global_step += 1
            self.reporter.step(progress.step)
            if progress.global_step % settings.log_every == 0 or progress.step == self.steps_per_epoch:
                self._report(meter, log)
                meter = Meter(self.device)
            elif self.world.size == 1 and self._signal:
                self._stop()
        if progress.step != self.steps_per_epoch:
            raise TinError(
                f"the loader gave {progress.step} of {self.steps_per_epoch} steps in epoch {progress.epoch + 1}"
            )

    def _train_step(self, batch: Any, meter: Meter) -> None:
        factor = lr_factor(self.recipe.schedule, self.progress.global_step, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * group["lr_mult"] * factor
        # Dropout is a function of (seed, step, rank), so a resumed run draws what the uninterrupted one would have.
        torch.manual_seed((self.seed * 1_000_003 + self.progress.global_step) * 4096 + self.world.rank)
        frames, targets, labels = self._mixed(batch)
        with self._autocast():
            logits = self._parallel(frames)
            loss = F.cross_entropy(logits.float(), targets)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        norm = None
        if self.recipe.optim.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optim.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        meter.add(loss.detach(), logits.detach(), labels, norm)

    def _mixed(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Frames, targets of the loss, and labels to count accuracy against."""
        settings = self.recipe.train
        if not (settings.mixup or settings.cutmix):
            return batch.frames, batch.labels, batch.labels
        mixed = mix_clips(
            batch.frames, batch.labels, self.recipe.model.num_classes,
            mixup=settings.mixup, cutmix=settings.cutmix, probability=settings.mix_probability,
            seed=self.seed, step=self.progress.global_step, rank=self.world.rank,
        )  # fmt: skip
        return mixed.frames, mixed.targets, mixed.labels

    def _report(self, meter: Meter, log: RunLog | None) -> None:
        """Read the averages (the one place that waits for the device), check them, tell everybody."""
        progress, schedule = self.progress, self.recipe.schedule
        failures = getattr(self.train_loader, "failures", ())
        own = [float(meter.clips), 1.0 if self._signal else 0.0, float(len(failures))]
        totals = torch.cat([meter.sums, torch.tensor(own, device=self.device, dtype=torch.float64)])
        loss_sum, hits, clips, stops, failed = sum_over_ranks(totals, self.world).tolist()
        if failed != self._failed:
            self._failed = failed
            parts = gather_objects(list(failures), self.world)
            check_failures(self.train_loader, [failure for part in parts for failure in part], self.world)
        seconds = time.perf_counter() - meter.started
        loss = loss_sum / clips
        left = schedule.epochs * self.steps_per_epoch - progress.global_step
        report = StepReport(
            epoch=progress.epoch + 1,
            epochs=schedule.epochs,
            step=progress.step,
            steps=self.steps_per_epoch,
            loss=loss,
            top1=hits / clips,
            lr=self.optimizer.param_groups[0]["lr"] / self.optimizer.param_groups[0]["lr_mult"],
            clips_per_second=clips / seconds,
            data_wait=meter.wait / seconds,
            grad_norm=None if meter.norm is None else float(meter.norm),
            memory_mb=memory_mb(self.device),
            eta_s=left * seconds / meter.steps,
        )
        if not math.isfinite(loss):
            raise TinError(
                f"the loss is {loss} at epoch {report.epoch}, step {report.step}: lower optim.lr, add warm-up "
                f"(schedule.warmup_epochs) or use --amp bf16; {self.work_dir / 'last.pt'} holds the last good epoch"
            )
        if log:
            log.step(progress.global_step, report, {g["name"]: g["lr"] for g in self.optimizer.param_groups})
        self.reporter.report(report)
        if stops:
            self._signal = self._signal or int(signal.SIGTERM)
            self._stop()

    # ---- validation and checkpoints ------------------------------------------------------------------------------------------

    def _validate(self, log: RunLog | None) -> dict[str, float]:
        assert self.val_loader is not None
        epoch = self.progress.epoch
        scores = evaluation.evaluate(
            self.model, self.val_loader, self.val_videos, autocast=self._autocast, world=self.world
        )
        if not scores.labelled:
            raise TinError("no validation video could be scored with a label: check the validation list")
        metrics = evaluation.compute(evaluation.METRICS, scores.scores, scores.labels, reversals=self.reversals)
        metrics["coverage"] = len(scores.ids) / scores.expected
        best = metrics["top1_acc"] > self.progress.best.get("top1_acc", -1.0)
        if best:
            self.progress.best = {**metrics, "epoch": float(epoch)}
        if log:
            log.validation(self.progress.global_step, epoch, metrics)
            log.flush()
        self.reporter.validation(epoch, metrics, best)
        self._save("last.pt", *(["best.pt"] if best else []))
        return metrics

    def _save(self, *names: str) -> None:
        if self.world.is_main:
            state = snapshot(
                self.recipe, self.model, self.optimizer, self.scaler, vars(self.progress), self._global_batch,
                seed=self.seed, label_names=self.label_names, lists=self.lists,
            )  # fmt: skip
            for name in names:
                save_checkpoint(self.work_dir / name, state)
        barrier(self.world)

    def _stop(self) -> None:
        assert self._signal is not None
        self._average_norm_statistics()
        self._save("last.pt")
        raise Interrupted(self._signal, self.work_dir / "last.pt")

    def _average_norm_statistics(self) -> None:
        """Give every rank the mean of all ranks' BatchNorm statistics; between validations each keeps its own."""
        if self.world.size == 1:
            return
        for buffer in self.model.buffers():
            if buffer.is_floating_point():
                sum_over_ranks(buffer, self.world).div_(self.world.size)

    # ---- parts ---------------------------------------------------------------------------------------------------------------

    @property
    def _global_batch(self) -> int:
        return self.recipe.train.batch_size * self.world.size

    def _wrap(self) -> nn.Module:
        if self.world.size == 1:
            return self.model
        devices = [self.device] if self.device.type == "cuda" else None
        with warnings.catch_warnings():  # its successor, forward_sync_buffers, is not in the oldest PyTorch we support
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(
                self.model, device_ids=devices, gradient_as_bucket_view=True, broadcast_buffers=False
            )

    def _autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.recipe.train.amp, self.device)

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        """First SIGINT or SIGTERM: finish the step, save, raise Interrupted. A second one acts as it always does."""

        def note(signum: int, frame: FrameType | None) -> None:
            self._signal = signum
            signal.signal(signum, before[signum])
            self.reporter.message("finishing this step, then saving; press Ctrl-C again to leave at once")

        before: dict[int, Any] = {}
        for signum in (signal.SIGINT, signal.SIGTERM):
            before[signum] = signal.signal(signum, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def scaled_lr(recipe: Recipe, world_size: int) -> float:
    """The linear scaling rule: lr · (world size · batch_size) / base_batch; the recipe's own lr with `scale_lr = false`."""
    if not recipe.train.scale_lr:
        return recipe.optim.lr
    return recipe.optim.lr * world_size * recipe.train.batch_size / recipe.train.base_batch
