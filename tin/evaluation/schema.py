"""The format of result files, as one set of types: what the reader checks and what result.schema.json says."""

from __future__ import annotations

import builtins
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA = "tin-result"
VERSION = 2

Whole = Field(ge=0)
Fraction = Field(ge=0.0, le=1.0)


class _Part(BaseModel):
    """Unknown keys are left alone, so that a newer writer may add some; a change that breaks readers raises the version."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Intervals(_Part):
    """95 % intervals of the metrics: percentiles of their values over lists of videos drawn anew, with replacement."""

    level: float = Field(gt=0.0, lt=1.0)
    """Part of the drawn lists whose metric is within the interval."""
    resamples: int = Field(ge=1)
    """Number of lists drawn."""
    seed: int = Whole
    """Of the draws."""
    values: dict[str, list[float]]
    """Name of the metric → [low, high]."""

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        for name, span in self.values.items():
            if len(span) != 2 or span[0] > span[1]:
                raise ValueError(f"'{name}' must be [low, high]")
        return self


class Failure(_Part):
    """A video that could not be scored."""

    id: str
    """The video, as the list has it."""
    reason: str
    """What was wrong with it."""


class Coverage(_Part):
    """How much of the list the metrics stand on."""

    expected: int = Whole
    """Videos in the list."""
    scored: int = Whole
    """Videos that have scores; metrics are over these."""
    failed: int = Whole
    """Videos that could not be scored."""
    failures: list[Failure]
    """Each of them."""


class ClassFigures(_Part):
    """One class."""

    index: int = Whole
    """Its number, from 0."""
    name: str | None
    """Its name, where the list has names."""
    videos: int = Whole
    """Scored videos of the class."""
    predicted: int = Whole
    """Scored videos that were predicted as it."""
    correct: int = Whole
    """Scored videos that are both."""
    accuracy: float | None = Fraction
    """correct ÷ videos; null without videos."""
    average_precision: float | None = Fraction
    """Of the class against the rest; null without videos, or when mean_average_precision was not asked for."""


class Checkpoint(_Part):
    """The weights."""

    path: str
    """The file, as it was named."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the file."""
    weights: Literal["raw", "ema"] | None
    """ema: the moving averages that the file has of the weights; raw: the weights themselves; null: version 1 did not say."""


class Member(_Part):
    """A result whose scores went into an ensemble."""

    path: str
    """The result file."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of the result file."""
    weight: float = Field(gt=0.0)
    """Part that its scores have in the mean; the weights add up to 1."""
    checkpoint: Checkpoint | None
    """The weights it was made with; null for an ensemble."""


class Views(_Part):
    """What the network saw of a video."""

    crop: Literal["center", "three", "ten"]
    """Crops of each frame."""
    sampling: Literal["test", "twice", "dense_test"]
    """How the frames of a clip are chosen (recipe key data.test_sampling)."""
    clips: int = Field(ge=1)
    """Clips of a video."""
    views: int = Field(ge=1)
    """Crops × clips: forward passes whose scores are averaged."""


class Commit(_Part):
    """The checkout that ran."""

    commit: str
    """Of git."""
    dirty: bool
    """Whether a file differed from it."""


class Video(_Part):
    """One video of the list: its label and prediction, or why it failed."""

    id: str
    """As the list has it."""
    label: int | None = Field(default=None, ge=0)
    """Its class; null where the list has none, and where it failed."""
    prediction: int | None = Field(default=None, ge=0)
    """The class with the highest score, of equal ones the lowest; absent where it failed."""
    failed: str | None = None
    """Why it has no scores; absent where it has."""


