"""The checkpoints of a run: which states stay on the disk, under which names, and which one a run goes on from."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tin.checkpoints import load_state
from tin.checkpoints.background import BackgroundWriter
from tin.checkpoints.exchange import broadcast_state
from tin.checkpoints.files import remove_leftovers
from tin.distributed import World, gather_objects, raise_together
from tin.errors import TinError
from tin.recipes import CheckpointSettings
from tin.train.state import FORMAT

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
PATIENCE_S = 60.0
"""How long the end of a run waits for a disk that refuses."""

_EPOCH = re.compile(r"epoch_(\d+)\.pt")
_TOP = re.compile(r"best_(\d+)_(\d+\.\d+)\.pt")


class CheckpointKeeper:
    """Keeps the checkpoints of a run; rank 0 has one.

    `last.pt` is the newest state, `previous.pt` the one that was it before, `best.pt` the best validated one by top-1;
    `best_EPOCH_TOP1.pt` (TOP1 in percent) are the k best with `keep_top` k > 1, `epoch_EPOCH.pt` every n-th with `every_epochs` n.
    Each is a whole training state to resume, test or start from. Names that have the same state are one file on the disk.

    Every method returns when the state is copied to host memory (on a GPU: when that copy is on its way); a thread writes
    it. When the disk refuses, one warning says so, what is there stays, and the newest state is tried again.
    Call `finish` at the end, also after an exception.

    Args:
        work_dir: the run's folder. Temporary files that killed writers left in it are removed.
        settings: the recipe's `checkpoint`.
        say: told of trouble with the disk and of its end; called on the thread that calls the methods.
    """

    def __init__(self, work_dir: Path, settings: CheckpointSettings, say: Callable[[str], None]) -> None:
        remove_leftovers(work_dir)
        self._work_dir, self._settings = work_dir, settings
        self._writer = BackgroundWriter(
            work_dir, say, newest=LAST, previous=PREVIOUS, kept=(BEST,), written=self._remove_what_fell_out
        )
        self._saved_at = time.monotonic()
        self._saved_epoch = 0

    def save(self, state: Mapping[str, Any], *names: str) -> None:
        """Write a snapshot as `last.pt` and under `names`.

        Raises:
            TypeError: the state holds what `load_state` would refuse.
        """
        self._writer.put(state, [LAST, *(name for name in names if name != LAST)])
        self._saved_at = time.monotonic()

    def minutes_due(self) -> bool:
        """Whether `every_minutes` have passed since the last save; cheap enough for every step. Tells of trouble, too."""
        self._writer.tell()
        minutes = self._settings.every_minutes
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def validated(self, epoch: int, metrics: Mapping[str, float], state: Mapping[str, Any]) -> bool:
        """Save the state that a validation has just judged, as all that it is; `epoch_done` need not be called then.

        Args:
            epoch: epochs finished.
            metrics: of the validation; `top1_acc` ranks the k best.
            state: a snapshot whose progress has taken in this validation already: it is the best if `best["epoch"]` is `epoch`.

        Returns:
            Whether it is the best.
        """
        best = state["progress"]["best"].get("epoch") == epoch
        names = [BEST] if best else []
        if self._settings.keep_top > 1:
            names += self._top_name(epoch, metrics["top1_acc"])
        self._save_epoch(epoch, state, names)
        return best

    def epoch_done(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Save the state at the end of an epoch that was not validated.

        Args:
            epoch: epochs finished.
            state: a snapshot.
        """
        if epoch != self._saved_epoch:
            self._save_epoch(epoch, state, [])

    def finish(self, patience_s: float = PATIENCE_S) -> None:
        """Return when all states are on the disk, trying again for `patience_s` seconds where it refuses.

        Raises:
            TinError: it still refuses. The files that were there before are whole.
        """
        self._writer.finish(patience_s)

    def _save_epoch(self, epoch: int, state: Mapping[str, Any], names: Sequence[str]) -> None:
        every = self._settings.every_epochs
        self._saved_epoch = epoch
        self.save(state, *names, *([f"epoch_{epoch:04d}.pt"] if every and epoch % every == 0 else []))

    def _top_name(self, epoch: int, top1: float) -> list[str]:
        """The name of a state among the k best, if it is."""
        name = f"best_{epoch:04d}_{100 * top1:.4f}.pt"
        better = [other for other in self._tops() if _rank(other) < _rank(name) and _epoch(other) != epoch]
        return [name] if len(better) < self._settings.keep_top else []

    def _remove_what_fell_out(self, written: Sequence[str]) -> None:
        """Of the k best: what is no longer among them, and what an epoch was before it was run again."""
        new = {_epoch(name): name for name in written if _TOP.fullmatch(name)}
        if not new:
            return
        tops = sorted(self._tops(), key=_rank)
        outdated = [name for name in tops if new.get(_epoch(name), name) != name]
        current = [name for name in tops if name not in outdated]
        for name in [*outdated, *current[self._settings.keep_top :]]:
            with suppress(OSError):  # one file too many is no trouble worth a warning
                (self._work_dir / name).unlink(missing_ok=True)

    def _tops(self) -> Iterator[str]:
        return (path.name for path in self._work_dir.glob("best_*.pt") if _TOP.fullmatch(path.name))


