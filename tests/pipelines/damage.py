"""Copies of a video, damaged in all the ways that files in data sets are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KINDS = (
    "cut5", "cut50", "cut95", "zeroed", "headless", "flipped20", "flipped2000", "doubled", "renamed", "noise", "empty",
    "folder", "forbidden",
)  # fmt: skip
SURELY_BAD = ("noise", "empty", "folder")
"""Kinds that no decoder can make a frame of. A forbidden file is one of them, but for root."""


def damage(path: Path, folder: Path, seed: int = 0) -> dict[str, str]:
    """Writes a copy of the video at `path` for each of KINDS into `folder`; the names by kind.

    cut: what is left of the file, in per cent. zeroed: a sixth of it. headless: the first 64 bytes are zeros. flipped: so many
    bytes are others. doubled: appended to itself. renamed: the extension of another format. folder: one with that name.
    forbidden: nobody may read it.
    """
    rng = np.random.default_rng(seed)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    zeroed, headless = data.copy(), data.copy()
    zeroed[len(data) // 3 : len(data) // 2] = 0
    headless[:64] = 0
    contents: dict[str, NDArray[np.uint8]] = {
        **{f"cut{part}": data[: len(data) * part // 100] for part in (5, 50, 95)},
        "zeroed": zeroed,
        "headless": headless,
        **{f"flipped{count}": _flipped(data, count, rng) for count in (20, 2000)},
        "doubled": np.concatenate([data, data]),
        "renamed": data,
        "noise": rng.integers(0, 256, 5000).astype(np.uint8),
        "empty": data[:0],
        "forbidden": data,
    }
    names = {kind: f"{path.stem}-{kind}{'.mpg' if kind == 'renamed' else path.suffix}" for kind in KINDS}
    for kind, content in contents.items():
        (folder / names[kind]).write_bytes(content.tobytes())
    (folder / names["folder"]).mkdir()
    (folder / names["forbidden"]).chmod(0)
    return names


def _flipped(data: NDArray[np.uint8], count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    flipped = data.copy()
    flipped[rng.integers(0, len(data), count)] ^= rng.integers(1, 256, count).astype(np.uint8)
    return flipped
