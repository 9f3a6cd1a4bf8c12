"""Which code ran: versions of the packages, and the commit of a checkout."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tin


def versions() -> dict[str, str]:
    """Versions of what computed."""
    return {
        "tin": tin.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


@functools.cache
def git_commit() -> dict[str, Any] | None:
    """The commit that this package's files were checked out from, asked for once a process.

    Returns:
        `commit` (40 hex digits) and `dirty` (a tracked file differs from it), or None: the package is installed, not checked
        out, or there is no git.
    """
    package = Path(tin.__file__).resolve().parent
    inside = _git(package, "ls-files", "--error-unmatch", "__init__.py")  # not merely below somebody's repository
    commit = _git(package, "rev-parse", "HEAD")
    if inside is None or commit is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(_git(package, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    # A git hook's GIT_DIR would be asked instead of the folder. Optional locks would stop the user's own git beside us.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    try:
        ran = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ran.stdout if ran.returncode == 0 else None
