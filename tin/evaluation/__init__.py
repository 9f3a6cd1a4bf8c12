"""Evaluation: scores of every video exactly once, the metrics over them, and the result file."""

from __future__ import annotations

from tin.evaluation.evaluate import Failed, Scores, evaluate
from tin.evaluation.metrics import METRICS, compute, mean_class_accuracy, time_order_accuracy, top_k_accuracy
from tin.evaluation.result import build_result, file_sha256, write_json

__all__ = [
    "METRICS",
    "Failed",
    "Scores",
    "build_result",
    "compute",
    "evaluate",
    "file_sha256",
    "mean_class_accuracy",
    "time_order_accuracy",
    "top_k_accuracy",
    "write_json",
]
