"""Evaluation: scores of every video exactly once, the metrics over them, and the result file."""

from __future__ import annotations

from tin.evaluation.bootstrap import intervals
from tin.evaluation.evaluate import Failed, Scores, evaluate
from tin.evaluation.metrics import (
    METRICS,
    VALIDATION_METRICS,
    balanced_accuracy,
    calibration_error,
    compute,
    mean_average_precision,
    mean_class_accuracy,
    statistics,
    time_order_accuracy,
    title,
    top_k_accuracy,
)
from tin.evaluation.result import build_result, file_sha256, write_json

__all__ = [
    "METRICS",
    "VALIDATION_METRICS",
    "Failed",
    "Scores",
    "balanced_accuracy",
    "build_result",
    "calibration_error",
    "compute",
    "evaluate",
    "file_sha256",
    "intervals",
    "mean_average_precision",
    "mean_class_accuracy",
    "statistics",
    "time_order_accuracy",
    "title",
    "top_k_accuracy",
    "write_json",
]
