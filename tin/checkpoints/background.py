"""Checkpoint files written by a thread while training goes on, whatever the disk does."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tin.checkpoints.files import first_line, require_plain, sync_folder, temporary_file, temporary_name
from tin.checkpoints.host import HostCopies, HostCopy
from tin.checkpoints.seal import damage
from tin.errors import TinError

RETRY_S = 60.0
"""Between two tries to write while the disk refuses; a newer state is tried at once."""
RETRY_AT_END_S = 2.0


class BackgroundWriter:
    """Writes states into a folder, each under one or more names, with one state being written and one waiting.

    A file that cannot be written (full disk, quota, no permission) is no error: one warning says so, the old files stay, and the
    newest state is tried again. `say` is only called in methods, so on their caller's thread.

    Args:
        folder: where the files go.
        say: told of trouble and of its end, one text at a time.
        newest: the file that matters most. It is written first, and of all the states that wait while the disk refuses, those
            that are also asked for under `kept` stay, and others make room for newer ones.
        kept: see `newest`.
        previous: the name under which the last `newest` stays when another takes its place.
        written: called in the thread with the names just written.
        retry_s: seconds between two tries while the disk refuses.
    """

    def __init__(
        self,
        folder: Path,
        say: Callable[[str], None],
        *,
        newest: str,
        previous: str,
        kept: Sequence[str] = (),
        written: Callable[[Sequence[str]], None] = lambda names: None,
        retry_s: float = RETRY_S,
    ) -> None:
        self._folder, self._say, self._written, self._retry_s = folder, say, written, retry_s
        self._newest, self._previous, self._kept = newest, previous, {newest, *kept}
        self._copies = HostCopies()
        self._newest_is_whole = False  # known only of a file that this process has read or written

        self._changed = threading.Condition()  # guards everything below
        self._waiting: dict[str, HostCopy] = {}
        self._writing = False
        self._thread: threading.Thread | None = None
        self._ending = False
        self._trouble: str | None = None
        self._retry_at = 0.0
        self._messages: deque[str] = deque()

    def put(self, state: Mapping[str, Any], names: Sequence[str]) -> None:
        """Have `state`, as it is now, written under `names`. Returns when it is copied to host memory.

        A state that waits is replaced under the names it has in common with this one. If it has others, and the disk works,
        this waits until the disk has taken it: no file is left out because the disk is slow.

        Raises:
            TypeError: as `save_checkpoint`.
        """
        require_plain(state)
        with self._changed:
            self._changed.wait_for(lambda: self._trouble or not set(self._waiting) - set(names))
        copy = self._copies.copy(state)
        with self._changed:
            self._waiting.update(dict.fromkeys(names, copy))
            if self._trouble:
                self._make_room(copy)
            self._retry_at = 0.0
            self._start()
            self._changed.notify_all()
        self.tell()

    def tell(self) -> None:
        """Say what has happened meanwhile."""
        while self._messages:
            self._say(self._messages.popleft())

    def finish(self, patience_s: float) -> None:
        """Return when everything is written, trying again for up to `patience_s` seconds where the disk refuses.

        Raises:
            TinError: it still refuses; the files that were there are untouched.
        """
        give_up_at = time.monotonic() + patience_s
        with self._changed:
            thread = self._thread
            self._ending = True
            self._retry_at = 0.0
            self._changed.notify_all()
            while self._writing or (self._waiting and not (self._trouble and time.monotonic() >= give_up_at)):
                self._changed.wait(timeout=0.1 if self._trouble else None)
            failed, self._trouble = self._trouble, None
            self._waiting.clear()
            self._changed.notify_all()
        if thread:
            thread.join()
        self.tell()
        if failed:
            raise TinError(f"{failed}. Trying again for {patience_s:g} s at the end of the run did not help")

    # ---- the thread ----------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._ending = False
        if self._thread is None:
            # A daemon, so that leaving at once (a second Ctrl-C) does not wait for it; a file half written has no name yet.
            self._thread = threading.Thread(target=self._run, name="checkpoint-writer", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while job := self._next():
            copy, names = job
            left = list(names)
            problem: Exception | None = None
            try:
                self._write(copy, left)
            except Exception as error:  # whatever it is, training goes on
                problem = error
            with self._changed:
                self._writing = False
                if isinstance(
                    problem, OSError
                ):  # what else fails, fails again: a copy that a broken GPU never delivered
                    for name in left:
                        self._waiting.setdefault(name, copy)  # a newer state may have come
                if problem:
                    self._failed(problem, names, copy)
                elif self._trouble:
                    self._trouble = None
                    self._messages.append(f"checkpoints can be written again: {self._paths(names)}")
                self._changed.notify_all()

    def _next(self) -> tuple[HostCopy, list[str]] | None:
        """The state to write now and all its names; None when there is nothing left to do."""
        with self._changed:
            while not (self._waiting and time.monotonic() >= self._retry_at):
                if self._ending and not self._waiting:
                    self._thread = None
                    return None
                self._changed.wait(timeout=self._retry_at - time.monotonic() if self._waiting else None)
            copy = self._waiting.get(self._newest) or next(iter(self._waiting.values()))
            names = sorted((name for name, other in self._waiting.items() if other is copy), key=self._rank)
            for name in names:
                del self._waiting[name]
            self._writing = True
            self._changed.notify_all()
            return copy, names

    def _write(self, copy: HostCopy, names: list[str]) -> None:
        """Write one file and give it all its names; each is taken off the list when the file has it."""
        first = self._folder / names[0]
        done: list[str] = []
        with temporary_file(first, copy.wait()) as temporary:
            if names[0] == self._newest:
                self._keep_previous()
            os.replace(temporary, first)
        done.append(names.pop(0))
        self._newest_is_whole |= done[0] == self._newest
        while names:
            _link(first, self._folder / names[0])
            done.append(names.pop(0))
        sync_folder(self._folder)
        self._written(done)

    def _keep_previous(self) -> None:
        """Give the newest file its second name, unless it is damaged and would take a whole one's place."""
        path = self._folder / self._newest
        if path.is_file() and (self._newest_is_whole or _is_whole(path)):
            _link(path, self._folder / self._previous, or_move=True)

    # ---- trouble -------------------------------------------------------------------------------------------------------------

    def _failed(self, problem: Exception, names: Sequence[str], copy: HostCopy) -> None:
        self._retry_at = time.monotonic() + (RETRY_AT_END_S if self._ending else self._retry_s)
        news = self._trouble is None
        self._trouble = f"cannot write {self._paths(names)}: {_reason(problem, self._folder, copy.nbytes)}"
        if news:
            self._messages.append(
                f"{self._trouble}. Training goes on and the files that are there stay as they are; the newest state is tried "
                f"again at every save and every {self._retry_s:g} s"
            )
        self._make_room(self._waiting.get(self._newest, copy))

    def _make_room(self, latest: HostCopy) -> None:
        """While the disk refuses, hold the latest state and those of `kept` names, not one for each file that was due."""
        held = [latest, *(self._waiting[name] for name in self._kept if name in self._waiting)]
        late = [name for name, copy in self._waiting.items() if copy not in held]
        for name in late:
            del self._waiting[name]
        if late:
            self._messages.append(f"{self._paths(late)} could not be written in time and is left out")

    def _rank(self, name: str) -> tuple[bool, str]:
        return name != self._newest, name

    def _paths(self, names: Sequence[str]) -> str:
        return ", ".join(str(self._folder / name) for name in sorted(names, key=self._rank))


def _link(source: Path, target: Path, *, or_move: bool = False) -> None:
    """Have `target` be the file `source` too. Where the file system has no hard links it is a copy, or moves there."""
    temporary = temporary_name(target)
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            if or_move:
                os.replace(source, target)
                return
            shutil.copyfile(source, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)  # it is still there where both were one file already


def _is_whole(path: Path) -> bool:
    try:
        return damage(path) is None
    except OSError:
        return False


def _reason(problem: Exception, folder: Path, nbytes: int) -> str:
    """Why, and what to do about it."""
    code = problem.errno if isinstance(problem, OSError) else None
    reason = first_line(problem)
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        try:
            free = f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB free, "
        except OSError:
            free = ""
        return f"{reason} ({free}a checkpoint takes {nbytes / 1e6:,.0f} MB): make room on its file system, or raise the quota or limit"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{reason}: make {folder} writable"
    if code in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return f"{reason}: move away what has the place of a file or of {folder}"
    return f"{reason}: see that {folder} is in order"
