"""`tin-cli bench all`: every benchmark, run until its numbers hold still, on one page with a chart."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli._bad import Part as Fraction
from cli._data import find_list
from cli._options import DATASETS, EXISTING_FILE, EXISTING_FOLDER, set_option
from cli.bench.jobs import Job, run_all

if TYPE_CHECKING:
    import torch

    from tin.bench.stability import Criterion
    from tin.bench.summary import Part

PARTS = ("inference", "op", "model", "data", "train", "scaling")
_AMP = {"float32": "off", "float16": "fp16", "bfloat16": "bf16"}


class Names(click.ParamType):
    """Names of parts, separated by commas."""

    name = "NAMES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        asked = [name.strip() for name in value.split(",") if name.strip()]
        wrong = [name for name in asked if name not in PARTS]
        if wrong or not asked:
            self.fail(f"'{', '.join(wrong)}': the parts are {', '.join(PARTS)}", param, ctx)
        return tuple(name for name in PARTS if name in asked)


@click.command("all", short_help="All of them, run until the numbers hold still: JSON, a table and a chart.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR",
    help="Folder for the results, new or empty.",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="Fewer samples, for a first look within minutes.")
@click.option(
    "--parts", type=Names(), default=",".join(PARTS), show_default=True, metavar="NAMES",
    help="Which, separated by commas.",
)  # fmt: skip
@click.option(
    "--max-minutes", type=click.FloatRange(0, min_open=True), default=None,
    help="Nothing is run for longer than this.  [default: 60; 6 with --quick]",
)  # fmt: skip
@click.option(
    "--tolerance", type=Fraction(), default=None, metavar="PART",
    help="How far interval and runs may be from the median.  [default: 5%; 10% with --quick]",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--arch", default=None, metavar="NAME", help="Network.  [default: tin_resnet50; in train and scaling the recipe's]"
)
@click.option("--batch-size", type=click.IntRange(1, 4096), default=None, help="Clips a step.  [default: each part's]")
@click.option("--input-size", type=click.IntRange(32, 1024), default=None, help="Side of a frame.  [default: 224]")
@click.option("--num-segments", type=click.IntRange(1, 64), default=None, help="Frames a clip.  [default: 8]")
@click.option(
    "--dtype", type=click.Choice(list(_AMP)), default=None,
    help="What convolutions compute in.  [default: each part's]",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(0, 1024), default=None, help="Decoding processes.  [default: one a core]"
)
@click.option("--runs", "samples", type=click.IntRange(1), default=None, help="Timed samples of each figure in a run.")
@click.option("--list", "list_path", type=EXISTING_FILE, default=None, help="Videos for data and train.")
@click.option(
    "--dataset", type=click.Choice(DATASETS), default=None,
    help="Data set of data and train, and recipe of train and scaling.  [default: motion]",
)  # fmt: skip
@click.option(
    "--data", type=EXISTING_FOLDER, default=None,
    help="Folder with the data set's train.txt.  [default: $TIN_DATA/DATASET, else data/DATASET]",
)  # fmt: skip
@click.option("--root", type=EXISTING_FOLDER, default=None, help="Folder that the list's paths are relative to.")
@set_option
def everything(
    out: Path,
    quick: bool,
    parts: tuple[str, ...],
    max_minutes: float | None,
    tolerance: float | None,
    device: str,
    arch: str | None,
    batch_size: int | None,
    input_size: int | None,
    num_segments: int | None,
    dtype: str | None,
    workers: int | None,
    samples: int | None,
    list_path: Path | None,
    dataset: str | None,
    data: Path | None,
    root: Path | None,
    overrides: tuple[str, ...],
) -> int:
    """Run every benchmark, each run in a process of its own, and again until its numbers hold still.

    \b
    tin-cli bench all --out speed
    tin-cli bench all --out speed --quick --parts inference,model
    tin-cli bench all --out speed --dataset k400 --data /data/k400 --max-minutes 120

    Each part is run twice at least; what is not stable then again, in turns, up to ten times. A number that is not stable in the end is
    marked so in the JSON, the table and the chart. A part that fails loses no other. --input-size, --num-segments and --set: train and
    scaling take the recipe's, with --set, the others the options.

    \b
    DIR/PART.json    a result file of each part, over the samples of all its runs
    DIR/all.json     what came of each part
    DIR/summary.md   every number with its spread
    DIR/chart.png    the ratios with theirs
    DIR/PART.log     what a part that failed had said

    Exit status: 0 every number is stable (a part without videos is left out, and that is said); 1 a part failed; 2 a mistake in what was
    asked or given; 3 none failed, and some number is unstable.
    """  # fmt: skip
    if out.is_dir() and any(out.iterdir()):
        raise click.UsageError(
            f"--out {out} is not empty: name a new folder, or old results would stand among new ones"
        )
    from tin.bench.stability import Criterion
    from tin.distributed import World, resolve_device
    from tin.errors import unknown_name
    from tin.models import ARCHITECTURES

    if arch is not None and arch not in ARCHITECTURES:
        raise unknown_name("architecture", arch, ARCHITECTURES)
    chosen = resolve_device(device, World())
    criterion = Criterion((0.1 if quick else 0.05) if tolerance is None else tolerance)
    network = {
        "--arch": arch, "--batch-size": batch_size, "--input-size": input_size, "--num-segments": num_segments,
        "--dtype": dtype, "--device": device, "--runs": samples,
    }  # fmt: skip
    recipe = {
        "--dataset": dataset, "--arch": arch, "--batch-size": batch_size, "--amp": _AMP[dtype] if dtype else None,
        "--device": device, "--runs": samples or (3 if quick else None),
    }  # fmt: skip
    # the recipes' batch, whose tensors the caches do not hold; its calls are short, so that a few more cost little
    op = {
        "--batch-size": batch_size or (6 if chosen.type == "cpu" else None),
        "--runs": samples or (10 if quick else None),
    }
    fields = [text for override in overrides for text in ("--set", override)]
    lacking, videos = _videos(list_path, dataset, data, quick) if {"data", "train"} & set(parts) else (None, None)
    short = ["--quick"] if quick else []
    commands = {
        **{name: [name, *_words(network), *short] for name in ("inference", "model")},
        "op": ["op", *_words({**network, **op}), *short],
        "data": ["data", *_words({**network, "--workers": workers, "--list": videos, "--root": root}), *short],
        "train": ["train", *_words({**recipe, "--workers": workers, "--train-list": videos, "--root": root,
                                    "--steps": 4 if quick else None}), *fields],
        "scaling": ["scaling", *_words({**recipe, "--steps": 2 if quick else None}), *fields],
    }  # fmt: skip
    reasons = {"data": lacking, "train": lacking, "scaling": _too_small(chosen)}
    out.mkdir(parents=True, exist_ok=True)
    jobs = [Job(name, ["bench", *commands[name]], out, reasons.get(name)) for name in parts]
    try:
        run_all(jobs, criterion, max_minutes or (6.0 if quick else 60.0))
    finally:  # what was measured before an interruption is kept
        done = [job.part(criterion) for job in jobs]
        _write(out, jobs, done, criterion, chosen)
    states = {part.state for part in done}
    return 1 if "failed" in states else 3 if "unstable" in states else 0


def _words(options: Mapping[str, object | None]) -> list[str]:
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]


def _videos(
    list_path: Path | None, dataset: str | None, data: Path | None, quick: bool
) -> tuple[str | None, Path | None]:
    """Why there are no videos, or their list. The motion set is rendered where it is nowhere, unless it is to be quick."""
    if list_path is not None:
        return None, list_path
    default = Path(os.environ.get("TIN_DATA", "data")) / "motion"
    if quick and dataset in (None, "motion") and data is None and not (default / "train.txt").is_file():
        return f"no videos: --list FILE, --dataset NAME, or make the default ones: tin-cli data motion {default}", None
    return None, find_list(dataset or "motion", "train", data)


def _too_small(device: torch.device) -> str | None:
    """Why several processes cannot be compared with one."""
    import torch

    if device.type == "cuda":
        return None if torch.cuda.device_count() > 1 else "it takes two GPUs"
    return None if len(os.sched_getaffinity(0)) > 1 else "it takes two cores"


def _write(out: Path, jobs: Sequence[Job], parts: Sequence[Part], criterion: Criterion, device: torch.device) -> None:
    from rich.console import Console
    from rich.table import Table

    from cli.bench.report import headline
    from tin import bench as benchmarks
    from tin.bench.records import new_record, write_record
    from tin.bench.summary import HEAD, draw, markdown, table

    command = shlex.join(["tin-cli", *sys.argv[1:]])
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    described = next(
        ({key: job.records[-1][key] for key in ("machine", "versions")} for job in jobs if job.records),
        benchmarks.describe(device),
    )
    for job, part in zip(jobs, parts, strict=True):
        if part.result is None:
            continue
        path = out / f"{part.name}.json"
        record = new_record(
            {key: job.records[-1][key] for key in ("machine", "versions")},
            shlex.join(["tin-cli", *job.command, "--out", str(path)]),
            {part.name: part.result},
            part_of=command,
            stability={"stable": part.state == "stable", "runs": part.runs, "tolerance": criterion.tolerance, "failed": part.failed},
        )  # fmt: skip
        write_record(path, record)
        shown = Table(title=f"{part.name}: {part.words}", title_justify="left")
        for column in HEAD:
            shown.add_column(column, justify="left" if column in ("what", "to", "") else "right")
        for cells in table(part.result):
            shown.add_row(*cells)
        console.print(shown)
    whole = new_record(described, command, {})
    del whole["results"]  # it is no result file itself
    whole["criterion"] = criterion.words
    whole["parts"] = {
        part.name: {"state": part.state, "runs": part.runs, "reason": part.failed or part.left_out} for part in parts
    }
    write_record(out / "all.json", whole)
    title = headline(described)
    drawn = draw(parts, out / "chart.png", title)
    text = markdown(whole, title, parts, criterion, "chart.png" if drawn else None)
    (out / "summary.md").write_text(text, encoding="utf-8")
    for part in parts:
        click.echo(f"{part.name:10}{part.words}")
    click.echo(f"written to {out}: summary.md{', chart.png' if drawn else ''} and a JSON file a part")
