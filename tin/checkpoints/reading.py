"""Checkpoint files of any format are read as data: no code in them runs, and what cannot be read is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tin.checkpoints import archive, legacy, safetensor
from tin.checkpoints.files import first_line
from tin.checkpoints.pickles import UnknownGlobal
from tin.checkpoints.refusal import Damaged, Refused, shown
from tin.errors import TinError

SUFFIXES = (".pt", ".pth", ".safetensors")
_HEAD_BYTES = 512
_ARMS = (
    *(
        "builtins.__import__",
        "builtins.compile",
        "builtins.eval",
        "builtins.exec",
        "builtins.open",
        "_pickle.",
        "commands.",
    ),
    *(
        "ctypes.",
        "importlib.",
        "marshal.",
        "nt.",
        "os.",
        "pickle.",
        "posix.",
        "pty.",
        "runpy.",
        "shutil.",
        "subprocess.",
    ),
)
"""How names begin with which a hostile file reaches for the machine."""


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint file to the CPU: PyTorch's zip format, its older one, or safetensors, told apart by their content.

    A pickle in the file is read as data. It can name classes; the few that stand for values (numpy's numbers and arrays,
    OrderedDict, defaultdict) become these values, those known from other training programs (MMEngine's HistoryBuffer,
    argparse's Namespace) become `foreign.Foreign`, and any other refuses the file. None is imported or called.

    All checksums of a zip file are compared, which PyTorch does not do: a changed byte is an error and no wrong weight. Memory
    stays below twice the file's size and 1 GB, whatever the file claims.

    Returns:
        What was saved: for most files a dict with weights under some key and other things beside them. Of a safetensors file
        the tensors under `state_dict`, and its texts, if any, under `metadata`. Tensors carry no gradient.

    Raises:
        TinError: there is no such file, it is a directory, cut short, damaged, hostile, no checkpoint, or holds Python objects.
    """
    path = Path(path)
    if path.is_dir():
        raise TinError(f"{path} is a directory, not a checkpoint: give a file in it{_suggestion(path)}")
    if not path.exists():
        raise TinError(f"there is no checkpoint {path}: check the path{_suggestion(path.parent)}")
    if not path.is_file():
        raise TinError(f"{path} is no regular file: copy the checkpoint to one")
    head = b""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        state = _read(path, head)
    except OSError as error:
        raise TinError(f"cannot read the checkpoint {path}: {first_line(error)}") from error
    except MemoryError as error:
        raise TinError(f"cannot read the checkpoint {path}: there is too little memory for it") from error
    except UnknownGlobal as error:
        raise TinError(f"{path} {_unknown(error.name)}") from error
    except Damaged as error:
        raise TinError(f"{path} is damaged ({error}): copy or download it again") from error
    except Refused as error:
        raise TinError(f"{path} is refused: {error}") from error
    if not isinstance(state, dict):
        raise TinError(f"{path} holds a {type(state).__name__}, not a checkpoint: a dict with the weights is expected")
    return state


def _read(path: Path, head: bytes) -> Any:
    if head.startswith(archive.MAGIC):
        return archive.read_archive(path)
    if head.startswith(legacy.MAGIC):
        return legacy.read_legacy(path)
    if safetensor.is_safetensors(head) or path.suffix == ".safetensors":
        return safetensor.read_safetensors(path)
    raise TinError(f"{path} {_other(head)}")


def _other(head: bytes) -> str:
    """What a file is that is no checkpoint."""
    if not head:
        return "is empty: its writing or its download was cut off; fetch or write it again"
    if head[:1] == b"<":
        return "is a web page, not a checkpoint: the download link led elsewhere"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the checkpoint: fetch it with git lfs pull"
    if head[257:262] == b"ustar":
        return "is a tar archive: unpack it; PyTorch's own tar format, before 0.2, is not read"
    return f"is no PyTorch checkpoint and no safetensors file, or is cut short: it begins with {shown(head[:16])}"


def _unknown(name: str) -> str:
    """Why a file is not read that names this class or function."""
    if name.startswith("torch._utils._rebuild"):
        return (
            f"is refused: it holds a kind of tensor ({shown(name)}) that no network here has: save dense tensors alone"
        )
    objects = f"holds Python objects ({shown(name)}) beside its tensors, which could run code when loaded"
    if name.startswith(_ARMS):
        return f"{objects}: no checkpoint needs this one, so do not load the file by other means either"
    return f"{objects}: if you trust the file, load it with torch.load(…, weights_only=False) and save its state_dict alone"


def _suggestion(folder: Path) -> str:
    """The checkpoints that do lie in `folder`, a few of them."""
    if not folder.is_dir():
        return f"; there is no folder {folder} either"
    found = sorted(file.name for file in folder.iterdir() if file.suffix in SUFFIXES)
    if not found:
        return ""
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"; {folder} holds {', '.join(found[:3])}{more}"
