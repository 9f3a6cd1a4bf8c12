"""`tin-cli info`: what is installed here, what a checkpoint is, how large a network is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cli._options import EXISTING_FILE


@click.command(short_help="Say what is installed, what a checkpoint is, how large a network is.")
@click.option("--checkpoint", type=EXISTING_FILE, default=None, help="Describe a file of weights, anybody's.")
@click.option("--model", "arch", default=None, metavar="ARCH", help="Describe {tin,tsm,tsn}_resnet{18,34,50,101}.")
@click.option(
    "--num-classes", type=click.IntRange(1), default=400, show_default=True, help="With --model: of its classifier."
)
@click.option(
    "--num-segments", type=click.IntRange(1), default=8, show_default=True, help="With --model: frames of a clip."
)
@click.option(
    "--input-size",
    type=click.IntRange(16),
    default=224,
    show_default=True,
    help="With --model: side of the frames, pixels.",
)
@click.option("--layers", is_flag=True, help="With --model: every layer, not blocks.")
@click.option("--json", "as_json", is_flag=True, help="Print all that is known as JSON.")
def info(
    checkpoint: Path | None,
    arch: str | None,
    num_classes: int,
    num_segments: int,
    input_size: int,
    layers: bool,
    as_json: bool,
) -> int:
    """Say what this installation runs on and what it lacks; or, with an option, what a file or a network is.

    \b
    tin-cli info
    tin-cli info --checkpoint runs/tin_motion/best.pt
    \b
    $ tin-cli info --model tin_resnet50 --num-classes 174 | head -5
    tin_resnet50, 174 classes, clips of 8 frames of 224×224
    parameters: 23,895,566
    multiply-adds of a clip (convolutions and linear layers): 32,700,178,304
    block         parameters     multiply-adds
    conv1              9,408       944,111,616

    The exit status is 1 when a checkpoint cannot be read: nothing but tensors and plain values is ever unpickled. docs/info.md has output.
    """  # fmt: skip
    if checkpoint is not None and arch is not None:
        raise click.UsageError("--checkpoint and --model are two questions: ask one")
    facts: dict[str, Any]
    if checkpoint is not None:
        from tin.info import describe_checkpoint

        facts, lines = describe_checkpoint(checkpoint), _checkpoint_lines
    elif arch is not None:
        from tin.info import describe_network

        facts = describe_network(arch, num_classes, num_segments, input_size)
        lines = _layer_lines if layers else _block_lines
    else:
        facts, lines = _environment(), _environment_lines
    click.echo(json.dumps(facts, indent=1) if as_json else "\n".join(lines(facts)))
    return 1 if "unreadable" in facts else 0


# ---------------------------------------------------------------------------------------------------------------------
# this installation


def _environment() -> dict[str, Any]:
    import av

    from pipelines.nvdec_caps import NvdecUnknown, nvdec_caps
    from tin.info import describe_environment, missing

    facts = describe_environment()
    facts["versions"] |= {"pyav": av.__version__, "ffmpeg": av.ffmpeg_version_info}
    for gpu in facts["gpus"]:
        try:
            gpu["nvdec"] = {"codecs": [asdict(caps) for caps in nvdec_caps(gpu["index"])]}
        except NvdecUnknown as error:
            gpu["nvdec"] = {"unknown": str(error)}
    facts["missing"] = [asdict(thing) for thing in missing(facts)]
    return facts


def _environment_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    versions, machine, op = facts["versions"], facts["machine"], facts["op"]
    yield f"tin-video {versions['tin']}" + (f", commit {versions['commit']}" if versions["commit"] else "")
    for names in (
        {"Python": "python", "PyTorch": "torch", "torchvision": "torchvision", "numpy": "numpy"},
        {"CUDA": "cuda", "cuDNN": "cudnn", "NCCL": "nccl"},
        {"DALI": "dali", "PyAV": "pyav", "FFmpeg": "ffmpeg"},
    ):
        yield "  " + ", ".join(f"{name} {versions[key] or 'none'}" for name, key in names.items())
    cores = f"{machine['usable_cores']} of {machine['cores']} cores"
    yield f"machine: {machine['cpu']}, {cores}, {machine['memory_gib']} GiB, {machine['system']}"
    for gpu in facts["gpus"]:
        yield (
            f"GPU {gpu['index']}: {gpu['name']}, compute capability {gpu['capability']}, {gpu['memory_gib']} GiB, "
            f"{gpu['multiprocessors']} multiprocessors, driver {(machine['gpu'] or {}).get('driver') or 'unknown'}"
        )
        yield f"  NVDEC: {_nvdec(gpu['nvdec'])}"
    if not facts["gpus"]:
        yield "GPU: none"
    yield f"op on CPU: {_kernels(op, 'cpu')}" + (f", {op['simd']}" if op["simd"] else "")
    yield f"op on CUDA: {_kernels(op, 'cuda')}"
    yield f"NVIDIA apex: {facts['apex'] or 'can be used'}"
    for thing in facts["missing"]:
        yield f"missing: {thing['what']}: {thing['consequence']}"
        yield f"  to get it: {thing['remedy']}"


def _kernels(op: Mapping[str, Any], device: str) -> str:
    if op[device] != "native":
        return f"PyTorch reference ({op[f'{device}_reason']})"
    record = op["libraries"][f"libtin_{device}.so"]
    if record is None:
        return "native kernels, built before builds were recorded"
    built = f"native kernels for PyTorch {record['stable_abi']} and newer"
    return f"{built}, compute capability {', '.join(record['architectures'])}" if "architectures" in record else built


def _nvdec(nvdec: Mapping[str, Any]) -> str:
    if "unknown" in nvdec:
        return f"cannot be asked: {nvdec['unknown']}"
    depths: dict[str, list[int]] = {}
    for caps in nvdec["codecs"]:
        depths.setdefault(caps["codec"], []).append(caps["bits"])
    codecs = ", ".join(f"{codec} ({'/'.join(map(str, bits))} bits)" for codec, bits in depths.items())
    engines = max((caps["engines"] for caps in nvdec["codecs"]), default=0)
    return f"{engines} engines; {codecs}" if engines else "none"


# ---------------------------------------------------------------------------------------------------------------------
# a checkpoint


def _checkpoint_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    yield f"{facts['path']}: {facts['bytes']:,} bytes, SHA-256 {facts['sha256']}"
    if "unreadable" in facts:
        yield f"cannot be read: {facts['unreadable']}"
        return
    version = f", version {facts['version']}" if "version" in facts else ""
    yield f"kind: {facts['kind']}{version}; names: {facts['names']}"
    yield f"network: {_network(facts['network'])}"
    weights = facts["weights"]
    dtypes = ", ".join(f"{count} {name}" for name, count in weights["dtypes"].items())
    yield f"weights: {weights['parameters']:,} parameters; {weights['tensors']} tensors ({dtypes}), {weights['bytes']:,} bytes"
    if facts["ema"]:
        yield f"averages (EMA): {facts['ema']['tensors']} tensors after {facts['ema']['updates']:,} updates; testing takes them"
    if facts["kind"] == "weights":
        yield from (f"beside them: {key} = {value}" for key, value in facts["beside"].items())
        return
    yield from _run_lines(facts)


def _run_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    from cli.console import format_metrics

    recipe, progress = facts["recipe"], facts["progress"]
    names = facts["label_names"]
    classes = f"{len(names)} class names" if names else "no class names"
    yield f"recipe: {recipe['name']}, data set {recipe['dataset']}, {recipe['schedule']['epochs']} epochs; {classes}"
    within = f" and {progress['samples']:,} clips" if progress.get("samples") else ""
    yield f"progress: {progress['epoch']} epochs{within}, {progress['global_step']:,} steps"
    best = progress.get("best") or {}
    if best:
        yield f"best validation: epoch {best['epoch']:g}, {format_metrics(best)}"
    resume = "optimizer state, --resume goes on" if facts["optimizer"] else "no optimizer state"
    world_size = facts["world_size"] or 1
    processes = f"{world_size} process{'es' if world_size > 1 else ''}"
    yield f"run: {processes}, {facts['global_batch']} clips a step, seed {facts['seed']}; {resume}"
    versions = ", ".join(f"{name} {version}" for name, version in (facts["versions"] or {}).items())
    git = facts["git"]
    yield f"made by: {versions}" + (f", commit {git['commit'][:12]}{'+' if git['dirty'] else ''}" if git else "")


def _network(network: Mapping[str, Any] | None) -> str:
    if network is None:
        return "none that tin-cli builds"
    numbers = [
        f"{network[key]} {word}"
        for key, word in (("num_classes", "classes"), ("num_segments", "segments"))
        if network[key]
    ]
    return ", ".join([network["arch"], *numbers])


# ---------------------------------------------------------------------------------------------------------------------
# a network


def _block_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    blocks: dict[str, list[Mapping[str, Any]]] = {}
    for layer in facts["layers"]:
        parts = layer["name"].split(".")
        blocks.setdefault(".".join(parts[:2]) if parts[0].startswith("layer") else parts[0], []).append(layer)
    yield from _totals(facts)
    yield _row("block", "parameters", "multiply-adds")
    for name, members in blocks.items():
        yield _sum_row(name, members)
    of_tin = [layer for layer in facts["layers"] if ".tin." in layer["name"]]
    if of_tin:
        yield _sum_row("TIN's own", of_tin)


def _layer_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    yield from _totals(facts)
    width = max(len(layer["name"]) for layer in facts["layers"])
    yield _row("layer", "parameters", "multiply-adds", width) + "  weight"
    for layer in facts["layers"]:
        shape = f"{layer['kind']} {'×'.join(map(str, layer['shape']))}"
        yield _row(layer["name"], f"{layer['parameters']:,}", f"{layer['multiply_adds']:,}", width) + f"  {shape}"


def _totals(facts: Mapping[str, Any]) -> Iterator[str]:
    size = facts["input_size"]
    yield f"{facts['arch']}, {facts['num_classes']} classes, clips of {facts['num_segments']} frames of {size}×{size}"
    yield f"parameters: {facts['parameters']:,}"
    yield f"multiply-adds of a clip (convolutions and linear layers): {facts['multiply_adds']:,}"


def _sum_row(name: str, layers: list[Mapping[str, Any]]) -> str:
    parameters, counts = (sum(layer[key] for layer in layers) for key in ("parameters", "multiply_adds"))
    return _row(name, f"{parameters:,}", f"{counts:,}")


def _row(name: str, parameters: str, multiply_adds: str, width: int = 10) -> str:
    return f"{name:{width}}  {parameters:>12}  {multiply_adds:>16}"
