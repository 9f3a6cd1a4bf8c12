"""A published file on this machine: found in the cache and checked, or fetched into it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from tin.errors import TinError
from tin.zoo.download import DownloadError, Progress, download
from tin.zoo.table import Published

OFFLINE = "TIN_OFFLINE"
"""Environment variable that forbids downloads, unless it is empty, 0, false or no."""


def cached(model: Published) -> Path:
    """Where a published file lies once it is fetched: in PyTorch's hub cache, under its own name.

    The cache is `$TORCH_HOME/hub/checkpoints`, by default `~/.cache/torch/hub/checkpoints`.
    """
    import torch  # takes seconds

    return Path(torch.hub.get_dir()) / "checkpoints" / model.file


def fetch(
    model: Published,
    *,
    offline: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> Path:
    """The file of published weights, downloaded unless it is in the cache. Its SHA-256 is checked each time.

    Args:
        model: from `find`.
        offline: do not download; so too where the environment says TIN_OFFLINE=1.
        progress: see `tin.zoo.download.download`.
        say: told of connections that were lost, in one line each.

    Returns:
        Its path in the cache.

    Raises:
        TinError: a damaged file in the cache; it cannot be fetched: says which file to place where.
    """
    path = cached(model)
    if path.exists():
        _check(path, model.sha256)
        return path
    by_hand = (
        f"download {model.url} on a machine with a network and place it as {path}, or pass the path of a file you have"
    )
    if offline or os.environ.get(OFFLINE, "").lower() not in ("", "0", "false", "no"):
        asked = "--offline" if offline else f"{OFFLINE}={os.environ[OFFLINE]}"
        raise TinError(f"the weights {model.file} are not on this machine and {asked} forbids fetching them: {by_hand}")
    try:
        download(model.url, path, sha256=model.sha256, mebibytes=model.mebibytes, progress=progress, say=say)
    except DownloadError as error:
        raise TinError(f"cannot fetch the weights {model.file} ({error}): {by_hand}") from error
    return path


def _check(path: Path, digest: str) -> None:
    try:
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TinError(f"cannot read {path}: {error.strerror or error}") from error
    if not whole.startswith(digest):
        raise TinError(
            f"{path} is damaged: its SHA-256 does not start with {digest}; delete it to have it fetched again"
        )
