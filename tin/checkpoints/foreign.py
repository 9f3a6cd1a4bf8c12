"""What a pickle can hold beside plain values, and the check that a value read from one can be walked."""

from __future__ import annotations

from typing import Any, NamedTuple

from tin.checkpoints.refusal import Refused

MAX_DEPTH = 100
MAX_VALUES = 4_000_000
"""Counted once for each path that leads to them, as whoever copies or prints the value meets them."""


class Global(NamedTuple):
    """A class or function that a pickle names. It is not looked up."""

    name: str


class Foreign:
    """An object of a class that is known and not wanted: what the pickle says of it, without the class.

    Attributes:
        type_name: "module.Class".
        args: what the class would have been called with.
        state: its attributes, in most cases a dict.
    """

    __slots__ = ("args", "state", "type_name")

    def __init__(self, type_name: str, args: tuple[Any, ...] = (), state: Any = None) -> None:
        self.type_name, self.args, self.state = type_name, args, state

    def __repr__(self) -> str:
        return f"<{self.type_name}, not loaded>"


def check_nesting(root: Any) -> Any:
    """The value, if it can be walked by anybody: no cycle, not deep, and not exponentially many paths to shared parts.

    Raises:
        Refused: it has one of these.
    """
    sizes: dict[int, tuple[int, int]] = {}  # of the finished containers: values in them, counted once a path; depth
    path = [(root, iter(_children(root)), 1, 0)]
    on_path = {id(root)}
    while path:
        value, children, count, depth = path.pop()
        for child in children:
            inner = _children(child)
            if not inner:
                count += 1
            elif id(child) in sizes:
                count, depth = count + sizes[id(child)][0], max(depth, sizes[id(child)][1])
            elif id(child) in on_path or len(path) >= MAX_DEPTH:
                raise Refused(f"its values contain each other, or nest deeper than {MAX_DEPTH}")
            else:
                path.append((value, children, count, depth))
                path.append((child, iter(inner), 1, 0))
                on_path.add(id(child))
                break
        else:
            sizes[id(value)] = (count, depth + 1)
            on_path.discard(id(value))
            if count > MAX_VALUES or depth >= MAX_DEPTH:
                raise Refused(f"its values nest deeper than {MAX_DEPTH}, or repeat shared parts without end")
            if path:
                above, rest, so_far, deepest = path.pop()
                path.append((above, rest, so_far + count, max(deepest, depth + 1)))
    return root


def _children(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    if type(value) in (list, tuple):
        return value
    if isinstance(value, Foreign):
        return (value.args, value.state)
    return ()
