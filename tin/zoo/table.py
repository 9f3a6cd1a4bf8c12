"""The published files as data: `models.toml`, read and named."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources

from tin.errors import unknown_name


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file of weights that others publish.

    Attributes:
        name: what it is asked for by, here.
        arch: of `tin.build_model`, or torchvision's `resnet50` for weights that any kind of that depth starts from.
        num_classes: of its classifier.
        num_segments: T of the clips it was trained on; None for images.
        dataset: what it was trained on.
        top1, top5: accuracy in percent, as `source` reports it for `protocol`.
        recipe: the recipe here that it was trained with, where there is one.
        url: of the file, https.
        sha256: the first hexadecimal digits of the file's SHA-256.
        mebibytes: the file's size in units of 2²⁰ bytes, to a thousandth; None where it is not published.
        licence: what is known of the terms of use.
    """

    name: str
    arch: str
    num_classes: int
    dataset: str
    top1: float
    top5: float
    protocol: str
    source: str
    url: str
    sha256: str
    licence: str
    num_segments: int | None = None
    recipe: str | None = None
    mebibytes: float | None = None

    @property
    def file(self) -> str:
        """The file's name, as published."""
        return self.url.rpartition("/")[2]

    @property
    def depth(self) -> int:
        """Of its ResNet."""
        return int(self.arch.partition("resnet")[2])


@functools.cache
def published() -> dict[str, Published]:
    """Every published file by its name, in the order in which they are listed."""
    table = tomllib.loads(resources.files("tin.zoo").joinpath("models.toml").read_text(encoding="utf-8"))
    found = {}
    for row in table["model"]:
        licence = f"{table['licences'][row.pop('publisher')]}; {table['terms'][row['dataset']]}"
        found[row["name"]] = Published(**row, licence=licence)
    return found


def find(name: str) -> Published:
    """The file of that name.

    Raises:
        TinError: there is none; names the nearest.
    """
    files = published()
    if name not in files:
        raise unknown_name("published model", name, files)
    return files[name]
