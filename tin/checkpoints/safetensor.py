"""The safetensors format, by its own library: tensors by name, and texts beside them."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tin.checkpoints.refusal import Damaged, Refused, shown

_LENGTH = struct.Struct("<Q")
MAGIC_BYTES = _LENGTH.size + 1
_MOST_HEADER_BYTES = 8 << 20  # 100 bytes a tensor in the file, some hundreds in memory


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins as one, by its first MAGIC_BYTES bytes: the length of a JSON object, and its brace."""
    return len(head) >= MAGIC_BYTES and head[_LENGTH.size :][:1] == b"{"


def read_safetensors(path: Path) -> dict[str, Any]:
    """`state_dict`: the tensors, on the CPU; and `metadata`, where the file has any: texts by name.

    Raises:
        Refused: it is damaged, or lies about its sizes.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            raise Damaged("cut short")
        (length,) = _LENGTH.unpack(head)
        size = file.seek(0, io.SEEK_END)
    if length > size - _LENGTH.size:
        raise Damaged("cut short, or no safetensors file: its header is longer than the file")
    if length > _MOST_HEADER_BYTES:
        raise Refused(f"its header is larger than {_MOST_HEADER_BYTES >> 20} MB")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            # Copies: views of the mapped file would crash this process if somebody shortened it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
    except SafetensorError as error:
        raise Damaged(f"safetensors: {shown(error)}") from error
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise Damaged(f"safetensors: {shown(error) or type(error).__name__}") from error
    state: dict[str, Any] = {"state_dict": tensors}
    if metadata:
        state["metadata"] = metadata
    return state
