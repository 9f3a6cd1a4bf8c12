"""A state as a tree of dicts, lists and tuples: a function applied to its leaves of one kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def map_leaves(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """A copy of the tree with every instance of `kind` in it replaced by `change(instance)`, in a fixed order.

    Other leaves and the keys of dicts are the same objects.
    """
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, dict):
        return type(value)((key, map_leaves(item, kind, change)) for key, item in value.items())
    if type(value) in (list, tuple):
        return type(value)(map_leaves(item, kind, change) for item in value)
    return value
