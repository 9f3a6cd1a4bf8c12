"""The `tin-cli` group: finds commands by name, and turns every mistake of a user into one line and exit status 2."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from cli import _worker

_COMMANDS = {
    "bench": ("cli.bench", "bench"),
    "compare": ("cli.compare", "compare"),
    "convert": ("cli.convert", "convert"),
    "data": ("cli.data", "data"),
    "export": ("cli.export", "export"),
    "info": ("cli.info", "info"),
    "plot": ("cli.plot", "plot"),
    "predict": ("cli.predict", "predict"),
    "report": ("cli.report", "report"),
    "test": ("cli.test", "test"),
    "train": ("cli.train", "train"),
    "zoo": ("cli.zoo", "zoo"),
}


class _Group(click.Group):
    """Imports a command when it is used, so that `--help` does not wait for PyTorch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tin-video", prog_name="tin-cli")
def cli() -> None:
    """Train, test and benchmark Temporal Interlacing Networks on video.

    \b
    A first run, on a data set that is rendered on the spot:
      tin-cli data motion data/motion
      tin-cli train --dataset motion --work-dir runs/motion
      tin-cli test --checkpoint runs/motion/best.pt --out result.json

    Each command explains itself: tin-cli train --help
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script.

    Exit status: 0 done (also `test` where videos failed: its result names them); 1 something of it failed or was found (videos of
    `predict`, files of `data check` and `info`, a part of `bench all`, a regression of `bench compare`), an unexpected error, or lost
    processes; 2 a mistake in what was asked or given; 3 numbers of `bench all` that are unstable; 128 + n ended or stopped by signal n.
    """
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    from pipelines.errors import DataError
    from tin.errors import LostPeers, PeerError, TinError

    _worker.begin()
    try:
        status: Any = cli.main(
            None if arguments is None else list(arguments), prog_name="tin-cli", standalone_mode=False
        )
        return status if isinstance(status, int) else 0
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "tin-cli"
        return _fail(error, f"{error.format_message()} (see {command} --help)")
    except LostPeers as error:
        return _fail(error, str(error), status=1, of_others=True)
    except PeerError as error:  # rank 0 has said why
        _worker.record_failure(error, str(error), 2, of_others=True)
        return 2
    except (click.ClickException, TinError, DataError) as error:
        return _fail(error, error.format_message() if isinstance(error, click.ClickException) else str(error))
    except (click.Abort, KeyboardInterrupt) as error:
        return _fail(error, "interrupted", status=130)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:  # a defect: the traceback helps
        _worker.record_failure(error, f"{type(error).__name__}: {error}", 1)
        raise


def _fail(error: BaseException, message: str, status: int = 2, *, of_others: bool = False) -> int:
    line = " ".join(message.split())
    rank = _worker.rank()
    click.echo(f"tin-cli{f' [rank {rank}]' if rank else ''}: error: {line}", err=True)
    _worker.record_failure(error, line, status, of_others=of_others)
    return status


if __name__ == "__main__":
    main()
