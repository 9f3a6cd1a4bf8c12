"""Where a network starts: published weights, found or fetched, or a file of the user's."""

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
TSM_K400_URL = (
    "https://download.openmmlab.com/mmaction/recognition/tsm/tsm_r50_1x1x8_50e_kinetics400_rgb/"
    "tsm_r50_1x1x8_50e_kinetics400_rgb_20200607-af7fb746.pth"
)
"""MMAction2's TSM-R50 of Kinetics-400, which its TIN recipe for that data set starts from; named in the same way."""


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
    return _cached(IMAGENET_URLS[arch.partition("_")[2]])


def tsm(arch: str) -> Path:
    """The file with MMAction2's TSM weights of Kinetics-400, downloaded and checked as `imagenet`.

    Args:
        arch: an architecture of `build_model`; only ResNet-50 ones have such weights.

    Raises:
        TinError: as `imagenet`, or an architecture of another depth.
    """
    if not arch.endswith("_resnet50"):
        raise TinError(f"--pretrained tsm: the published weights are of ResNet-50, not {arch}; pass a file of your own")
    return _cached(TSM_K400_URL)


def load_pretrained(model: TemporalResNet, source: str | os.PathLike[str]) -> LoadReport:
    """Start `model` from other weights; what it has and they do not (TIN modules, another classifier) stays as initialised.

    Args:
        model: from `build_model`.
        source: "imagenet", "tsm", or the path of a checkpoint in any naming that `tin.load_checkpoint` knows.

    Returns:
        What was loaded, what is new, what was dropped. Print it.

    Raises:
        TinError: as `imagenet`, `tsm` and `tin.load_checkpoint`.
    """
    published = {"imagenet": imagenet, "tsm": tsm}.get(str(source))
    return load_checkpoint(model, published(model.arch) if published else source)


def _cached(url: str) -> Path:
    """The hub cache's file of a URL whose name ends in the first digits of its SHA-256."""
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


def _download(url: str, path: Path, digest: str) -> None:
    """Fetch through a temporary file, so that no other process or later run sees half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=False)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", None) or error
        raise TinError(
            f"cannot fetch the weights {path.name} ({reason}): download {url} on a machine with a network and "
            f"place it as {path}, or pass the file's path with --pretrained"
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
