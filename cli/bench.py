"""`tin-cli bench`: how fast, and how fast against what it could be at best."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli._bench_files import run_on_files
from cli._data import find_list
from cli._options import DATASETS, EXISTING_FILE, EXISTING_FOLDER

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from tin.bench.timing import Rounds
    from tin.bench.workload import Workload

BENCHMARKS = ("inference", "op", "model", "data", "train")
NO_LIST = (
    "data and train skipped: no list given (--list FILE, or make the default one: tin-cli data motion data/motion)"
)


@click.command(short_help="Measure speed, each figure against its limit.")
@click.argument("what", type=click.Choice(BENCHMARKS), nargs=-1, metavar="[WHAT]...")
@click.option(
    "--arch", default="tin_resnet50", show_default=True, metavar="NAME", help="{tin,tsm,tsn}_resnet{18,34,50,101}."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 4096),
    default=None,
    help="Clips a step; inference always takes 1.  [default: 8; on a CPU 1, but for data]",
)
@click.option("--input-size", type=click.IntRange(32, 1024), default=224, show_default=True, help="Side of a frame.")
@click.option("--num-segments", type=click.IntRange(1, 64), default=8, show_default=True, help="Frames a clip.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default=None,
    help="What convolutions compute in; half types under autocast.  [default: float16 on a GPU, float32 on a CPU]",
)
@click.option(
    "--layout",
    type=click.Choice(["channels_last", "contiguous", "both"]),
    default="channels_last",
    show_default=True,
    help="Memory format of op's inputs.",
)
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(1, 1024), default=None, help="CPU threads of PyTorch.")
@click.option(
    "--workers", type=click.IntRange(0, 1024), default=None, help="Decoding processes.  [default: one a core]"
)
@click.option("--quick", is_flag=True, help="Fewer samples; also what happens when no WHAT is named.")
@click.option("--runs", type=click.IntRange(1), default=None, help="Timed samples of each figure.")
@click.option("--list", "list_path", type=EXISTING_FILE, default=None, help="Videos for data and train.")
@click.option("--dataset", type=click.Choice(DATASETS), default=None, help="Data set instead.  [default: motion]")
@click.option(
    "--data",
    type=EXISTING_FOLDER,
    default=None,
    help="Folder with the data set's train.txt.  [default: $TIN_DATA/DATASET, else data/DATASET]",
)
@click.option("--root", type=EXISTING_FOLDER, default=None, help="Folder that the list's paths are relative to.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write everything as JSON.")
def bench(
    what: tuple[str, ...],
    arch: str,
    batch_size: int | None,
    input_size: int,
    num_segments: int,
    dtype: str | None,
    layout: str,
    device: str,
    threads: int | None,
    workers: int | None,
    quick: bool,
    runs: int | None,
    list_path: Path | None,
    dataset: str | None,
    data: Path | None,
    root: Path | None,
    out: Path | None,
) -> None:
    """Measure speed. WHAT is any of these; all, in short form, when none is named:

    \b
    inference  one clip, the network's forward alone, as it is and prepared, against the plain ResNet (TSN)
    op         temporal interlace at every layer's shape, against a copy of the same bytes and other ways
    model      inference of one clip and of a batch, and training step, of TIN, TSM and TSN, against TSN
    data       clips a second from files, against decoding alone
    train      training from files, against the limit that loader and network set

    \b
    tin-cli bench
    tin-cli bench inference op --device cuda --out results.json
    tin-cli bench data train --list mine/train.txt --batch-size 16

    What is compared is timed in turns in one process. A ratio of times is best when small, a ratio of clips/s when large;
    1 is the yardstick itself.
    """
    import torch
    from rich.console import Console

    from tin import bench as benchmarks
    from tin.allocator import keep_freed_memory
    from tin.distributed import World, resolve_device
    from tin.errors import TinError, unknown_name
    from tin.models import ARCHITECTURES

    if arch not in ARCHITECTURES:
        raise unknown_name("architecture", arch, ARCHITECTURES)
    if out is not None and not out.resolve().parent.is_dir():
        raise TinError(f"--out {out}: there is no folder {out.resolve().parent}")
    chosen = resolve_device(device, World())
    kept = chosen.type == "cpu" and keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    names = [name for name in BENCHMARKS if name in what] or list(BENCHMARKS)
    short = quick or not what
    videos = None
    if "data" in names or "train" in names:
        videos = list_path or _data_list(dataset, data, demanded="data" in what or "train" in what)
        if videos is None:
            click.echo(NO_LIST, err=True)
            names = [name for name in names if name not in ("data", "train")]
    request = _Request(
        arch, batch_size, input_size, num_segments,
        dtype or ("float16" if chosen.type == "cuda" else "float32"), layout, chosen, workers, short, runs,
        videos, root,
    )  # fmt: skip

    described = benchmarks.describe(chosen)
    described["machine"]["keeps_freed_memory"] = kept
    click.echo(_headline(described))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    results = {}
    for name in names:
        results[name] = _run(name, request)
        console.print(_table(name, results[name]))
    if out is not None:
        record = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["tin-cli", *sys.argv[1:]]),
            **described,
            "results": results,
        }
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        click.echo(f"written to {out}")


@dataclass(frozen=True)
class _Request:
    arch: str
    batch_size: int | None
    input_size: int
    num_segments: int
    dtype: str
    layout: str
    device: torch.device
    workers: int | None
    quick: bool
    runs: int | None
    videos: Path | None
    root: Path | None

    def work(self, cpu_batch: int) -> Workload:
        from tin.bench.workload import Workload

        batch = self.batch_size or (cpu_batch if self.device.type == "cpu" else 8)
        return Workload(self.arch, batch, self.num_segments, self.input_size, self.dtype, self.device)

    def rounds(self, slow: bool = False) -> Rounds:
        """`slow` is for what takes many times an inference: files and training steps."""
        from tin.bench.timing import Rounds

        rounds = Rounds.default(self.device, self.quick)
        if slow:
            on_cpu = self.device.type == "cpu"
            rounds = Rounds(1 if on_cpu else min(rounds.warmup, 10), 3 if self.quick else 5 if on_cpu else 50)
        return replace(rounds, runs=self.runs) if self.runs else rounds


def _run(name: str, request: _Request) -> dict[str, Any]:
    from tin import bench as benchmarks

    if name == "inference":
        return benchmarks.inference(request.work(1), request.rounds())
    if name == "op":
        layouts = ["channels_last", "contiguous"] if request.layout == "both" else [request.layout]
        skip = "left out of the short form: compiling takes minutes" if request.quick else None
        return benchmarks.op(request.work(1), request.rounds(), layouts=layouts, skip_compiled=skip)
    if name == "model":
        return benchmarks.model(request.work(1), request.rounds(), request.rounds(slow=True))
    assert request.videos is not None
    # On a CPU a step of eight clips of 224² takes half a minute; the loader's rate hardly depends on the batch.
    work = request.work(8 if name == "data" else 1)
    return run_on_files(name, request.videos, request.root, work, request.workers, request.quick, request.runs)


def _data_list(dataset: str | None, data: Path | None, demanded: bool) -> Path | None:
    """The training list of the data set; without any wish for one, only a motion data set that is there already."""
    if dataset or data or demanded:
        return find_list(dataset or "motion", "train", data)
    path = Path(os.environ.get("TIN_DATA", "data")) / "motion" / "train.txt"
    return path if path.is_file() else None


def _headline(described: dict[str, Any]) -> str:
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
}
"""Fields of a row that a table shows where they are, and the heads of their columns."""
