"""PyTorch's zip format: records found, bounded and compared with their checksums, the pickle in it read as data."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

from torch import Tensor

from tin.checkpoints.inert import CONSTANTS, MAKERS, build
from tin.checkpoints.pickles import MAX_BYTES, read_pickle
from tin.checkpoints.refusal import Damaged, Refused, shown
from tin.checkpoints.seal import check_seal
from tin.checkpoints.storage import Storage, fill, new_memory, storage_request

MAGIC = b"PK\x03\x04"
_MOST_DIRECTORY_BYTES = 16 << 20  # 1 KB of memory for each 50 bytes; a ResNet-101 with its optimiser has 100 KB
_LOCAL_HEADER_BYTES = 30
_BROKEN = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, zlib.error, OverflowError)


def read_archive(path: Path) -> Any:
    """The value that `torch.save` wrote, its tensors on the CPU.

    Every byte is compared with the file's seal (`tin.checkpoints.seal`), or the records that are read with their checksums.

    Raises:
        Refused: it is damaged, no checkpoint of PyTorch, or lies about its sizes.
        OSError: it cannot be read.
    """
    _, problem = check_seal(path)
    if problem:
        raise Damaged(problem)
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        try:
            with zipfile.ZipFile(cast("Any", _Directory(file))) as archive:
                records = _records(archive, size)
                return _Reader(archive, records).read()
        except Refused:
            raise
        except _BROKEN as error:
            raise Damaged(shown(error) or type(error).__name__) from error


class _Directory:
    """A file of which at most a directory of reasonable size is read at once: zipfile takes it whole, a KB for every entry."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size, _MOST_DIRECTORY_BYTES + 1) if size >= 0 else _MOST_DIRECTORY_BYTES + 1)
        if len(data) > _MOST_DIRECTORY_BYTES:
            raise Refused(f"its directory is larger than {_MOST_DIRECTORY_BYTES >> 20} MB")
        return data

    def seekable(self) -> bool:
        return True


def _records(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """By name in the archive's one folder; checked against each other and the file."""
    records: dict[str, zipfile.ZipInfo] = {}
    folder = ""
    free_from = 0
    if any(name.endswith("/constants.pkl") for name in archive.namelist()):
        raise Refused("it is a TorchScript program, not a checkpoint: save its state_dict() with torch.save")
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        root, _, name = info.orig_filename.partition("/")
        folder = folder or root
        if root != folder or root in ("", ".", "..") or not name or {"", ".", ".."} & set(name.split("/")):
            raise Refused(f"it is a zip archive, but no PyTorch checkpoint: it holds {shown(info.orig_filename)}")
        if name in records:
            raise Refused(f"it has two records {shown(name)}")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size != info.compress_size:
            raise Refused(f"its record {shown(name)} is compressed or encrypted, which PyTorch's are not")
        if info.header_offset < free_from:
            raise Refused(f"its record {shown(name)} lies over another")
        free_from = info.header_offset + _LOCAL_HEADER_BYTES + info.file_size
        records[name] = info
    if free_from > min(size, archive.start_dir):
        raise Damaged("its records reach out of it")
    return records


class _Reader:
    """The pickle of an archive, and the records its tensors ask for."""

    def __init__(self, archive: zipfile.ZipFile, records: dict[str, zipfile.ZipInfo]) -> None:
        self._archive, self._records = archive, records
        self._raw: dict[str, Tensor] = {}

    def read(self) -> Any:
        if "data.pkl" not in self._records:
            raise Refused("it is a zip archive, but no PyTorch checkpoint: it has no data.pkl")
        if self._bytes("byteorder", 16) not in (b"little", b""):
            raise Refused(
                "it was written on a big-endian machine: load it there and save its state_dict to safetensors"
            )
        return read_pickle(io.BytesIO(self._bytes("data.pkl", MAX_BYTES)), MAKERS, CONSTANTS, build, self._storage)

    def _bytes(self, name: str, most: int) -> bytes:
        """A record; empty if there is none."""
        info = self._records.get(name)
        if info is None:
            return b""
        if info.file_size > most:
            raise Refused(f"its record {name} is larger than {most:,} bytes")
        return self._memory(info).numpy().tobytes()

    def _storage(self, persistent_id: object) -> Storage:
        dtype, key, size, rest = storage_request(persistent_id)
        name = f"data/{key}"
        if rest or name not in self._records:
            raise Refused(f"its tensors {shown(name)} are not there")
        info = self._records[name]
        if info.file_size != size:
            raise Refused(f"its record {shown(name)} has {info.file_size:,} bytes where tensors need {size:,}")
        if name not in self._raw:
            self._raw[name] = self._memory(info)
        return Storage(self._raw[name], dtype)

    def _memory(self, info: zipfile.ZipInfo) -> Tensor:
        raw = new_memory(info.file_size)
        with self._archive.open(info) as record:
            fill(raw, record)
        return raw
