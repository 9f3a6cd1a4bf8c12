"""The fields of a recipe, their types and their limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Channels = tuple[float, float, float]


class _Settings(BaseModel):
    """Unknown keys are refused, never ignored; a recipe does not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSettings(_Settings):
    """What `tin.build_model` is called with."""

    arch: str = "tin_resnet50"
    """`{tin,tsm,tsn}_resnet{18,34,50,101}`."""
    num_classes: int = Field(ge=1)
    num_segments: int = Field(default=8, ge=1, le=64)
    """T, frames of a clip."""
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)
    shift_div: int | None = Field(default=None, ge=1)
    """Channels ÷ shift_div are shifted; the architecture's own value when absent (TIN 4, TSM 8)."""
    pretrained: str | None = None
    """`imagenet`, or a checkpoint file; None trains from scratch."""


class DataSettings(_Settings):
    """Which frames and which part of them the network sees (`pipelines.ClipSpec`)."""

    input_size: int = Field(default=224, ge=16, le=1024)
    """Side of the square network input, in pixels."""
    short_side: int = Field(default=256, ge=16, le=2048)
    """Short side a frame is (virtually) resized to before the crop, in pixels."""
    train_sampling: Literal["train", "keep_tail", "dense_train"] = "train"
    test_sampling: Literal["test", "twice", "dense_test"] = "test"
    train_crop: Literal["multi_scale", "center"] = "multi_scale"
    test_crop: Literal["center", "three", "ten"] = "center"
    scales: tuple[Probability, ...] = Field(default=(1.0, 0.875, 0.75, 0.66), min_length=1)
    """Crop sizes of multi_scale, as parts of the short side."""
    num_crop_offsets: Literal[5, 13] = 5
    flip: Probability = 0.5
    """Probability of a horizontal flip of the whole clip. 0 where left and right are labels."""
    mean: Channels = (123.675, 116.28, 103.53)
    """RGB, of 0…255."""
    std: Channels = (58.395, 57.12, 57.375)

    @model_validator(mode="after")
    def _crop_fits(self) -> DataSettings:
        if self.input_size > self.short_side:
            raise ValueError(
                f"input_size {self.input_size} does not fit into short_side {self.short_side}: raise short_side or lower input_size"
            )
        return self


class OptimSettings(_Settings):
    """SGD and its parameter groups (`tin.train.parameter_groups`)."""

    lr: Positive
    """Learning rate for a global batch of `train.base_batch` clips."""
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: NotNegative = 5e-4
    nesterov: bool = False
    clip_norm: Positive | None = 20.0
    """Largest total gradient norm; None does not clip."""
    fc_lr5: bool = True
    """Five times the rate for the classifier's weight, ten times for its bias (MMAction2's name for it). For a classifier that
    starts anew on a pretrained network; a network trained from scratch does better without."""
    partial_bn: bool = False
    """Keep the statistics and weights of every BatchNorm but the first as they are (the authors' script)."""


class ScheduleSettings(_Settings):
    """The learning rate over time (`tin.train.schedule`)."""

    kind: Literal["cosine", "step", "constant"] = "cosine"
    epochs: int = Field(ge=1, le=100_000)
    per_step: bool = False
    """False: the rate changes at epochs (MMAction2 0.x); True: at every step, after the warm-up (MMAction2 1.x)."""
    warmup_epochs: float = Field(default=0.0, ge=0.0)
    warmup_start: Probability = 0.1
    """Factor the linear warm-up begins with."""
    final_lr: Probability = 0.0
    """Cosine: the last rate, as a part of the first."""
    milestones: tuple[int, ...] = ()
    """Step: the epochs at which the rate is multiplied by `gamma`."""
    gamma: Probability = 0.1

    @model_validator(mode="after")
    def _consistent(self) -> ScheduleSettings:
        if self.kind == "step" and not self.milestones:
            raise ValueError("kind 'step' needs milestones, for example milestones = [20, 40]")
        if self.kind != "step" and self.milestones:
            raise ValueError(f"milestones belong to kind 'step', not to '{self.kind}'")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} is longer than the {self.epochs} epochs of the run")
        return self


class TrainSettings(_Settings):
    """The training loop (`tin.train.Trainer`)."""

    batch_size: int = Field(default=6, ge=1, le=65_536)
    """Clips of one process in one step."""
    base_batch: int = Field(default=48, ge=1)
    """Global batch that `optim.lr` was chosen for; see `scale_lr`."""
    scale_lr: bool = True
    """Linear scaling rule: lr · (world size · batch_size) / base_batch."""
    validate_every: int = Field(default=5, ge=1)
    """Epochs between validations; the last epoch is always validated."""
    amp: Literal["off", "fp16", "bf16"] = "fp16"
    log_every: int = Field(default=20, ge=1)
    """Steps between two reads of the loss, log lines and TensorBoard points."""


class Recipe(_Settings):
    """A whole recipe."""

    name: str
    dataset: str
    description: str = ""
    model: ModelSettings
    data: DataSettings = DataSettings()
    optim: OptimSettings
    schedule: ScheduleSettings
    train: TrainSettings = TrainSettings()
