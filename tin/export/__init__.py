"""Networks for other programs: ONNX, torch.export and AOTInductor files, each held against the network before it gets its name."""

from __future__ import annotations

from tin.export.formats import FORMATS, Exported, export
from tin.export.metadata import describe, read_metadata

__all__ = ["FORMATS", "Exported", "describe", "export", "read_metadata"]
