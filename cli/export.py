"""`tin-cli export`: a checkpoint's network as a file for ONNX Runtime, TensorRT, torch.export or C++."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from cli._options import EXISTING_FILE, set_option

if TYPE_CHECKING:
    from cli._session import Session


class _Size(click.ParamType):
    """A side of square frames, or HEIGHTxWIDTH."""

    name = "SIDE|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", value)
        if match is None:
            self.fail(f"{value!r} is no size: give a side as 224, or height and width as 180x320", param, ctx)
        return int(match[1]), int(match[2] or match[1])


@click.command(short_help="Write a checkpoint's network for ONNX Runtime, TensorRT or C++.")
@click.argument("checkpoint", type=EXISTING_FILE, metavar="CKPT")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT")
@click.option(
    "--format", "format", type=click.Choice(["onnx", "torch-export", "aoti"]), required=True,
    help="onnx: standard operators, for OUT.onnx. torch-export, aoti (compiled by AOTInductor): for OUT.pt2.",
)  # fmt: skip
@click.option(
    "--size", type=_Size(), default=None,
    help="Frames that the file takes, in pixels; fixed in it.  [default: the recipe's]",
)  # fmt: skip
@click.option(
    "--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True,
    help="What convolutions compute in. Input and output are float32.",
)  # fmt: skip
@click.option(
    "--device", default="cpu", show_default=True, metavar="NAME",
    help="cpu, cuda or cuda:N, where a torch-export or aoti file runs; ONNX files run anywhere.",
)  # fmt: skip
@click.option(
    "--recipe", "recipe_name", default=None, metavar="NAME|FILE", help="Recipe.  [default: the one in the checkpoint]"
)
@click.option(
    "--weights", type=click.Choice(["auto", "ema", "raw"]), default="auto", show_default=True,
    help="Of a checkpoint with averaged weights: the averages (auto, ema) or the weights themselves (raw).",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace OUT where it exists.")
@set_option
def export(
    checkpoint: Path,
    out: Path,
    format: Literal["onnx", "torch-export", "aoti"],
    size: tuple[int, int] | None,
    dtype: str,
    device: str,
    recipe_name: str | None,
    weights: Literal["auto", "ema", "raw"],
    force: bool,
    overrides: tuple[str, ...],
) -> None:
    """Write the network of a checkpoint, batch norms folded, as a file that runs without tin-cli.

    \b
    tin-cli export best.pt tin.onnx --format onnx
    tin-cli export best.pt tin.pt2 --format aoti --device cuda --dtype float16
    tin-cli export tin_k400.pth tin.onnx --format onnx --recipe k400 --size 256

    All formats take frames (N, T, 3, H, W), normalised, and give logits (N, classes), for any number N of clips. Before OUT gets its
    name, it is loaded and its logits are compared with the network's at 1, 3 and 8 clips: where they differ by more than 0.0001,
    there is no file. How frames are made, the class names and the checkpoint's SHA-256 are in the file. docs/export.md says how to
    run it.
    """  # fmt: skip
    from cli._session import open_session
    from tin.distributed import World, resolve_device
    from tin.export import export as write
    from tin.export.formats import DTYPES, check_export

    wanted = DTYPES[dtype]
    check_export(out, format, size or (224, 224), wanted, resolve_device(device, World()), force)
    session = open_session(
        checkpoint,
        recipe_name=recipe_name,
        overrides=overrides,
        device=device,
        amp_was_asked=False,
        world=World(),
        weights=weights,
    )
    data = session.recipe.data
    side = data.short_side if data.test_crop == "three" else data.input_size
    chosen = size or (side, side)
    done = write(
        session.network,
        out,
        format,
        size=chosen,
        dtype=wanted,
        about=_about(session, checkpoint, chosen, dtype),
        force=force,
    )
    network = done.about["network"]
    click.echo(
        f"{out}: {format}, {done.bytes:,} bytes: {network['arch']}, {dtype}, clips of {network['num_segments']} frames of "
        f"{chosen[0]}×{chosen[1]}, {network['num_classes']} classes"
    )
    click.echo(f"largest difference from the network at 1, 3 and 8 clips: {done.difference:.2g} in a logit")
    if session.averaged:
        click.echo("with the checkpoint's averaged (EMA) weights")
    if session.label_names is None:
        click.echo("no class names: the checkpoint has none")


def _about(session: Session, checkpoint: Path, size: tuple[int, int], dtype: str) -> dict[str, Any]:
    from tin.evaluation import file_sha256
    from tin.export import describe
    from tin.export.formats import DTYPES

    origin = {
        "file": checkpoint.name,
        "sha256": file_sha256(checkpoint),
        "weights": "ema" if session.averaged else "raw",
    }
    return describe(
        session.network, size, DTYPES[dtype], data=session.recipe.data, labels=session.label_names, checkpoint=origin
    )
