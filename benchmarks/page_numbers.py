"""The numbers of README.md and docs/, written from benchmarks/results: `python -m benchmarks.page_numbers`, or `make numbers`.

A page marks what is written here with `<!-- numbers: NAME -->` above and `<!-- /numbers -->` below; the words between them stand in this
file, because they say what the numbers are. `--check` writes nothing and ends with 1 where a page and the results differ.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_BLOCK = re.compile(r"^(<!-- numbers: (\S+) -->\n)(.*?)^(<!-- /numbers -->)$", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"^<!-- numbers: (\S+) -->$", re.MULTILINE)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where a page differs")
    options = parser.parse_args(arguments)
    differ = 0
    for path in pages():
        text = path.read_text(encoding="utf-8")
        filled = fill(text)
        if filled == text:
            continue
        differ += 1
        print(f"{path.relative_to(ROOT)}: {'differs from benchmarks/results' if options.check else 'written'}")
        if not options.check:
            path.write_text(filled, encoding="utf-8")
    return 1 if differ and options.check else 0


def pages() -> list[Path]:
    """Every page with marks in it."""
    found = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [path for path in found if _MARK.search(path.read_text(encoding="utf-8"))]


def fill(text: str) -> str:
    """The text with its marked places written anew.

    Raises:
        ValueError: a mark without its end, or of an unknown name.
    """
    whole = [found[2] for found in _BLOCK.finditer(text)]
    opened = _MARK.findall(text)
    unknown = [name for name in opened if name not in BLOCKS]
    if unknown:
        raise ValueError(f"no numbers are known by the name '{unknown[0]}'; known: {', '.join(BLOCKS)}")
    if whole != opened:
        raise ValueError(
            f"a mark lacks its <!-- /numbers -->; marked are {', '.join(opened)}, whole {', '.join(whole)}"
        )
    return _BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]()}\n{found[4]}", text)


@functools.cache
def _result(file: str) -> dict[str, Any]:
    results = json.loads((RESULTS / f"{file}.json").read_text(encoding="utf-8"))["results"]
    (found,) = results.values()  # the published files have one each
    return dict(found)


def _row(file: str, name: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [row for row in _result(file)["rows"] if row["name"] == name]
    if len(rows) != 1:
        raise ValueError(f"benchmarks/results/{file}.json has {len(rows)} rows '{name}'")
    return rows[0]


def _lines(*lines: str) -> str:
    return "\n".join(lines)


def _prose(text: str) -> str:
    return textwrap.fill(text, 150, break_long_words=False, break_on_hyphens=False)


# ---------------------------------------------------------------------------------------------------------------------
# README.md


def _readme() -> str:
    one, prepared = (_row("cpu-2threads-inference", f"tin_resnet50, one clip{how}") for how in ("", ", prepared"))
    step = _row("cpu-2threads-model", "tin_resnet50, training step, batch 2")
    untouched, copies = (_row("data-2cores-untouched", name) for name in ("loader", "loader, copies"))
    return _prose(
        f"On that machine, TIN-ResNet-50 takes {one['torchvision_ratio']:.2f} times torchvision's ResNet-50 in inference "
        f"({prepared['torchvision_ratio']:.2f} prepared) and {step['torchvision_ratio']:.2f} times in a training step, and the loader "
        f"reads {untouched['ratio']:.1f} times the clips of the fastest of its peers from Kinetics files as they are, "
        f"{copies['ratio']:.1f} "
        "times from copies that `tin-cli data transcode` makes: see [docs/op.md](docs/op.md#speed-on-a-cpu), "
        "[docs/data.md](docs/data.md#speed) and [benchmarks/results](benchmarks/results)."
    )


# ---------------------------------------------------------------------------------------------------------------------
# docs/op.md


def _op_networks() -> str:
    def cells(what: str, row: dict[str, Any]) -> str:
        return f"| {what} | {row['torchvision_ratio']:.3f} | {row['ratio']:.3f} |"

    one, half = "cpu-2threads-inference", "cpu-2threads-inference-bfloat16"
    clip, step = "tin_resnet50, one clip", "tin_resnet50, training step, batch 2"
    return _lines(
        "| ResNet-50, channels_last | time of TIN / torchvision's ResNet-50 | / TSN, the same network here without the op |",
        "|---|---|---|",
        cells("inference, 1 clip, 8 × 224², float32", _row(one, clip)),
        cells("the same, prepared (`tin.inference`)", _row(one, f"{clip}, prepared")),
        cells("training step, 2 clips, 8 × 112², float32", _row("cpu-2threads-model", step)),
        cells("inference in bfloat16 (autocast)", _row(half, clip)),
        cells("the same, prepared", _row(half, f"{clip}, prepared")),
        cells("training step in bfloat16 (autocast)", _row("cpu-2threads-model-bfloat16", step)),
    )


def _op_beside() -> str:
    tsn = _row("cpu-2threads-inference", "tsn_resnet50, one clip")["torchvision_ratio"]
    step = _row("cpu-2threads-model", "tin_resnet50, training step, batch 2")
    kept, reference = step["temporal_saved_mib"], step["reference_saved_mib"]
    return _prose(
        f"TSN is itself faster than torchvision's ResNet in inference ({tsn:.3f}), because its joins are the fused ones too. What "
        f"TIN's sixteen modules keep for the backward pass is {kept:.1f} MiB of that training step, {kept / reference:.2f} of what the "
        f"same network keeps with the op's PyTorch reference ({reference:.1f} MiB)."
    )


def _op_alone() -> str:
    shapes = (("64, 56²", "64×56×56"), ("256, 56²", "256×56×56"), ("512, 28²", "512×28×28"))

    def lines(what: str, label: str, moved: str, shown: tuple[tuple[str, str], ...], ways: bool) -> Iterator[str]:
        for place, (text, shape) in enumerate(shown):
            row = _row("cpu-2threads-op", f"{what} {shape}")
            keys = ("reference_ratio", "compiled_ratio", "peers_ratio")
            others = " | ".join(f"{row[key]:.1f} ×" for key in keys) if ways else " | | "
            head = f"{label} | {moved}" if place == 0 else " | "
            yield f"| {head} | {text} | {1 / row['ratio']:.2f} | {others} |".replace("|  |", "| |").replace(
                "|  |", "| |"
            )

    return _lines(
        "| | bytes | C, H, W | of the copy's GB/s | PyTorch reference | that compiled | peers' two shifts and a blend |",
        "|---|---|---|---|---|---|---|",
        *lines("forward", "forward", "2 C", shapes, True),
        *lines("backward", "backward", "2¼ C", shapes, True),
        *lines("in place", "in place (what the network does forward)", "¾ C", shapes[1:], False),
        *lines("both gradients", "both gradients (what it does backward)", "3¼ C", shapes[1:], False),
    )


def _op_forms() -> str:
    rows = _result("cpu-2threads-shift-forms")["rows"]
    names = ("copied", "in place", "in place, then a product", "two products", "two convolutions")
    what = {"inference": "inference, 1 clip", "training": "training, 2 clips"}

    def cell(shape: str, form: str) -> str:
        for row in rows:
            if row["name"] == f"{shape}, {form}":
                return f"{row['extra_bytes'] / 1e6:+.1f} MB, {row['ratio']:.2f}".replace("-", "−")
        return "–"

    shapes = dict.fromkeys((row["what"], "×".join(map(str, row["shape"]))) for row in rows)
    return _lines(
        "| | C, H, W | copied | in place: what the network does | in place, then a matrix product | two products | two convolutions |",
        "|---|---|---:|---:|---:|---:|---:|",
        *(
            f"| {what[kind]} | {shape} | " + " | ".join(cell(f"{kind} {shape}", name) for name in names) + " |"
            for kind, shape in shapes
        ),
    )


# ---------------------------------------------------------------------------------------------------------------------
# docs/data.md


def _index() -> str:
    h264, mixed = (_row(f"index-2cores-{name}", "first run")["ratio"] for name in ("h264", "mixed"))
    second = min(_row(f"index-2cores-{name}", "second run")["ratio"] for name in ("h264", "mixed"))
    files = _result("index-2cores-h264")["settings"]["files"]
    return _prose(
        f"**Speed**, on two cores with the files in memory (`benchmarks/index_speed.py`): {files:,} H.264 files at {h264:.2f} × the rate "
        f"of plain PyAV that demuxes them and keeps nothing, a mix of awkward formats at {mixed:.2f} × (their first frame is decoded "
        "without deblocking, since nothing is wanted of its pixels); a second run over an index that is there is more than "
        f"{int(second // 100) * 100} times faster than the first. Across a network, where each question takes long, 32 are asked at once."
    )


def _transcoding() -> str:
    lines = []
    for row in _result("transcode-k400-2cores")["rows"]:
        untouched = "psnr_db" not in row
        made = "– | –" if untouched else f"{row['psnr_db']:.1f} | {row['encoded_frames_per_second']:.0f}"
        decoded = f"{row['frames_decoded_per_clip']:.0f} | {row['median']:.1f} | {row['ratio']:.1f}"
        lines.append(f"| {row['name']} | {row['size_ratio']:.2f} | {made} | {decoded} |")
    return _lines(
        "| copies | size | PSNR, dB | encoding, frames/s | frames decoded a clip | clips/s | × untouched |",
        "|---|---|---|---|---|---|---|",
        *lines,
    )


def _reading() -> str:
    kinds = {
        "untouched": "H.264 as Kinetics has it: 280 to 332 frames, 340×256, keyframes 40 to 250 frames apart",
        "gop8": "its copies by `tin-cli data transcode`, a keyframe every 8 frames",
        "vp9": "VP9, 48 frames, 240 pixels high, one keyframe",
        "jpeg": "JPEG folders, 240 pixels high",
    }
    lines = []
    for kind, text in kinds.items():
        result = _result(f"data-2cores-{kind}")
        rows = {row["name"]: row for row in result["rows"]}
        loader = rows["loader"]
        best = rows[loader["ratio_to"].partition(",")[0]]
        cpu = best["cpu_seconds_per_clip"] / loader["cpu_seconds_per_clip"]
        modes = [mode for mode in ("torchcodec", "torchcodec-approximate") if mode in rows]
        right = [mode for mode in modes if result["agreement"][mode].get("same_frames", True)]
        rates = {name: row["median"] for name, row in rows.items() if name not in modes}
        rates["torchcodec"] = max((rows[mode]["median"] for mode in right), default=None)
        readers = ("decode-only", "pyav", "decord", "torchcodec", "torchvision", "mmaction2")
        others = " | ".join(f"{rates[name]:.1f}" if rates.get(name) else "–" for name in readers)
        limit = f"{loader['ratio_to_decode_only']:.2f}" if "ratio_to_decode_only" in loader else "–"
        lines.append(
            f"| {text} | **{loader['median']:.1f}** | {others} | {loader['ratio']:.2f} ({cpu:.2f}) | {limit} |"
        )
    return _lines(
        "| files | loader | its decoding alone | PyAV | decord | torchcodec | torchvision | MMAction2 "
        "| loader / best peer (in CPU time) | loader / decoding |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *lines,
    )


def _copies() -> str:
    row = _row("data-2cores-untouched", "loader, copies")
    return _prose(
        "The ratio to the best peer is the median over rounds of neighbouring turns; in brackets that of processor time a clip, which a "
        f"busy machine disturbs less. In the turns of the first line the loader read the copies too: {row['median']:.0f} clips/s, "
        f"{row['ratio']:.1f} times the best peer on the files as they were. That is the way to go with Kinetics: on untouched files most "
        "of the time goes into frames that nobody sees, and no reader can do much about it."
    )


# ---------------------------------------------------------------------------------------------------------------------
# docs/scaling.md, benchmarks/README.md


def _two_processes() -> str:
    one, two = (_row("scaling-2cores-motion", name) for name in ("1 process", "2 processes"))
    (model,) = _result("scaling-2cores-motion")["model"]
    measured, predicted = model["measured_step_ms"], model["predicted_step_ms"]
    nothing, hidden = (predicted[key] for key in ("no_overlap", "overlap"))
    return _lines(
        "| | |",
        "|---|---:|",
        f"| one process | {one['median']:.1f} clips/s, {one['step_ms']:.0f} ms a step |",
        f"| two processes | {two['median']:.1f} clips/s, {two['step_ms']:.0f} ms a step: efficiency {two['ratio']:.2f} |",
        f"| … of that, sharing memory and caches | {two['machine_efficiency']:.2f} |",
        f"| … exchange | {two['exchange_efficiency']:.2f}: {two['exchange_ms']:.0f} ms a step |",
        f"| the exchange by itself | {two['exchange_alone_ms']:.0f} ms, that is {model['link_gigabits']:.1f} Gb/s |",
        "| predicted step, from a step without exchange and the exchange by itself, nothing hidden | "
        f"{nothing:.0f} ms, {100 * (1 - nothing / measured):.0f} % less than measured |",
        f"| the same, hidden behind the backward pass | {hidden:.0f} ms, {100 * (1 - hidden / measured):.0f} % less |",
    )


def _training() -> str:
    kinds = {
        "motion": "the motion set, 16 clips of 8 × 32² ([file](results/train-2cores-motion.json))",
        "kinetics-112": "Kinetics files as they are, 6 clips of 8 × 112² ([file](results/train-2cores-kinetics-112.json))",
        "kinetics-32": "the same, 8 × 32², the loader being the limit ([file](results/train-2cores-kinetics-32.json))",
    }
    lines = []
    for kind, text in kinds.items():
        together, loader, model = (
            _row(f"train-2cores-{kind}", name) for name in ("end to end", "loader alone", "model alone")
        )
        # of the time of a clip, both halves alone being added up
        reading = (1 / loader["median"]) / (1 / loader["median"] + 1 / model["median"])
        speeds = f"{loader['median']:.3g} | {model['median']:.3g} | {together['median']:.3g} clips/s"
        lines.append(f"| {text} | {speeds} | {together['ratio']:.3f} | {100 * reading:.0f} % |")
    return _lines(
        "| recipe `tin_motion` on | loader alone | model alone | end to end | ratio to the limit | time that is reading |",
        "|---|---:|---:|---:|---:|---:|",
        *lines,
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "readme": _readme,
    "op-networks": _op_networks,
    "op-beside": _op_beside,
    "op-alone": _op_alone,
    "op-forms": _op_forms,
    "index": _index,
    "transcoding": _transcoding,
    "reading": _reading,
    "copies": _copies,
    "two-processes": _two_processes,
    "training": _training,
}
"""What a mark's name stands for."""

if __name__ == "__main__":
    sys.exit(main())
