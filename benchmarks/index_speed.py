"""Indexing videos against demuxing them with plain PyAV: same files, as many processes, in turns; then the index's second run.

    python benchmarks/index_speed.py data/k400/val.txt --root /data/k400 --out benchmarks/results/index.json
    python benchmarks/index_speed.py data/mine/train.txt --files 5000

With --files, symbolic links to the list's videos, again and again, make up the number. The files are read once before the clock
starts, so they come from memory: a disk that is slower than demuxing is the limit of both alike.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipelines import VideoIndex, VideoList
from tin.bench.machine import describe
from tin.bench.records import new_record, write_record
from tin.bench.timing import ratios, row

# What anybody would write to count packets: the least that an index by demuxing can cost.
DEMUX = """
import sys, av
for path in sys.stdin.read().splitlines():
    try:
        with av.open(path, metadata_errors="ignore") as container:
            for packet in container.demux(container.streams.video[0]):
                pass
    except (av.FFmpegError, IndexError):
        pass
"""
SECOND_RUNS = 5  # of the index that is there, for each first run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path, help="videos, as for the loader")
    parser.add_argument("--root", type=Path, help="folder that its paths are relative to")
    parser.add_argument("--files", type=int, help="videos to index (default: the list's)")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: one a core)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default 3)")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    sources = [os.path.abspath(entry.path) for entry in VideoList.read(options.list, root=options.root).entries]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{place:06}-{Path(source).name}") for place, source in _repeated(sources, options.files)]
        for place, path in enumerate(paths):
            path.symlink_to(sources[place % len(sources)])
        Path(folder, "list.txt").write_text("".join(f"{path.name} 0\n" for path in paths))
        rows, unreadable = measure(VideoList.read(Path(folder, "list.txt")), options.workers, options.rounds)
    settings = {
        "list": str(options.list),
        "videos": len(sources),
        "files": len(paths),
        "unreadable": unreadable,
        "bytes": sum(os.path.getsize(sources[place % len(sources)]) for place in range(len(paths))),
        "workers": options.workers,
        "rounds": options.rounds,
    }
    for line in rows:
        print(f"{line['name']:12} {line['median']:12.1f} {line['unit']}  {line['ratio']:8.2f} × {line['ratio_to']}")
    if options.out is not None:
        command = shlex.join(["python", *sys.argv])
        results = {"index": {"settings": settings, "rows": rows}}
        write_record(options.out, new_record(describe(torch.device("cpu")), command, results))
    return 0


def measure(videos: VideoList, workers: int, rounds: int) -> tuple[list[dict[str, Any]], int]:
    """The rows of the result, in files a second, and how many files cannot be read."""
    store = videos.source.with_name("speed.sqlite")
    demux, first, second = [], [], []
    _demux(videos, workers)
    for turn in range(rounds):
        for what in ("demux", "index") if turn % 2 == 0 else ("index", "demux"):
            if what == "demux":
                demux.append(len(videos) / _demux(videos, workers))
                continue
            store.unlink(missing_ok=True)
            first.append(len(videos) / _build(videos, store, workers))
            again = sorted(_build(videos, store, workers) for _ in range(SECOND_RUNS))
            second.append(len(videos) / again[SECOND_RUNS // 2])
    unreadable = len(VideoIndex.build(videos, store=store, workers=workers).unreadable(videos))
    rows = [
        row("demux alone", "files/s", demux, ratios(demux, demux), "demux alone"),
        row("first run", "files/s", first, ratios(first, demux), "demux alone"),
        row("second run", "files/s", second, ratios(second, first), "first run"),
    ]
    return rows, unreadable


def _build(videos: VideoList, store: Path, workers: int) -> float:
    start = time.perf_counter()
    VideoIndex.build(videos, store=store, workers=workers)
    return time.perf_counter() - start


def _demux(videos: VideoList, workers: int) -> float:
    """Seconds until as many fresh processes have demuxed all files, each every so manieth."""
    paths = [str(entry.path) for entry in videos.entries]
    start = time.perf_counter()
    processes = [
        subprocess.Popen([sys.executable, "-c", DEMUX], stdin=subprocess.PIPE, text=True) for _ in range(workers)
    ]
    for number, process in enumerate(processes):
        assert process.stdin is not None
        process.stdin.write("\n".join(paths[number::workers]))
        process.stdin.close()
    statuses = [process.wait() for process in processes]
    if any(statuses):
        raise SystemExit("plain demuxing failed; see above")
    return time.perf_counter() - start


def _repeated(sources: Sequence[str], files: int | None) -> list[tuple[int, str]]:
    return [(place, sources[place % len(sources)]) for place in range(files or len(sources))]


if __name__ == "__main__":
    sys.exit(main())
