"""`--max-bad`: how many videos may be unreadable, and the list of them where they are more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from tin.distributed import World

Function = TypeVar("Function", bound=Callable[..., Any])


class Part(click.ParamType):
    """A part of a whole, as `1%` or `0.01`; the value is the fraction."""

    name = "part"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value).strip()
        try:
            part = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
        except ValueError:
            part = -1.0
        if not 0 <= part <= 1:  # also not a number
            self.fail(f"{value!r} is no part: give a percentage as 1%, or a fraction as 0.01", param, ctx)
        return part


def max_bad_option(function: Function) -> Function:
    """--max-bad PART."""
    return click.option(
        "--max-bad", type=Part(), default=None, metavar="PART",
        help="Stop, with the list of them, when more of the videos cannot be read: 1% or 0.01.  [default: go on]",
    )(function)  # fmt: skip


@contextmanager
def bad_videos_listed(world: World) -> Iterator[None]:
    """Where there are too many bad videos, print a line for each before the error that names the first."""
    from pipelines.errors import BadVideosError
    from tin.errors import PeerError

    try:
        yield
    except BadVideosError as error:
        if not world.is_main:  # rank 0 has the same list
            raise PeerError(str(error)) from None
        for failure in error.failures:
            click.echo(f"failed: {failure.name}: {failure.reason}", err=True)
        raise
