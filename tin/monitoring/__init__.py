"""What a run shows besides its curves: clips, offsets, confusions, settings, and where its time goes."""

from __future__ import annotations

from tin.models.inspect import OffsetProbe
from tin.monitoring.clips import clip_grid, clip_tiles
from tin.monitoring.confusion import confusion_counts, draw_confusion, write_confusion
from tin.monitoring.events import EventFile
from tin.monitoring.files import Appender
from tin.monitoring.offsets import OffsetHistory
from tin.monitoring.profiler import Profiler

__all__ = [
    "Appender",
    "EventFile",
    "OffsetHistory",
    "OffsetProbe",
    "Profiler",
    "clip_grid",
    "clip_tiles",
    "confusion_counts",
    "draw_confusion",
    "write_confusion",
]
