"""Published weights: which there are, what was reported for them, and their files, fetched once and checked."""

from __future__ import annotations

from tin.zoo.fetch import cached, fetch
from tin.zoo.table import Published, find, published

__all__ = ["Published", "cached", "fetch", "find", "published"]
