"""The loader against PyAV, decord, torchcodec, torchvision and MMAction2: same clips, same cores, same output, in turns.

    python benchmarks/peer_files.py FILES VIDEO...
    python benchmarks/peers_data.py FILES/untouched/train.txt --out benchmarks/results/data-untouched.json

Every reader runs in a process tree of its own. All trees but one are stopped (SIGSTOP), so none disturbs another, and each goes on in its
next turn where it was, in full stride. First all must show that they deliver the same frames.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import signal
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.reading.agreement import agree
from benchmarks.reading.trees import Tree
from pipelines import VideoIndex, VideoList
from tin.bench.machine import describe
from tin.bench.records import new_record, write_record
from tin.bench.timing import median_ratio, ratios, row

NEEDS = {  # reader: module, distributions whose versions tell what was measured
    "loader": ("pipelines", []),
    "decode-only": ("pipelines", []),
    "pyav": ("av", ["av"]),
    "decord": ("decord", ["decord"]),
    "torchcodec": ("torchcodec", ["torchcodec"]),
    "torchcodec-approximate": ("torchcodec", ["torchcodec"]),
    "torchvision": ("torchvision", ["torchvision"]),
    "mmaction2": ("mmaction", ["mmaction2", "mmcv-lite", "mmengine", "decord", "opencv-python"]),
}
OURS = ("loader", "decode-only")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path, help="videos or frame folders, as for the loader")
    parser.add_argument("--root", type=Path, help="folder that its paths are relative to")
    parser.add_argument("--copies", type=Path, help="list of transcoded copies, which the loader alone reads too")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes of each reader (default 2)")
    parser.add_argument("--batch-size", type=int, default=8, help="clips (default 8)")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each reader in all (default 20)")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each reader (default 4)")
    parser.add_argument("--only", nargs="+", choices=list(NEEDS), default=list(NEEDS), help="readers")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()

    job = {
        "list": str(options.list.resolve()),
        "root": str(options.root.resolve()) if options.root else None,
        "workers": options.workers,
        "batch_size": options.batch_size,
    }
    videos = VideoList.read(job["list"], root=job["root"])
    index = VideoIndex.build(videos)
    unreadable = index.unreadable(videos)
    if unreadable:
        sys.exit(f"{unreadable[0][0].id}: {unreadable[0][1]}: the comparison needs a list of readable videos")
    folders = any(index[entry].template for entry in videos.entries)
    unfit = ("decode-only", "pyav", "decord", "torchcodec", "torchcodec-approximate") if folders else ("torchvision",)
    names = [name for name in options.only if name not in unfit]
    absent = [name for name in names if importlib.util.find_spec(NEEDS[name][0]) is None]
    for name in absent:
        print(f"{name}: not installed")
    names = [name for name in names if name not in absent]
    agreement, failed = agree([name for name in names if name != "decode-only"], job, videos, index)
    for name in failed:
        print(f"{name}: fails: {failed[name]}")
    names = [name for name in names if name not in failed]
    readers = [(name, name, job) for name in names]
    if options.copies:
        readers.append(("loader, copies", "loader", {**job, "list": str(options.copies.resolve()), "root": None}))
    turns = _turns(readers, options.rounds, options.seconds / options.rounds)
    result = {
        "settings": {
            "list": str(options.list),
            "copies": str(options.copies) if options.copies else None,
            "videos": len(videos),
            "workers": options.workers,
            "batch_size": options.batch_size,
            "seconds": options.seconds,
            "rounds": options.rounds,
            "not_installed": absent,
            "failed": failed,
            "versions": {d: metadata.version(d) for name in names for d in NEEDS[name][1] if _has(d)},
        },
        "rows": _rows(turns, agreement),
        "agreement": agreement,
    }
    _show(result)
    if options.out:
        command = shlex.join(["python", *sys.argv])
        write_record(options.out, new_record(describe(torch.device("cpu")), command, {"peers_data": result}))
    return 0


def _turns(
    readers: Sequence[tuple[str, str, dict[str, Any]]], rounds: int, seconds: float
) -> dict[str, list[dict[str, float]]]:
    """Clips a second and processor seconds a clip of every reader (label, name, job) in every round."""
    turns: dict[str, list[dict[str, float]]] = defaultdict(list)
    with ExitStack() as stack:
        trees = {}
        for label, name, job in readers:
            trees[label] = stack.enter_context(Tree(name, job))
            trees[label].ask(start=None)
            trees[label].signal(signal.SIGSTOP)
        for number in range(rounds):
            for label, tree in list(trees.items())[:: 1 if number % 2 == 0 else -1]:
                before = tree.cpu_seconds()
                tree.signal(signal.SIGCONT)
                told = tree.ask(go=seconds)
                tree.signal(signal.SIGSTOP)
                rate = _rate(told["marks"], told["since"])
                used = (tree.cpu_seconds() - before) / (told["until"] - told["since"])
                turns[label].append({"rate": rate, "cpu": used / rate})
    return turns


def _rate(marks: Sequence[tuple[int, float, int]], since: float) -> float:
    """Clips a second in full stride: of each process, from its first finished clip (or batch) to its last, added up.

    So neither the batches that several processes finish at once nor what is half done when the clock stops count.
    """
    streams = defaultdict(list)
    for stream, when, clips in marks:
        if when >= since:  # what a process had ready before its turn is not of this turn
            streams[stream].append((when, clips))
    total = 0.0
    for done in streams.values():
        done.sort()
        if len(done) > 1:
            total += sum(clips for _, clips in done[1:]) / (done[-1][0] - done[0][0])
    if not total:
        sys.exit("a turn is too short for two clips of each process: give more --seconds or fewer --rounds")
    return total


def _rows(turns: dict[str, list[dict[str, float]]], agreement: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    rates = {name: [turn["rate"] for turn in turns[name]] for name in turns}
    peers = [
        name for name in agreement if name in rates and name not in OURS and agreement[name].get("same_frames", True)
    ]
    best = max(peers, key=lambda name: float(np.median(rates[name])), default=None)
    rows = []
    for name, values in rates.items():
        against = best or name
        more: dict[str, Any] = {"cpu_seconds_per_clip": float(np.median([turn["cpu"] for turn in turns[name]]))}
        if name == "loader" and "decode-only" in rates:
            more["ratio_to_decode_only"] = median_ratio(values, rates["decode-only"])
        rows.append(
            row(
                name,
                "clips/s",
                values,
                ratios(values, rates[against]),
                f"{against}, the best peer" if best else "itself",
                **more,
            )
        )
    return rows


def _show(result: dict[str, Any]) -> None:
    for name, near in result["agreement"].items():
        frames = ""
        if "same_frames" in near:
            frames = "other frames; " if not near["same_frames"] else "same frames, "
            if near["frame_mean_abs"] is not None:
                frames += (
                    f"mean {near['frame_mean_abs']:.2f} and at most {near['frame_max_abs']} of 255 from PyAV's "
                    f"(the next frame: {near['next_frame_mean_abs']:.2f}); "
                )
        print(f"{name:24}{frames}clips {near['clip_mean_abs']:.2f} of 255 from the loader's")
    print(f"\n{'':24}{'clips/s':>9}  {'p10 … p90':16}{'ratio':>6}  {'CPU s a clip':>12}")
    for line in result["rows"]:
        spread = f"{line['p10']:.1f} … {line['p90']:.1f}"
        limit = line.get("ratio_to_decode_only")
        print(
            f"{line['name']:24}{line['median']:9.2f}  {spread:16}{line['ratio']:6.2f}  {line['cpu_seconds_per_clip']:12.4f}"
            + (f"   {limit:.3f} of decode-only" if limit else "")
        )


def _has(distribution: str) -> bool:
    with suppress(metadata.PackageNotFoundError):
        return bool(metadata.version(distribution))
    return False


if __name__ == "__main__":
    sys.exit(main())
