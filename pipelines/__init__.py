"""From files to batches: lists, an index of what is in the videos, clip plans, decoders, DALI graphs and the loader.

Names load on first use, because the decoding processes need neither torch nor DALI. What is public, and what versions
promise, is in docs/versions.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines import crops, errors, mirror, motion, overlay, prepare, reversals, sampling, transcode
    from pipelines.annotations import VideoEntry, VideoList
    from pipelines.batch import Batch, LoaderStats
    from pipelines.errors import DataError, Failure
    from pipelines.index import VideoIndex, VideoInfo
    from pipelines.loader import Loader
    from pipelines.plan import ClipPlan, ClipSpec, make_plan

__all__ = [
    "Batch",
    "ClipPlan",
    "ClipSpec",
    "DataError",
    "Failure",
    "Loader",
    "LoaderStats",
    "VideoEntry",
    "VideoIndex",
    "VideoInfo",
    "VideoList",
    "crops",
    "errors",
    "make_plan",
    "mirror",
    "motion",
    "overlay",
    "prepare",
    "reversals",
    "sampling",
    "transcode",
]

_HOME = {
    "Batch": "batch",
    "ClipPlan": "plan",
    "ClipSpec": "plan",
    "DataError": "errors",
    "Failure": "errors",
    "Loader": "loader",
    "LoaderStats": "batch",
    "VideoEntry": "annotations",
    "VideoIndex": "index",
    "VideoInfo": "index",
    "VideoList": "annotations",
    "make_plan": "plan",
}

if not TYPE_CHECKING:  # a type checker knows the names above, and that there are no others

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(import_module(f"pipelines.{_HOME[name]}"), name)
        if name in __all__:
            return import_module(f"pipelines.{name}")
        raise AttributeError(f"module 'pipelines' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