def _rank(top: str) -> tuple[float, int]:
    """Of the name of one of the k best, ascending; of equals the earlier comes first."""
    match = _TOP.fullmatch(top)
    assert match
    return -float(match[2]), int(match[1])


def _epoch(top: str) -> int:
    return _rank(top)[1]


# ---- going on ----------------------------------------------------------------------------------------------------------------


def holds_run(work_dir: Path) -> bool:
    """Whether there is a checkpoint in a folder, whole or not."""
    return next(_candidates(work_dir), None) is not None


def load_for_resume(work_dir: Path, world: World, say: Callable[[str], None]) -> tuple[dict[str, Any], Path] | None:
    """The newest whole state of a run, and its file: `last.pt`, else `previous.pt`, else the furthest of the kept ones.

    The machines of a run need no file system in common: one process of each looks into its own `work_dir`, the one that is
    furthest reads its file, checking every byte, and all others receive the state. So a run also goes on when another machine
    has become the one of rank 0. Temporary files that killed writers left are removed.

    Args:
        work_dir: the run's folder.
        world: this process among those of the run; the process group must exist.
        say: on rank 0 told of each file that is passed over, and why.

    Returns:
        None where there is no checkpoint at all.

    Raises:
        TinError: there are checkpoints, and none can be used; names them. On ranks other than 0 PeerError.
    """
    if world.local_rank == 0:
        remove_leftovers(work_dir)
    places = gather_objects(_furthest(work_dir) if world.local_rank == 0 else _NOTHING, world)
    reader = places.index(max(places))
    if places[reader] == _NOTHING:
        return None
    found: tuple[Any, str, list[str]] = (None, "", [])
    problem: Exception | None = None
    if world.rank == reader:
        try:
            found = _newest_whole(work_dir)
        except Exception as error:
            problem = error
    raise_together(problem, world)
    state, name, said = broadcast_state(found, world, reader)
    if world.is_main:
        for text in said:
            say(text)
    return state, work_dir / name


_NOTHING, _UNREADABLE = -2, -1


def _furthest(work_dir: Path) -> int:
    """Steps taken, by the first file that can be read."""
    steps = [_NOTHING]
    for path in _candidates(work_dir):
        steps.append(_steps(path))
        if steps[-1] != _UNREADABLE:
            break
    return steps[-1]


def _newest_whole(work_dir: Path) -> tuple[dict[str, Any], str, list[str]]:
    """The state, the name of its file, and what to say about it."""
    problems: list[str] = []
    for path in _candidates(work_dir):
        try:
            state = load_state(path)
            if state.get("format") != FORMAT:
                raise TinError(f"{path} is no training checkpoint of tin-cli")
        except TinError as error:
            problems.append(str(error))
            continue
        said = [f"passed over: {problem}" for problem in problems]
        if said:
            progress = state["progress"]
            said.append(
                f"using {path} instead, epoch {progress['epoch'] + 1}, {progress['global_step']} steps into the run"
            )
        return state, path.name, said
    raise TinError(
        f"no checkpoint in {work_dir} can be resumed; start anew in another --work-dir. " + "; ".join(problems)
    )


def _candidates(work_dir: Path) -> Iterator[Path]:
    """The files to try, in this order."""
    for name in (LAST, PREVIOUS):
        if (work_dir / name).exists():
            yield work_dir / name
    kept = [
        path
        for path in work_dir.glob("*.pt")
        if path.name == BEST or _EPOCH.fullmatch(path.name) or _TOP.fullmatch(path.name)
    ]
    yield from sorted(kept, key=lambda path: (-_steps(path), path.name))


def _steps(path: Path) -> int:
    """Steps taken, by the file's structure alone: the tensors are not read."""
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["progress"]["global_step"])
    except Exception:  # bytes that are no checkpoint surface as almost any error; `load_state` says which
        return _UNREADABLE
