"""The fields of a recipe, their types and their limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

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


class ColorJitterSettings(_Settings):
    """Random colours of training clips (`pipelines.color.ColorJitter`): factors in [max(0, 1 − x), 1 + x]."""

    brightness: NotNegative = 0.0
    contrast: NotNegative = 0.0
    saturation: NotNegative = 0.0
    hue: float = Field(default=0.0, ge=0.0, le=0.5)
    """Part of the colour circle, either way."""
    probability: Probability = 1.0
    """Part of the clips that are changed at all."""

    @model_validator(mode="after")
    def _changes_something(self) -> ColorJitterSettings:
        if not (self.brightness or self.contrast or self.saturation or self.hue):
            raise ValueError(
                "it changes nothing: set brightness, contrast, saturation or hue, or leave color_jitter out"
            )
        return self


class DataSettings(_Settings):
    """Which frames and which part of them the network sees (`pipelines.ClipSpec`)."""

    input_size: int = Field(default=224, ge=16, le=1024)
    """Side of the square network input, in pixels."""
    short_side: int = Field(default=256, ge=16, le=2048)
    """Short side a frame is (virtually) resized to before the crop, in pixels."""
    train_sampling: Literal["train", "keep_tail", "dense_train"] = "train"
    test_sampling: Literal["test", "twice", "dense_test"] = "test"
    test_clips: int | None = Field(default=None, ge=1, le=1000)
    """Clips that `test` and `dense_test` take of a video; None for 1 and 10."""
    train_crop: Literal["multi_scale", "random_resized", "center"] = "multi_scale"
    test_crop: Literal["center", "three", "ten"] = "center"
    scales: tuple[Probability, ...] = Field(default=(1.0, 0.875, 0.75, 0.66), min_length=1)
    """Crop sizes of multi_scale, as parts of the short side."""
    num_crop_offsets: Literal[5, 13] = 5
    crop_area: tuple[Positive, Positive] = (0.08, 1.0)
    """Smallest and largest part of the frame that random_resized takes."""
    crop_aspect: tuple[Positive, Positive] = (0.75, 4 / 3)
    """Smallest and largest width ÷ height of random_resized."""
    flip: Probability = 0.5
    """Probability of a horizontal flip of the whole clip. 0 where left and right are labels, unless `flip_labels` is set."""
    flip_labels: str | None = None
    """Exchange the labels that name a side with the flip: `something-v1`, `something-v2`, `labels` (made from the names in
    labels.txt) or a file (`pipelines.mirror`)."""
    color_jitter: ColorJitterSettings | None = None
    repeats: int = Field(default=1, ge=1, le=64)
    """Times an epoch shows each video, each drawn anew and all in one global batch (repeated augmentation)."""
    class_balanced: Probability = 0.0
    """0: every video once an epoch; else videos are drawn with replacement, so that a class of n has a share in proportion
    to n^(1 − class_balanced): 0.5 square-root sampling, 1 all classes alike."""
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

    @model_validator(mode="after")
    def _consistent(self) -> DataSettings:
        for name, (low, high), most in (("crop_area", self.crop_area, 1), ("crop_aspect", self.crop_aspect, 100)):
            if not low <= high <= most:
                raise ValueError(
                    f"{name} [{low:g}, {high:g}]: the smaller number comes first, and the larger is at most {most}"
                )
        if self.test_sampling == "twice" and self.test_clips not in (None, 2):
            raise ValueError(f"test_sampling 'twice' takes 2 clips of a video, not {self.test_clips}: use 'test'")
        return self


class OptimSettings(_Settings):
    """The optimiser and its parameter groups (`tin.train.parameter_groups`), and the loss."""

    kind: Literal["sgd", "apex-sgd", "lamb"] = "sgd"
    """`sgd` is PyTorch's, fused; `apex-sgd` and `lamb` are FusedSGD and FusedMixedPrecisionLamb of NVIDIA apex."""
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
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Part of the target that is spread evenly over all classes (Szegedy et al. 2016)."""

    @model_validator(mode="after")
    def _consistent(self) -> OptimSettings:
        if self.nesterov and (self.momentum == 0 or self.kind == "lamb"):
            raise ValueError("nesterov belongs to SGD with momentum: set nesterov = false or give a momentum")
        return self


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
    """Clips of one process in one forward pass."""
    accumulate: int = Field(default=1, ge=1, le=4096)
    """Forward passes whose gradients make one step: the batch of k · batch_size clips in the memory of batch_size."""
    base_batch: int = Field(default=48, ge=1)
    """Global batch that `optim.lr` was chosen for; see `scale_lr`."""
    scale_lr: bool = True
    """Linear scaling rule: lr · (world size · batch_size · accumulate) / base_batch."""
    validate_every: int = Field(default=5, ge=1)
    """Epochs between validations; the last epoch is always validated."""
    pretrained_segments: Literal["refuse", "resample", "fresh"] = "refuse"
    """What a TIN of another number of segments is as `model.pretrained`: an error, or a start for all but its layers of that
    size, which are resampled in time or start afresh (`tin.load_checkpoint`)."""
    amp: Literal["off", "fp16", "bf16"] = "fp16"
    mixup: NotNegative = 0.0
    """α of mixup (0.2 and 0.8 are usual); 0 is off. With cutmix too, either takes a step with equal chances."""
    cutmix: NotNegative = 0.0
    """α of CutMix (1.0 is usual); 0 is off."""
    mix_probability: Probability = 1.0
    """Part of the steps that mixup and cutmix take."""
    log_every: int = Field(default=20, ge=1)
    """Steps between two reads of the loss, log lines and TensorBoard points."""
    ema: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Decay of an exponential moving average of the weights (0.9999 is usual), which is validated and saved; None keeps none."""
    max_skipped: int = Field(default=10, ge=0)
    """Steps that may be left out because their loss or gradients were not finite before the run stops."""
    sync_bn: bool = False
    """BatchNorm statistics over the batches of all processes (`torch.nn.SyncBatchNorm`; GPUs only)."""
    compile: bool = False
    """Run the network through `torch.compile`."""
    static_graph: bool = True
    """Tell DDP that every step uses the same parameters in the same order, so that it can plan its exchange; without effect
    where gradients are accumulated, or on three processes or more with --deterministic."""
    grad_compression: Literal["none", "bf16"] = "none"
    """Exchange gradients between processes as they are or in bfloat16, half the bytes."""
    tf32: bool = True
    """Float32 convolutions and products may use TensorFloat-32 on GPUs that have it."""

    @model_validator(mode="after")
    def _clips_to_mix(self) -> TrainSettings:
        if (self.mixup or self.cutmix) and self.batch_size < 2:
            raise ValueError("mixup and cutmix mix clips of a batch: batch_size must be at least 2")
        return self


class CheckpointSettings(_Settings):
    """Which checkpoints a run keeps beside `last.pt` and `best.pt` (`tin.train.CheckpointKeeper`)."""

    every_epochs: int = Field(default=0, ge=0)
    """Keep the state after every so many epochs; 0 keeps none."""
    every_minutes: Positive | None = 10.0
    """Write `last.pt` within an epoch, too, when so much time has passed; None writes it at the end of epochs alone."""
    keep_top: int = Field(default=1, ge=1, le=1000)
    """How many of the best validated states to keep; 1 is `best.pt` alone."""


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
    checkpoint: CheckpointSettings = CheckpointSettings()

    def clip_settings(self) -> dict[str, Any]:
        """The fields of `pipelines.ClipSpec` by this recipe: `ClipSpec(**recipe.clip_settings())`.

        `flip_labels` is not among them: what it maps depends on the list (`pipelines.mirror.mirror_classes`).
        """
        settings = self.data.model_dump(exclude={"flip_labels", "repeats", "class_balanced"})
        return {"num_segments": self.model.num_segments, **settings}