class ResultFile(_Part):
    """The result of a test: metrics, coverage and the scores of every video, with what produced them."""

    model_config = ConfigDict(title="tin-result")

    schema_: Literal["tin-result"] = Field(alias="schema")
    """Which format this is."""
    version: Literal[2]
    """Of the format."""
    created: str | None = Field(default=None, pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")
    """When it was made, UTC; absent in older files."""
    metrics: dict[str, float]
    """Fractions of 1 over the scored videos; empty where a video has no label."""
    intervals: Intervals | None
    """Intervals of the metrics; null without metrics."""
    coverage: Coverage
    """How much of the list they stand on."""
    per_class: builtins.list[ClassFigures] | None
    """A row a class, in order; null without labels."""
    confusion: builtins.list[builtins.list[int]] | None
    """Numbers of videos: a row a label, a column a prediction; null without labels."""
    list: str
    """The list of videos."""
    root: str | None = None
    """The folder that paths in the list are relative to; absent in older files."""
    checkpoint: Checkpoint | None
    """The weights; null for an ensemble."""
    ensemble: builtins.list[Member] | None
    """The results whose scores were averaged; null for a test."""
    recipe: dict[str, Any] | None
    """The whole recipe that the scores were made with; null for an ensemble."""
    views: Views | None
    """What the network saw of a video; null for an ensemble."""
    average: Literal["prob", "score"]
    """prob: a video's scores are the mean over its views of softmax; score: of logits."""
    versions: dict[str, str]
    """Of the programs that computed."""
    commit: Commit | None
    """The checkout that ran; null for an installed package."""
    command: builtins.list[str]
    """What was typed."""
    label_names: builtins.list[str] | None
    """Names of the classes, where the list has them."""
    reversals: builtins.list[builtins.list[int]] | None
    """[class, class of the same video played backwards], for time_order_accuracy; null where the data set has none."""
    videos: builtins.list[Video]
    """In list order."""
    scores: builtins.list[builtins.list[float] | None]
    """In list order: a score a class, or null where the video failed."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        coverage, classes = self.coverage, {len(row) for row in self.scores if row is not None}
        scored = sum(row is not None for row in self.scores)
        if not len(self.videos) == len(self.scores) == coverage.expected:
            raise ValueError(
                f"videos ({len(self.videos)}), scores ({len(self.scores)}) and coverage.expected ({coverage.expected}) differ in number"
            )
        if (coverage.scored, coverage.failed) != (scored, len(self.scores) - scored):
            raise ValueError(
                f"coverage says {coverage.scored} scored and {coverage.failed} failed, scores has {scored} of {len(self.scores)}"
            )
        if len(classes) > 1 or 0 in classes:
            raise ValueError(
                f"scores has rows of {min(classes)} and of {max(classes)} numbers: each must have one a class"
            )
        for place, (video, row) in enumerate(zip(self.videos, self.scores, strict=True)):
            if (row is None) != (video.failed is not None) or (row is None) != (video.prediction is None):
                raise ValueError(
                    f"videos.{place} has either scores and a prediction, or failed: '{video.id}' mixes them"
                )
            if row is not None and max(video.label or 0, video.prediction or 0) >= len(row):
                raise ValueError(f"videos.{place} ('{video.id}') names a class that scores has no column for")
        if len({video.id for video in self.videos}) < len(self.videos):
            raise ValueError("videos has the same id twice")
        if self.label_names is not None and classes and classes != {len(self.label_names)}:
            raise ValueError(f"label_names has {len(self.label_names)} names, scores {max(classes)} classes")
        for name, table in (("per_class", self.per_class), ("confusion", self.confusion)):
            if table is not None and {len(table)} != classes:
                raise ValueError(f"{name} has {len(table)} rows, scores {max(classes, default=0)} classes")
        if any(len(row) != len(self.confusion or ()) for row in self.confusion or ()):
            raise ValueError("confusion must have as many columns as rows")
        if any(len(pair) != 2 for pair in self.reversals or ()):
            raise ValueError("reversals must be pairs of classes")
        return self


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the format, which the package carries as result.schema.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ResultFile.model_json_schema(by_alias=True),
    }
