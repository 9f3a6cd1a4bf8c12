"""PyTorch's format before 1.6: five pickles in a row, then the bytes of the tensors."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from tin.checkpoints.inert import CONSTANTS, MAKERS, build
from tin.checkpoints.pickles import read_pickle
from tin.checkpoints.refusal import Damaged, Refused, shown
from tin.checkpoints.storage import Storage, fill, new_memory, storage_request

MAGIC = b"\x80"
"""A pickle's first byte, from protocol 2 on."""
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_LENGTH = struct.Struct("<q")


def read_legacy(path: Path) -> Any:
    """The value that `torch.save` wrote, its tensors on the CPU. The format has no checksums: a changed byte of a tensor passes.

    Raises:
        Refused: it is cut short, damaged, or lies about its sizes.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if _plain(file) != _MAGIC_NUMBER:
            raise Refused("it is a pickle, but no checkpoint of PyTorch")
        if _plain(file) != _PROTOCOL:
            raise Refused("it is of an unknown version of PyTorch's old format")
        system = _plain(file)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise Refused(
                "it was written on a big-endian machine: load it there and save its state_dict to safetensors"
            )
        memory = _Memory(size)
        value = read_pickle(file, MAKERS, CONSTANTS, build, memory.storage)
        memory.fill(file, _plain(file))
        if file.tell() != size:
            raise Refused(f"it has {size - file.tell():,} bytes behind its last tensor")
    return value


def _plain(file: BinaryIO) -> Any:
    """The next pickle, of plain values."""
    return read_pickle(file, {}, {}, lambda target, state: False)


class _Memory:
    """The storages that the pickle asks for, and that are filled from what follows it."""

    def __init__(self, file_size: int) -> None:
        self._left = file_size
        self._raw: dict[str, Tensor] = {}
        self._itemsize: dict[str, int] = {}

    def storage(self, persistent_id: object) -> Storage:
        dtype, key, size, rest = storage_request(persistent_id)
        if key not in self._raw:
            self._left -= size
            if self._left < 0:
                raise Damaged("cut short: its tensors are larger than the file")
            self._raw[key] = new_memory(size)
            self._itemsize[key] = dtype.itemsize
        if self._raw[key].numel() != size:
            raise Refused(f"its tensors {shown(key)} have two sizes")
        whole = Storage(self._raw[key], dtype)
        if not rest or rest == (None,):
            return whole
        (_, offset, length) = rest[0]
        return whole.part(offset, length)

    def fill(self, file: BinaryIO, keys: Any) -> None:
        """Read each storage: its number of elements, then them.

        Raises:
            Refused: they are not those that were asked for.
        """
        if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(self._raw):
            raise Refused("its list of tensors does not fit them")
        for key in map(str, keys):
            raw = self._raw[key]
            head = file.read(_LENGTH.size)
            if len(head) < _LENGTH.size:
                raise Damaged("cut short in the list of its tensors")
            if _LENGTH.unpack(head)[0] * self._itemsize[key] != raw.numel():
                raise Refused(f"its tensors {shown(key)} have two sizes")
            fill(raw, file)
