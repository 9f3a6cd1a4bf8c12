"""Checkpoint files are written whole or not at all, and hold only what can be read again."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import torch

from tin.checkpoints.seal import SealingFile
from tin.errors import TinError


def save_checkpoint(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write `state` to `path` so that a crash, a full disk or a pulled plug leaves the old file or the new one.

    The state goes to a temporary name in the same folder, to the disk, and then takes the old file's place. Folders that
    are missing are made. The file ends in a checksum of its bytes (`tin.checkpoints.seal`).

    Args:
        path: the file to write; by convention ends in `.pt`.
        state: tensors, numbers, strings, None, and dicts, lists and tuples of them: what `load_state` reads back.

    Raises:
        TypeError: `state` holds something else, which `load_state` would refuse. Names the key.
        TinError: the file cannot be written. The old one, if any, is untouched.
    """
    path = Path(path)
    require_plain(state)
    if path.is_dir():
        raise TinError(f"cannot write a checkpoint to {path}: it is a directory; give a file name in it")
    try:
        with temporary_file(path, state) as temporary:
            os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise TinError(f"cannot write the checkpoint {path}: {first_line(error)}; the old file is untouched") from error
    sync_folder(path.parent)


@contextmanager
def temporary_file(path: Path, state: Mapping[str, Any]) -> Iterator[Path]:
    """Write `state`, sealed and on the disk, under a temporary name beside `path`, to be given its name in the context.

    Folders that are missing are made. What is still under the temporary name at the end is removed.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            sealing = SealingFile(file)
            try:
                torch.save(dict(state), cast("IO[bytes]", sealing))
            except RuntimeError as error:
                raise sealing.error or error from error  # torch.save has an error of its own for a failed write
            sealing.seal()
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """Where this process puts what is to become `path`; `remove_leftovers` knows the pattern."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def remove_leftovers(folder: Path) -> list[str]:
    """Remove the temporary files of writers that were killed; call when nobody else writes checkpoints there.

    Returns:
        Their names. What cannot be removed stays.
    """
    removed = []
    for path in sorted(folder.glob(".*.tmp")) if folder.is_dir() else []:
        if _LEFTOVER.fullmatch(path.name) and path.is_file():
            with suppress(OSError):
                path.unlink()
                removed.append(path.name)
    return removed


_LEFTOVER = re.compile(r"\..+\.\d+\.tmp")


# Exact types: of a subclass (an enum, a numpy number, a defaultdict) pickle stores the class, which loading refuses.
_SCALARS = (str, int, float, bool, bytes, type(None), torch.Size, torch.dtype, torch.device)
_MAPPINGS = (dict, OrderedDict)


def require_plain(value: object, where: str = "state") -> None:
    """Refuse at saving what could not be loaded, while the run that holds it is still alive.

    Raises:
        TypeError: there is something else than `save_checkpoint` takes; names the key.
    """
    if isinstance(value, torch.Tensor) or type(value) in _SCALARS:
        return
    if isinstance(value, _MAPPINGS) and type(value) in _MAPPINGS:
        for key, item in value.items():
            require_plain(key, f"a key of {where}")
            require_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple) and type(value) in (list, tuple):
        for i, item in enumerate(value):
            require_plain(item, f"{where}[{i}]")
    else:
        raise TypeError(
            f"{where} is a {type(value).__module__}.{type(value).__qualname__}; "
            f"a checkpoint holds tensors, numbers, strings, and dicts, lists and tuples of them"
        )


def first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # torch.load puts advice that does not apply here before the reason.
    lines = [line.strip() for line in str(error).rpartition("WeightsUnpickler error: ")[2].splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def sync_folder(folder: Path) -> None:
    """The new name is on the disk too. Not every file system lets a folder be synced; the data already is."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
