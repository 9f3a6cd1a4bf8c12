"""`tin-cli bench`: how fast, and how fast against what it could be at best."""

from __future__ import annotations

import copy

import click

from cli.bench.compare import compare
from cli.bench.everything import everything
from cli.bench.exported import exported
from cli.bench.parts import PARTS, parts
from cli.bench.scaling import scaling
from cli.bench.train import train

__all__ = ["bench"]

_SHORT = "short"
"""What runs when no benchmark is named."""


class _Benchmarks(click.Group):
    """Names of `parts` may follow one another; nothing named is all of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, command in self.commands.items() if not command.hidden]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = [_SHORT, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from tin.errors import unknown_name

        if args[0] not in self.commands:
            raise unknown_name("benchmark", args[0], self.list_commands(ctx))
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, args if name in PARTS else rest


@click.group(cls=_Benchmarks, short_help="Measure speed, each figure against its limit.")
def bench() -> None:
    """Measure speed; without the name of a benchmark, the first four in short form.

    \b
    tin-cli bench
    tin-cli bench inference op --device cuda --out results.json
    tin-cli bench data --list mine/train.txt --batch-size 16
    tin-cli bench train --dataset motion
    tin-cli bench all --out speed
    tin-cli bench compare before after

    What is compared is timed in turns in one run. A ratio of times is best when small, a ratio of clips/s when large; 1 is
    the yardstick itself. inference, op, model and data share
    their options and may be named together.
    """


for _name, _text in {**PARTS, _SHORT: "These four, in short form."}.items():
    _command = copy.copy(parts)
    _command.name, _command.short_help, _command.hidden = _name, _text, _name == _SHORT
    bench.add_command(_command)
for _other in (train, scaling, exported, everything, compare):
    bench.add_command(_other)
