"""`tin-cli bench inference|op|model|data`: networks, op and loader, each against its yardstick."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli._data import find_list
from cli._options import DATASETS, EXISTING_FILE, EXISTING_FOLDER
from cli.bench.files import data_on_files
from cli.bench.report import OUT, Report, check_out

if TYPE_CHECKING:
    import torch

    from tin.bench.timing import Rounds
    from tin.bench.workload import Workload

PARTS = {
    "inference": "One clip, the forward alone, as it is and prepared, against the plain ResNet (TSN).",
    "op": "Temporal interlace at every layer's shape, against a copy of the same bytes and other ways.",
    "model": "Inference of a clip and of a batch, and training step, of TIN, TSM and TSN, against TSN.",
    "data": "Clips a second from files, against decoding alone.",
}
NO_LIST = "data skipped: no list given (--list FILE, or make the default one: tin-cli data motion data/motion)"


@click.command()
@click.argument("what", type=click.Choice(list(PARTS)), nargs=-1, metavar="[WHAT]...")
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
@click.option("--list", "list_path", type=EXISTING_FILE, default=None, help="Videos for data.")
@click.option("--dataset", type=click.Choice(DATASETS), default=None, help="Data set instead.  [default: motion]")
@click.option(
    "--data",
    type=EXISTING_FOLDER,
    default=None,
    help="Folder with the data set's train.txt.  [default: $TIN_DATA/DATASET, else data/DATASET]",
)
@click.option("--root", type=EXISTING_FOLDER, default=None, help="Folder that the list's paths are relative to.")
@OUT
def parts(
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
    """Measure any of these, one after the other; all, in short form, when none is named:

    \b
    inference  one clip, the network's forward alone, as it is and prepared, against the plain ResNet (TSN)
    op         temporal interlace at every layer's shape, against a copy of the same bytes and other ways
    model      inference of one clip and of a batch, and training step, of TIN, TSM and TSN, against TSN
    data       clips a second from files, against decoding alone

    \b
    tin-cli bench inference op --device cuda --out results.json
    tin-cli bench data --list mine/train.txt --batch-size 16
    """
    import torch

    from tin.allocator import keep_freed_memory
    from tin.distributed import World, resolve_device
    from tin.errors import unknown_name
    from tin.models import ARCHITECTURES

    if arch not in ARCHITECTURES:
        raise unknown_name("architecture", arch, ARCHITECTURES)
    check_out(out)
    chosen = resolve_device(device, World())
    kept = chosen.type == "cpu" and keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    names = [name for name in PARTS if name in what] or list(PARTS)
    videos = None
    if "data" in names:
        videos = list_path or _data_list(dataset, data, demanded="data" in what)
        if videos is None:
            click.echo(NO_LIST, err=True)
            names.remove("data")
    request = _Request(
        arch, batch_size, input_size, num_segments,
        dtype or ("float16" if chosen.type == "cuda" else "float32"), layout, chosen, workers, quick or not what, runs,
        videos, root,
    )  # fmt: skip
    report = Report(chosen, kept, out)
    for name in names:
        report.add(name, _run(name, request))
    report.close()


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
    work = request.work(8)
    return data_on_files(request.videos, request.root, work, request.workers, request.quick, request.runs)


def _data_list(dataset: str | None, data: Path | None, demanded: bool) -> Path | None:
    """The training list of the data set; without any wish for one, only a motion data set that is there already."""
    if dataset or data or demanded:
        return find_list(dataset or "motion", "train", data)
    path = Path(os.environ.get("TIN_DATA", "data")) / "motion" / "train.txt"
    return path if path.is_file() else None
