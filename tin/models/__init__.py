"""Residual networks for video: TIN, TSM and the plain TSN they are measured against."""

from __future__ import annotations

from tin.models.resnet import ARCHITECTURES, TemporalResNet, build_model

__all__ = ["ARCHITECTURES", "TemporalResNet", "build_model"]
