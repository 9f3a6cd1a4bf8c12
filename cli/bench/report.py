"""What every benchmark shows and keeps: the machine, a table with each figure's ratio beside it, a result file."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch
    from rich.table import Table

OUT = click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write everything as JSON."
)

_EXTRA = {
    "megabytes": "MB moved",
    "gb_per_s": "GB/s",
    "reference_ratio": "reference / op",
    "compiled_ratio": "compiled / op",
    "peers_ratio": "peers / op",
    "torchvision_ratio": "to torchvision",
    "eager_ratio": "to eager",
    "peak_memory_mib": "peak MiB",
    "temporal_saved_mib": "saved MiB over TSN",
    "reference_saved_mib": "… with reference",
    "cpu_seconds_per_clip": "CPU s a clip",
    "frames_decoded_per_used": "decoded / used",
    "data_wait": "waits for data",
    "step_ms": "step ms",
    "exchange_ms": "exchange ms",
    "exchange_alone_ms": "… by itself",
    "machine_efficiency": "machine",
    "exchange_efficiency": "× exchange",
    "difference": "logits differ by",
}
"""Fields of a row that a table shows where they are, and the heads of their columns."""


def check_out(out: Path | None) -> None:
    """Refuse a result file that cannot be written, before anything is measured.

    Raises:
        TinError: there is no folder for it.
    """
    from tin.errors import TinError

    if out is not None and not out.resolve().parent.is_dir():
        raise TinError(f"--out {out}: there is no folder {out.resolve().parent}")


class Report:
    """Prints the machine first, then a table for each result; `close` writes the file.

    Args:
        device: what computes.
        kept: whether freed memory is kept (`tin.allocator`).
        out: the result file; None for none.
    """

    def __init__(self, device: torch.device, kept: bool, out: Path | None) -> None:
        from rich.console import Console

        from tin import bench as benchmarks

        self._out = out
        self._results: dict[str, Any] = {}
        self._described = benchmarks.describe(device)
        self._described["machine"]["keeps_freed_memory"] = kept
        self._console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
        click.echo(headline(self._described))

    def add(self, name: str, result: dict[str, Any]) -> None:
        """Show and keep one benchmark's result."""
        self._results[name] = result
        self._console.print(_table(name, result))
        if "verdict" in result:
            self._console.print(result["verdict"]["words"], soft_wrap=True)

    def close(self) -> None:
        """Write the result file."""
        if self._out is None:
            return
        from tin.bench.records import new_record, write_record

        command = shlex.join(["tin-cli", *sys.argv[1:]])
        write_record(self._out, new_record(self._described, command, self._results))
        click.echo(f"written to {self._out}")


def headline(described: Mapping[str, Any]) -> str:
    """Machine and versions in two lines."""
    machine, versions = described["machine"], described["versions"]
    gpu = machine["gpu"]
    where = f"{gpu['name']}, driver {gpu['driver']}; " if gpu else ""
    op = versions["op"]
    return (
        f"{where}{machine['cpu']}, {machine['usable_cores']} cores, {machine['torch_threads']} threads\n"
        f"tin {versions['tin']} ({versions['commit'] or 'no checkout'}), PyTorch {versions['torch']}, "
        f"DALI {versions['dali'] or 'not installed'}, op: {op['cuda'] if gpu else op['cpu']}"
    )


def _table(name: str, result: dict[str, Any]) -> Table:
    """One benchmark's rows, every figure with its ratio beside it."""
    from rich.table import Table

    settings = result["settings"]
    parts = [
        settings.get("arch"),
        f"batch {settings['batch_size']}" if name != "data" else None,
        f"{settings['num_segments']}×{settings['input_size']}²" if "input_size" in settings else None,
        settings.get("dtype"),
        f"{settings['runs']} samples after {settings['warmup']} for warming up",
    ]
    yardsticks = {line["ratio_to"] for line in result["rows"]}
    several = len(yardsticks) > 1  # else the title names the one
    if not several:
        parts += [f"ratio to {yardstick}" for yardstick in yardsticks]
    table = Table(title=f"{name}: " + ", ".join(part for part in parts if part), title_justify="left")
    for column in ("what", "median", "p10 … p90", "unit", "ratio", *(["to"] if several else [])):
        table.add_column(column, justify="left" if column in ("what", "unit", "to") else "right")
    extra = [key for key in _EXTRA if any(line.get(key) is not None for line in result["rows"])]
    for key in extra:
        table.add_column(_EXTRA[key], justify="right")
    for line in result["rows"]:
        table.add_row(
            line["name"], f"{line['median']:.4g}", f"{line['p10']:.4g} … {line['p90']:.4g}", line["unit"],
            f"{line['ratio']:.3f}", *([line["ratio_to"]] if several else []),
            *("" if line.get(key) is None else f"{line[key]:.4g}" for key in extra),
        )  # fmt: skip
    skipped = next((line["compiled_skipped"] for line in result["rows"] if line.get("compiled_skipped")), None)
    if skipped:
        table.caption = f"torch.compile of the reference: {skipped}"
    return table
