"""`tin-cli bench export`: exported files beside eager and prepared inference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from cli.bench.report import OUT, Report, check_out


@click.command("export", short_help="Exported files on the CPU, against the eager network.")
@click.option(
    "--arch", default="tin_resnet50", show_default=True, metavar="NAME", help="{tin,tsm,tsn}_resnet{18,34,50,101}."
)
@click.option(
    "--format", "formats", type=click.Choice(["onnx", "torch-export", "aoti"]), multiple=True, default=("onnx",),
    show_default=True, help="Of tin-cli export; may be given often. aoti compiles for a minute or two.",
)  # fmt: skip
@click.option("--batch-size", type=click.IntRange(1, 4096), default=1, show_default=True, help="Clips at a time.")
@click.option("--input-size", type=click.IntRange(32, 1024), default=224, show_default=True, help="Side of a frame.")
@click.option("--num-segments", type=click.IntRange(1, 64), default=8, show_default=True, help="Frames a clip.")
@click.option("--threads", type=click.IntRange(1, 1024), default=None, help="CPU threads of each runtime.")
@click.option("--runs", type=click.IntRange(1), default=None, help="Timed samples of each figure.")
@OUT
def exported(
    arch: str,
    formats: tuple[str, ...],
    batch_size: int,
    input_size: int,
    num_segments: int,
    threads: int | None,
    runs: int | None,
    out: Path | None,
) -> None:
    """Time a network on the CPU as it is, prepared and exported, in turns; its weights are random.

    \b
    tin-cli bench export --threads 2 --out export.json
    tin-cli bench export --format onnx --format aoti
    """
    import torch

    from tin.allocator import keep_freed_memory
    from tin.bench.exported import exported as measure
    from tin.bench.timing import Rounds
    from tin.bench.workload import Workload
    from tin.errors import unknown_name
    from tin.export.onnx_file import require_packages
    from tin.models import ARCHITECTURES

    if arch not in ARCHITECTURES:
        raise unknown_name("architecture", arch, ARCHITECTURES)
    check_out(out)
    if "onnx" in formats:
        require_packages()
    device = torch.device("cpu")
    kept = keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    rounds = Rounds.default(device, quick=False)
    work = Workload(arch, batch_size, num_segments, input_size, "float32", device)
    report = Report(device, kept, out)
    report.add("export", measure(work, replace(rounds, runs=runs or rounds.runs), list(dict.fromkeys(formats))))  # type: ignore[arg-type]
    report.close()
