"""The memory behind tensors of a file, and tensors as views of it that cannot reach out of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tin.checkpoints.refusal import Damaged, Refused

_CHUNK = 4 << 20
_REPEATS = 1 << 20
_MOST_DIMENSIONS = 32


class Storage:
    """One stretch of a file's memory, read as elements of one dtype.

    Attributes:
        elements: all of them, one-dimensional.
    """

    def __init__(self, raw: Tensor, dtype: torch.dtype) -> None:
        """Args:
        raw: the bytes (uint8), on the CPU, aligned as PyTorch aligns new memory.

        Raises:
            Refused: they are no whole number of elements.
        """
        if raw.numel() % dtype.itemsize:
            raise Refused(f"it has {raw.numel():,} bytes for elements of {dtype.itemsize}")
        self._raw = raw
        self.elements = raw.view(dtype)

    def viewed(self, dtype: torch.dtype) -> Storage:
        """The same memory as elements of another dtype."""
        return Storage(self._raw, dtype)

    def part(self, offset: int, length: int) -> Storage:
        """Some of its elements, as PyTorch before 0.4 stored views of a storage."""
        itemsize = self.elements.itemsize
        if not 0 <= offset <= offset + length <= self.elements.numel():
            raise Refused("it has a storage that reaches out of another")
        return Storage(self._raw[offset * itemsize : (offset + length) * itemsize], self.elements.dtype)


def new_memory(size: int) -> Tensor:
    """So many bytes, not yet touched."""
    return torch.empty(size, dtype=torch.uint8)


def fill(memory: Tensor, file: Any) -> None:
    """Read a file on until memory is full.

    Args:
        file: anything with `readinto`.

    Raises:
        Damaged: it ends before.
    """
    view, at = memoryview(memory.numpy().data), 0
    while at < len(view) and (count := file.readinto(view[at : at + _CHUNK])):
        at += count
    if at < len(view):
        raise Damaged("cut short in its tensors")


def storage_request(persistent_id: object) -> tuple[torch.dtype, str, int, tuple[Any, ...]]:
    """What a pickle asks for where a tensor's memory belongs: dtype, key, bytes, and what else there is in the id.

    Raises:
        Refused: it asks for something else, or for an impossible size.
    """
    if not isinstance(persistent_id, tuple) or len(persistent_id) < 5 or persistent_id[0] != "storage":
        raise Refused("it refers to something outside that is no tensor: it may be a whole pickled module")
    _, dtype, key, _, length, *rest = persistent_id
    key = str(key) if type(key) is int else key  # Python 2's are numbers
    if not isinstance(dtype, torch.dtype) or type(key) is not str:
        raise Refused("it has a tensor of unknown type")
    if type(length) is not int or not 0 <= length < 1 << 48:
        raise Refused("it has a tensor of impossible size")
    return dtype, key, length * dtype.itemsize, tuple(rest)


def tensor_of(storage: Storage, offset: int, size: Any, stride: Any) -> Tensor:
    """A view of a storage, as PyTorch would make it.

    Raises:
        Refused: it reaches out of the storage, or claims far more elements than there are (by strides of zero).
    """
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without memory")
    size, stride = tuple(size), tuple(stride)
    numbers = (offset, *size, *stride)
    if any(type(number) is not int or not 0 <= number < 1 << 48 for number in numbers) or len(size) != len(stride):
        raise Refused("it has a tensor of impossible shape")
    if len(size) > _MOST_DIMENSIONS:
        raise Refused(f"it has a tensor of more than {_MOST_DIMENSIONS} dimensions")
    last, count = offset, 1
    for side, step in zip(size, stride, strict=True):
        last += (side - 1) * step
        count *= side
    there = storage.elements.numel()
    if offset > there or (count and last >= there):
        raise Refused(f"it has a tensor of shape {size} that reaches out of its {there:,} stored elements")
    if count > max(there, _REPEATS):
        raise Refused(f"it has a tensor of shape {size} that repeats its {there:,} stored elements")
    if not count:
        return storage.elements.new_empty(size)
    return storage.elements.as_strided(size, stride, storage.elements.storage_offset() + offset)
