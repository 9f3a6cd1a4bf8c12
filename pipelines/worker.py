"""A decoding process: takes tasks from a socket, answers with values or with frames in anonymous shared memory.

Started as `python -m pipelines.worker FD` by workers.WorkerPool. It ends when the other side of the socket does, and what it
shares has no name in the file system, so nothing can be left behind, however either side dies.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from pipelines.decode import Allocate, Frames, Tally, decode_frames
from pipelines.errors import DataError, DecodeError
from pipelines.examine import examine
from pipelines.probe import probe_each
from pipelines.seeking import Layout
from pipelines.transcode.encode import transcode_file

_HEADER = struct.Struct("<Q")
READY = ("ready", None, None)
# Tasks by kind, beside `decode`, whose frames are shared: plain functions of plain values.
TASKS: dict[str, Callable[..., Any]] = {"examine": examine, "probe": probe_each, "transcode": transcode_file}


def send(sock: socket.socket, message: Any, fds: tuple[int, ...] = ()) -> None:
    """Send one pickled message, with open files beside it."""
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    socket.send_fds(sock, [_HEADER.pack(len(body))], fds)
    sock.sendall(body)


def receive(sock: socket.socket) -> tuple[Any, list[int]] | None:
    """The next message and its files; None when the other side has gone."""
    try:
        head, fds, _, _ = socket.recv_fds(sock, _HEADER.size, 1)
        if not head:
            return None
        head += _exactly(sock, _HEADER.size - len(head))
        return pickle.loads(_exactly(sock, _HEADER.unpack(head)[0])), fds
    except (ConnectionError, EOFError):
        return None


class SharedFrames:
    """Allocates one array in memory that has a file descriptor and no name."""

    fd: int | None = None
    shape: tuple[int, ...] = ()

    def __call__(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        self.shape = shape
        self.fd = os.memfd_create("frames", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, int(np.prod(shape)))
        memory = mmap.mmap(self.fd, 0)
        return np.frombuffer(memory, np.uint8).reshape(shape)

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)


def open_shared(fd: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Map frames that a worker shared; the memory lives as long as the array."""
    try:
        memory = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    finally:
        os.close(fd)
    return np.frombuffer(memory, np.uint8).reshape(shape)


def subject(arguments: tuple[Any, ...]) -> str:
    """The file that a task is about; the first, where there are several."""
    first = arguments[0]
    return first if isinstance(first, str) else str(first[0][0])


def decode_counted(
    path: str,
    indices: NDArray[np.int64],
    layout: Layout | None = None,
    *,
    tally: Tally,
    allocate: Allocate | None = None,
) -> Frames:
    """decode_frames, its processor time added to `tally` with its frames."""
    started = time.thread_time()
    try:
        return decode_frames(path, indices, layout=layout, allocate=allocate, tally=tally)
    finally:
        tally.seconds += time.thread_time() - started


def serve(sock: socket.socket) -> None:
    """Answer tasks (key, kind, arguments) with (key, value, error, tally) until the other side closes."""
    send(sock, READY)
    while (received := receive(sock)) is not None:
        key, kind, arguments = received[0]
        shared = SharedFrames()
        value: Any = None
        error: Exception | None = None
        tally = Tally()
        try:
            if kind == "decode":
                decode_counted(*arguments, tally=tally, allocate=shared)
                value = shared.shape
            else:
                value = TASKS[kind](*arguments)
        except DataError as problem:
            error = problem
        except Exception as problem:  # an unforeseen failure on one file must not end the process
            error = DecodeError(subject(arguments), f"{type(problem).__name__}: {problem}")
        try:
            send(sock, (key, value, error, tally), (shared.fd,) if error is None and shared.fd is not None else ())
        finally:
            shared.close()


def _exactly(sock: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = sock.recv(min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    av.logging.set_level(av.logging.PANIC)  # failures are reported by name; FFmpeg's own lines name no file
    with contextlib.suppress(ConnectionError):  # the parent has gone
        serve(socket.socket(fileno=int(sys.argv[1])))
