"""Evaluation: scores of every video exactly once, the metrics over them, and the result file."""

from __future__ import annotations

from tin.evaluation.bootstrap import intervals
from tin.evaluation.evaluate import Failed, Scores, evaluate
from tin.evaluation.files import check_path, write_result
from tin.evaluation.metrics import (
    METRICS,
    VALIDATION_METRICS,
    Average,
    balanced_accuracy,
    calibration_error,
    compute,
    mean_average_precision,
    mean_class_accuracy,
    statistics,
    time_order_accuracy,
    title,
    top_k_accuracy,
    values_of,
)
from tin.evaluation.reading import Result, load_result
from tin.evaluation.result import build_result, file_sha256

__all__ = [
    "METRICS",
    "VALIDATION_METRICS",
    "Average",
    "Failed",
    "Result",
    "Scores",
    "balanced_accuracy",
    "build_result",
    "calibration_error",
    "check_path",
    "compute",
    "evaluate",
    "file_sha256",
    "intervals",
    "load_result",
    "mean_average_precision",
    "mean_class_accuracy",
    "statistics",
    "time_order_accuracy",
    "title",
    "top_k_accuracy",
    "values_of",
    "write_result",
]
