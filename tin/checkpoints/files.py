"""Checkpoint files: written whole or not at all, read without running code from them, with errors that say what to do."""

from __future__ import annotations

import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import torch

from tin.checkpoints.seal import SealingFile, damage
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


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint file to the CPU without unpickling anything but tensors and plain Python values.

    Zip files of PyTorch ≥ 1.6 and the older format are read. Of a zip file every checksum is compared first, which PyTorch
    does not do: a changed byte is an error and no wrong weight.

    Returns:
        What was saved: for most files a dict with weights under some key and other things beside them.

    Raises:
        TinError: there is no such file, it is a directory, cut short, damaged, no checkpoint, or holds Python objects.
    """
    path = Path(path)
    if path.is_dir():
        raise TinError(f"{path} is a directory, not a checkpoint: give a file in it{_suggestion(path)}")
    if not path.exists():
        raise TinError(f"there is no checkpoint {path}: check the path{_suggestion(path.parent)}")
    try:
        file = path.open("rb")
    except OSError as error:
        raise TinError(f"cannot read the checkpoint {path}: {first_line(error)}") from error
    with file:
        try:
            if file.read(len(_ZIP)) == _ZIP and (problem := damage(path)):
                raise _Damaged(problem)
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
        except _UNREADABLE as error:
            raise TinError(_why_unreadable(path, error)) from error
    if not isinstance(state, dict):
        raise TinError(f"{path} holds a {type(state).__name__}, not a checkpoint: a dict with the weights is expected")
    return state


_ZIP = b"PK\x03\x04"
_LEFTOVER = re.compile(r"\..+\.\d+\.tmp")


class _Damaged(ValueError):
    """A checksum does not fit."""


# Bytes that are no checkpoint, or no longer one, surface as almost any of Python's errors.
_UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    pickle.UnpicklingError,
)

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


def _why_unreadable(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        return f"{path} is empty: its writing or its download was cut off; fetch or write it again"
    if isinstance(error, _Damaged):
        return f"{path} is damaged ({error}): copy or download it again"
    reason = first_line(error)
    foreign = re.search(r"[Uu]nsupported (?:global: )?GLOBAL ([\w.]*\w)", str(error))
    if foreign:
        return (
            f"{path} holds Python objects ({foreign[1]}) beside its tensors, which could run code when loaded: if you trust the "
            f"file, load it with torch.load(…, weights_only=False) and save its state_dict alone"
        )
    if head == _ZIP:
        return f"{path} is damaged or no PyTorch checkpoint ({reason}): copy or download it again"
    if head[:1] == b"<":
        return f"{path} is a web page, not a checkpoint: the download link led elsewhere"
    return f"{path} is no PyTorch checkpoint, or is cut short: {reason}"


def _suggestion(folder: Path) -> str:
    """The checkpoints that do lie in `folder`, a few of them."""
    if not folder.is_dir():
        return f"; there is no folder {folder} either"
    found = sorted(file.name for file in folder.iterdir() if file.suffix in (".pt", ".pth"))
    if not found:
        return ""
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"; {folder} holds {', '.join(found[:3])}{more}"


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
