"""From files to batches: lists, an index of what is in the videos, clip plans, decoders, DALI graphs and the loader.

Names load on first use, because the decoding processes need neither torch nor DALI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.annotations import VideoEntry, VideoList
    from pipelines.errors import DataError
    from pipelines.index import VideoIndex, VideoInfo
    from pipelines.loader import Batch, Loader
    from pipelines.plan import ClipPlan, ClipSpec, make_plan

_HOME = {
    "Batch": "loader",
    "ClipPlan": "plan",
    "ClipSpec": "plan",
    "DataError": "errors",
    "Loader": "loader",
    "VideoEntry": "annotations",
    "VideoIndex": "index",
    "VideoInfo": "index",
    "VideoList": "annotations",
    "make_plan": "plan",
}
__all__ = [
    "Batch",
    "ClipPlan",
    "ClipSpec",
    "DataError",
    "Loader",
    "VideoEntry",
    "VideoIndex",
    "VideoInfo",
    "VideoList",
    "make_plan",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
    return getattr(import_module(f"pipelines.{_HOME[name]}"), name)
