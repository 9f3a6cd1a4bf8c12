"""Where a network starts: torchvision's ImageNet weights, found or fetched, or a file of the user's."""

from __future__ import annotations

import hashlib
import os
import urllib.error
from pathlib import Path

import torch
from torchvision import models

from tin.checkpoints import LoadReport, load_checkpoint
from tin.errors import TinError, unknown_name
from tin.models import ARCHITECTURES, TemporalResNet

IMAGENET_URLS = {
    "resnet18": models.ResNet18_Weights.IMAGENET1K_V1.url,
    "resnet34": models.ResNet34_Weights.IMAGENET1K_V1.url,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1.url,
    "resnet101": models.ResNet101_Weights.IMAGENET1K_V1.url,
}
"""The V1 weights, which the TIN and TSM recipes start from; a name ends in the first 8 digits of the file's SHA-256."""


def imagenet(arch: str) -> Path:
    """The file with torchvision's ImageNet weights for `arch`, downloaded once to PyTorch's hub cache.

    The cache is `$TORCH_HOME/hub/checkpoints`, by default `~/.cache/torch/hub/checkpoints`. The file's SHA-256 is checked
    against its name each time.

    Args:
        arch: an architecture of `build_model`, as `tin_resnet50`.

    Raises:
        TinError: unknown architecture, a damaged file, or no network and no file: says which file to place where.
    """
    if arch not in ARCHITECTURES:
        raise unknown_name("architecture", arch, ARCHITECTURES)
    url = IMAGENET_URLS[arch.partition("_")[2]]
    name = url.rpartition("/")[2]
    digest = Path(name).stem.rpartition("-")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        _download(url, path, digest)
    elif not _sha256(path).startswith(digest):
        raise TinError(
            f"{path} is damaged: its SHA-256 does not start with {digest}; delete it to have it fetched again"
        )
    return path


def load_pretrained(model: TemporalResNet, source: str | os.PathLike[str]) -> LoadReport:
    """Start `model` from other weights; what it has and they do not (TIN modules, another classifier) stays as initialised.

    Args:
        model: from `build_model`.
        source: "imagenet", or the path of a checkpoint in any naming that `tin.load_checkpoint` knows.

    Returns:
        What was loaded, what is new, what was dropped. Print it.

    Raises:
        TinError: as `imagenet` and `tin.load_checkpoint`.
    """
    return load_checkpoint(model, imagenet(model.arch) if source == "imagenet" else source)


def _download(url: str, path: Path, digest: str) -> None:
    """Fetch through a temporary file, so that no other process or later run sees half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=False)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", None) or error
        raise TinError(
            f"cannot fetch the ImageNet weights {path.name} ({reason}): download {url} on a machine with a network and "
            f"place it as {path}, or pass the file's path with --pretrained"
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
