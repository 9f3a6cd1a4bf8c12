"""The training loop: one file to read in one sitting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tin import evaluation
from tin.distributed import (
    World,
    check_equal_weights,
    check_failures,
    gather_objects,
    raise_together,
    shrink_timeout,
)
from tin.errors import TinError
from tin.models.inspect import OffsetProbe
from tin.monitoring import Profiler
from tin.recipes import Recipe
from tin.train.finite import FiniteGuard
from tin.train.keeper import LAST, CheckpointKeeper
from tin.train.log import RunLog
from tin.train.meter import StepMeter, gpu_utilisation, memory_mb
from tin.train.progress import NullReporter, Reporter, StepReport
from tin.train.run import EpochLoader, Interrupted, Progress, TrainResult
from tin.train.state import restore, snapshot
from tin.train.step import TrainStep
from tin.train.stop import StopRequest

PROBED_CLIPS = 64
"""Validation clips whose offsets are looked at."""


class Trainer:
    """Trains a model by a recipe; `fit()` runs it to the end.

    Args:
        model: on the CPU or already on `device`, weights loaded.
        recipe: decides everything not named here.
        train_loader: batches of this process.
        work_dir: receives the checkpoints (`tin.train.keeper`) and the record (`tin.train.log`); made where there is none. One a run.
        val_loader: evaluation batches of this process; None trains without validation.
        val_videos: length of the whole validation list.
        device: where to train.
        world: this process among those of the run; the process group must exist (`tin.distributed.process_group`).
        seed: of everything random in the network; the loader has its own copy.
        label_names, lists: stored in checkpoints: names of the classes, and the files of the "train" and "val" lists.
        name_of: the name of a training video by its position, for the record.
        reversals: class → class of the reversed video, for `time_order_accuracy`.
        reporter: told what happens, on the main process.
        timeout_s: longest wait of a process for the others, from the second step on.
        profile_steps: steps of this run to profile, on the main process; 0 for none.

    Raises:
        TinError: numbers keep going wrong; the last checkpoint cannot be written, or one to resume does not fit.
        Interrupted: after SIGINT, SIGTERM, SIGUSR1 or SIGHUP, when the running step is finished and saved.
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
        name_of: Callable[[int], str] | None = None,
        reversals: Mapping[int, int] | None = None,
        reporter: Reporter | None = None,
        timeout_s: float = 600.0,
        profile_steps: int = 0,
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
        self.progress = Progress()
        self.step = TrainStep(
            model, recipe, lr=scaled_lr(recipe, self.world.size), steps_per_epoch=self.steps_per_epoch,
            device=self.device, world=self.world, seed=seed,
        )  # fmt: skip
        self.model = self.step.model
        self._name_of, self._timeout_s, self._profile_steps = name_of, timeout_s, profile_steps
        self._guard = FiniteGuard(recipe.train.max_skipped, self.step.names, work_dir, name_of)
        self._log: RunLog | None = None
        self._keeper: CheckpointKeeper | None = None
        self._first_step = True
        self._failed, self._bad_videos = (
            0.0,
            0,
        )  # what could not be used when last looked at: over ranks, each video once

    def fit(self) -> TrainResult:
        """Train from where `progress` stands to the last epoch of the recipe. Raises what the class does, and the loader's DataError."""
        started = time.perf_counter()
        metrics: dict[str, float] = {}
        with ExitStack() as stack:
            stack.enter_context(self._recording())
            steps = self._profile_steps if self.world.is_main else 0
            self._profiler = stack.enter_context(Profiler(steps, self.work_dir, say=self.reporter.message))
            self._signals = stack.enter_context(StopRequest(self.world, self.reporter.message))
            while self.progress.epoch < self.recipe.schedule.epochs:
                self._train_epoch()
                metrics = self._end_epoch() or metrics
            self._all_written()
            if self._log:
                self._log.finish(self.progress.global_step, self.progress.best)
        return TrainResult(self.progress.epoch, metrics, dict(self.progress.best), time.perf_counter() - started)

    def resume(self, state: Mapping[str, Any], source: Path) -> None:
        """Continue a checkpoint of this class at the very next clip of its epoch, whatever the number of processes is now.

        Where the training list, the seed or the way of sampling is another, the running epoch begins anew.

        Raises:
            TinError: it is no training checkpoint, or of another model or schedule.
        """
        values = restore(
            state, source, self.recipe, self.model, self.step.optimizer, self.step.scaler, self._global_batch,
            ema=self.step.ema, world=self.world,
        )  # fmt: skip
        self.progress = Progress(**values)
        if self.progress.samples and not self._same_order(state.get("loader")):
            self.progress.samples = 0
            self.reporter.message(
                f"the order of clips is not that of {source} (another list, seed or sampling): epoch {self.progress.epoch + 1} "
                f"begins anew"
            )
        self.progress.step = self.progress.samples // self._global_batch

    # ---- one epoch -----------------------------------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        progress, every = self.progress, self.recipe.train.log_every
        self.step.train_mode()
        self.train_loader.set_epoch(progress.epoch, start_sample=progress.samples)
        last = progress.step + self.train_loader.steps_left
        self.reporter.epoch_start(progress.epoch + 1, self.recipe.schedule.epochs, progress.step, last)
        meter = StepMeter(self.device)
        batches = iter(self.train_loader)
        while True:
            waiting = time.perf_counter()
            batch = next(batches, None)
            meter.wait += time.perf_counter() - waiting
            if batch is None:
                break
            self._train_step(batch, meter)
            signum = self._signals.poll(settle=progress.step == last)
            if signum or progress.step == last or progress.global_step % every == 0 or self._guard.full:
                self._report(meter, last)
                meter = StepMeter(self.device)
            if signum:
                self._save()
                self._interrupt(signum)
            if self._keeper and self._keeper.minutes_due():
                self._save()
        if progress.step != last:
            raise TinError(f"the loader gave {progress.step} of {last} steps in epoch {progress.epoch + 1}")

    def _train_step(self, batch: Any, meter: StepMeter) -> None:
        progress = self.progress
        position = progress.epoch * self.steps_per_epoch + progress.samples / self._global_batch
        outcome = self.step(batch, position=position, global_step=progress.global_step)
        self._guard.record(
            epoch=progress.epoch + 1, step=progress.step + 1, global_step=progress.global_step, ids=batch.ids,
            loss=outcome.loss, grad_norm=outcome.grad_norm, skip=outcome.skipped, scale=outcome.scale,
            per_parameter_norms=outcome.parameter_norms,
        )  # fmt: skip
        meter.add(outcome)
        if self._log and progress.step == 0:
            names = [self._name_of(int(number)) for number in batch.ids] if self._name_of else None
            self._log.clips(progress.global_step, batch.frames, batch.labels, names)
        progress.step += 1
        progress.samples += self._global_batch
        progress.global_step += 1
        self.reporter.step(progress.step)
        self._profiler.step()
        if self._first_step:
            self._first_step = False
            shrink_timeout(self.world, self._timeout_s)

    def _report(self, meter: StepMeter, last: int) -> None:
        """Read the averages (the one place that waits for the device), check them, tell everybody."""
        progress, epochs = self.progress, self.recipe.schedule.epochs
        failures = getattr(self.train_loader, "failures", ())
        averages, (failed,) = meter.read(self.world, float(len(failures)))
        progress.skipped += averages.skipped
        for event in self._guard.drain(self.world):
            if not event.backing_off:
                self.reporter.message(
                    f"epoch {event.epoch}, step {event.step}: the loss or a gradient was not finite, so the step was left out "
                    f"({self._guard.counted} of at most {self.recipe.train.max_skipped}); see nonfinite.json"
                )
        if failed != self._failed:
            self._failed = failed
            everywhere = [failure for part in gather_objects(list(failures), self.world) for failure in part]
            check_failures(self.train_loader, everywhere, self.world)
            self._bad_videos = len({failure.id for failure in everywhere})
        if self._log is None:
            return
        groups = self.step.optimizer.param_groups
        left = (epochs - progress.epoch) * self.steps_per_epoch - progress.step
        report = StepReport(
            epoch=progress.epoch + 1,
            epochs=epochs,
            step=progress.step,
            steps=last,
            loss=averages.loss,
            top1=averages.top1,
            top5=averages.top5 if self.recipe.model.num_classes > 5 else None,
            lr=groups[0]["lr"] / groups[0]["lr_mult"],
            lrs={group["name"]: group["lr"] for group in groups},
            clips_per_second=averages.clips / averages.seconds,
            data_wait=averages.data_wait,
            grad_norm=averages.grad_norm,
            scale=averages.scale,
            memory_mb=memory_mb(self.device),
            gpu_utilisation=gpu_utilisation(self.device),
            eta_s=left * averages.seconds / meter.steps,
            updates=progress.global_step - progress.skipped,
            skipped=progress.skipped,
            bad_videos=self._bad_videos,
            best=progress.best.get("top1_acc"),
        )
        self._log.step(progress.global_step, report)
        self.reporter.report(report)

    # ---- validation and checkpoints ------------------------------------------------------------------------------------------

    def _end_epoch(self) -> dict[str, float] | None:
        """Validate when it is time, and save. Returns the metrics of a validation."""
        progress, epochs = self.progress, self.recipe.schedule.epochs
        check_equal_weights(self.model, self.world)
        epoch = progress.epoch + 1
        metrics = None
        if self.val_loader is not None and (epoch % self.recipe.train.validate_every == 0 or epoch == epochs):
            self._save()  # a run that ends while it validates goes on with the validation
            metrics = self._validate(self.val_loader, epoch)
        progress.epoch, progress.step, progress.samples = epoch, 0, 0
        if self._keeper and metrics:
            self._keeper.validated(epoch, metrics, self._state())
        elif self._keeper:
            self._keeper.epoch_done(epoch, self._state())
        return metrics

    def _validate(self, loader: Iterable[Any], epoch: int) -> dict[str, float]:
        """Metrics of the averaged weights where there are any, else of the weights."""
        done, share = 0, -(-self.val_videos // self.world.size)

        def scored(videos: int) -> None:
            nonlocal done
            done += videos
            self.reporter.validating(done, share)
            if self._signals.noted:
                raise _Noted

        ema = self.step.ema
        probed = OffsetProbe(self.model, PROBED_CLIPS) if self._log else nullcontext()
        try:
            with ema.applied() if ema else nullcontext(), probed as probe:
                scores = evaluation.evaluate(
                    self.model, loader, self.val_videos, autocast=self.step.autocast, world=self.world, on_batch=scored
                )
        except Exception:
            signum = self._signals.poll(
                settle=True
            )  # all ranks are here together: one of them may have been told to stop
            if signum:
                self._interrupt(signum)
            raise
        if not scores.labelled:
            raise TinError("no validation video could be scored with a label: check the validation list")
        metrics = evaluation.compute(
            evaluation.VALIDATION_METRICS, scores.scores, scores.labels, reversals=self.reversals
        )
        metrics["coverage"] = len(scores.ids) / scores.expected
        best = metrics["top1_acc"] > self.progress.best.get("top1_acc", -1.0)
        if best:
            self.progress.best = {**metrics, "epoch": float(epoch)}
        if self._log:
            self._log.validation(self.progress.global_step, epoch, metrics, scores)
            if probe:
                self._log.offsets(self.progress.global_step, epoch, probe.shifts())
            self._log.flush()
        self.reporter.validation(epoch, metrics, best)
        return metrics

    def _state(self) -> dict[str, Any]:
        step, loader = self.step, self.train_loader
        return snapshot(
            self.recipe, self.model, step.optimizer, step.scaler, vars(self.progress), self._global_batch,
            seed=self.seed, label_names=self.label_names, lists=self.lists, ema=step.ema, world_size=self.world.size,
            loader=loader.state_dict() if hasattr(loader, "state_dict") else None,
        )  # fmt: skip

    def _save(self) -> None:
        if self._keeper:
            self._keeper.save(self._state())

    def _all_written(self) -> None:
        """Wait until what was saved is on the disk, all ranks together: the launcher ends them with the first that goes."""
        problem: Exception | None = None
        if self._keeper:
            try:
                self._keeper.finish()
            except TinError as error:
                problem = error
        raise_together(problem, self.world)

    def _interrupt(self, signum: int) -> None:
        self._all_written()
        raise Interrupted(signum, self.work_dir / LAST)

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """The main process's record and checkpoints, complete on the disk afterwards however the run ends."""
        if not self.world.is_main:
            yield
            return
        try:
            self.work_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TinError(f"cannot make {self.work_dir}: {error.strerror}; choose another work_dir") from None
        self._log = RunLog(
            self.work_dir, self.progress.global_step, self.recipe,
            label_names=self.label_names, world_size=self.world.size, warn=self.reporter.message,
        )  # fmt: skip
        self._keeper = CheckpointKeeper(self.work_dir, self.recipe.checkpoint, self.reporter.message)
        try:
            yield
            self._keeper.finish()
        except BaseException:
            with suppress(TinError):  # of a disk that refuses as well: what ended the run matters more
                self._keeper.finish()
            raise
        finally:
            self._log.close()

    # ---- parts ---------------------------------------------------------------------------------------------------------------

    @property
    def _global_batch(self) -> int:
        return self.recipe.train.batch_size * self.recipe.train.accumulate * self.world.size

    def _same_order(self, saved: Mapping[str, Any] | None) -> bool:
        """Whether the loader goes through the clips as the one did that a checkpoint tells of."""
        if saved is None or not hasattr(self.train_loader, "state_dict"):
            return True
        now = self.train_loader.state_dict()
        place = {"epoch", "sample"} | ({"global_batch"} if now.get("repeats", 1) == 1 else set())
        return all(saved.get(key) == value for key, value in now.items() if key not in place)


class _Noted(Exception):
    """A signal came while validating."""


def scaled_lr(recipe: Recipe, world_size: int) -> float:
    """The linear scaling rule: lr · (world size · batch_size · accumulate) / base_batch; the recipe's own lr with
    `scale_lr = false`."""
    settings = recipe.train
    if not settings.scale_lr:
        return recipe.optim.lr
    return recipe.optim.lr * world_size * settings.batch_size * settings.accumulate / settings.base_batch
