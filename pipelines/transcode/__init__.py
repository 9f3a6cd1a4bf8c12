"""Copies of a list's videos that decode fast at random places: small, short groups of pictures, checked, listed, indexed.

Names load on first use, because the worker processes need `encode` alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.transcode.run import TranscodeSummary, transcode
    from pipelines.transcode.settings import ENCODERS, PRESETS, TranscodeSettings, pick_encoder

__all__ = ["ENCODERS", "PRESETS", "TranscodeSettings", "TranscodeSummary", "pick_encoder", "transcode"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pipelines.transcode' has no attribute {name!r}")
    home = "run" if name in ("TranscodeSummary", "transcode") else "settings"
    return getattr(import_module(f"pipelines.transcode.{home}"), name)
