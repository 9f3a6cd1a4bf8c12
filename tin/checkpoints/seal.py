"""A checksum over every byte of a checkpoint file, kept in the file: PyTorch writes checksums of its records and never reads them."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

_MARK = b"tin-crc32:"
_SEAL_BYTES = len(_MARK) + 8
# The end of a zip archive: 22 bytes that begin with a signature and end with the length of the comment that follows them.
_END, _END_BYTES, _LONGEST_COMMENT = b"PK\x05\x06", 22, 65535
_NO_COMMENT = bytes(2)
_CHUNK = 1 << 22


class SealingFile:
    """Hands what `torch.save` writes on to a file, then puts the CRC-32 of it all into the archive's comment.

    Programs that know nothing of the seal read the file as any other: `torch.load` skips a comment, `unzip -z` shows it.

    Attributes:
        error: why a write failed; `torch.save` says something else then.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Args:
        file: opened for writing and seeking, at its beginning.
        """
        self._file = file
        self._crc = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self._crc = zlib.crc32(data, self._crc)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def seal(self) -> None:
        """Call once, after `torch.save`, which leaves an archive without a comment."""
        self._file.seek(-len(_NO_COMMENT), os.SEEK_END)
        self._file.write(struct.pack("<H", _SEAL_BYTES) + _seal(self._crc))


def check_seal(path: Path) -> tuple[bool, str | None]:
    """Whether a zip-format file ends in a seal, and what is wrong with it: of a file without one, whether its end is there.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_BYTES - _LONGEST_COMMENT))
        tail = file.read()
        start = tail.rfind(_END)
        head, comment = tail[start : start + _END_BYTES], tail[start + _END_BYTES :]
        if start < 0 or head[-2:] != struct.pack("<H", len(comment)):
            return False, f"cut short at {size:,} bytes"
        if len(comment) != _SEAL_BYTES:
            return False, None
        body = _crc(file, size - _SEAL_BYTES - len(_NO_COMMENT))
        fits = _seal(zlib.crc32(_NO_COMMENT, body)) == comment
        return True, None if fits else "its checksum does not fit"


def damage(path: Path) -> str | None:
    """What is wrong with a zip-format checkpoint file, or None: each byte is read and compared with the checksums.

    Files of other programs have no seal; of them the records' own checksums are compared, which leave out the padding.

    Raises:
        OSError: the file cannot be read.
    """
    sealed, problem = check_seal(path)
    if sealed or problem:
        return problem
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, zlib.error) as error:
        return str(error) or type(error).__name__
    return bad and f"the checksum of its record {bad} does not fit"


def _crc(file: BinaryIO, length: int) -> int:
    file.seek(0)
    crc = 0
    while length > 0 and (chunk := file.read(min(_CHUNK, length))):
        crc = zlib.crc32(chunk, crc)
        length -= len(chunk)
    return crc


def _seal(crc: int) -> bytes:
    return _MARK + f"{crc:08x}".encode()
