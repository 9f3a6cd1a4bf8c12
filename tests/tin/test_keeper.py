"""The checkpoints of a run: kept under their names, written beside training, whole whatever happens to the disk or the process."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from tin.checkpoints import load_state, save_checkpoint
from tin.checkpoints.background import BackgroundWriter
from tin.checkpoints.files import temporary_name
from tin.distributed import World, process_group
from tin.errors import PeerError, TinError
from tin.recipes import CheckpointSettings
from tin.train.keeper import CheckpointKeeper, holds_run, load_for_resume


def state(step: int, epoch: int = 0, best: int | None = None, numbers: int = 1000) -> dict[str, Any]:
    """A small training state, every number of which says its step."""
    return {
        "format": "tin-checkpoint",
        "version": 2,
        "state_dict": {"w": torch.full((numbers,), float(step)), "b": torch.full((7,), step)},
        "progress": {
            "epoch": epoch,
            "samples": 0,
            "global_step": step,
            "best": {} if best is None else {"epoch": float(best)},
        },
    }


def step_of(path: Path) -> int:
    """The step of a file, which must be one whole state."""
    found = load_state(path)
    step = found["progress"]["global_step"]
    assert found["state_dict"]["w"].eq(step).all()
    assert found["state_dict"]["b"].eq(step).all()
    return int(step)


def steps(folder: Path) -> dict[str, int]:
    """Everything in a folder, which must be whole checkpoints alone."""
    return {path.name: step_of(path) for path in sorted(folder.iterdir())}


def keeper(folder: Path, said: list[str] | None = None, **settings: Any) -> CheckpointKeeper:
    return CheckpointKeeper(folder, CheckpointSettings(**settings), [].append if said is None else said.append)


def refuse(text: str) -> None:
    raise AssertionError(f"nothing should be said, but: {text}")


class TestNames:
    def test_the_newest_and_the_one_before_it_stay(self, tmp_path: Path) -> None:
        kept = keeper(tmp_path)
        for step in (1, 2, 3):
            kept.save(state(step))
            kept.finish()
            expected = {"last.pt": step} | ({"previous.pt": step - 1} if step > 1 else {})
            assert steps(tmp_path) == expected

    def test_a_state_is_what_it_was_when_it_was_saved(self, tmp_path: Path) -> None:
        kept, training = keeper(tmp_path), state(1, numbers=3_000_000)
        kept.save(training)
        for tensor in training["state_dict"].values():
            tensor.fill_(77)  # the next step
        training["progress"]["global_step"] = 77
        kept.finish()
        assert step_of(tmp_path / "last.pt") == 1

    def test_the_best_and_every_nth_epoch_are_links_to_one_file(self, tmp_path: Path) -> None:
        kept = keeper(tmp_path, every_epochs=2)
        kept.epoch_done(1, state(10, 1))
        assert kept.validated(2, {"top1_acc": 0.5}, state(20, 2, best=2))
        kept.epoch_done(2, state(20, 2, best=2))
        kept.finish()
        names = ("last.pt", "best.pt", "epoch_0002.pt")
        assert len({(tmp_path / name).stat().st_ino for name in names}) == 1
        kept.epoch_done(3, state(30, 3, best=2))
        kept.finish()
        assert not kept.validated(4, {"top1_acc": 0.4}, state(40, 4, best=2))
        kept.finish()
        assert steps(tmp_path) == {
            "best.pt": 20, "epoch_0002.pt": 20, "epoch_0004.pt": 40, "last.pt": 40, "previous.pt": 30,
        }  # fmt: skip

    def test_the_k_best_stay_and_what_falls_out_goes_also_after_a_restart(self, tmp_path: Path) -> None:
        def validate(kept: CheckpointKeeper, epoch: int, top1: float, best: int) -> None:
            kept.validated(epoch, {"top1_acc": top1}, state(epoch, epoch, best))
            kept.finish()

        kept = keeper(tmp_path, keep_top=2)
        for epoch, top1, best in ((1, 0.3, 1), (2, 0.5, 2), (3, 0.4, 2), (4, 0.2, 2), (5, 0.4, 2)):
            validate(kept, epoch, top1, best)
        assert {n: s for n, s in steps(tmp_path).items() if n.startswith("best")} == {
            "best.pt": 2, "best_0002_50.0000.pt": 2, "best_0003_40.0000.pt": 3,
        }  # fmt: skip
        assert (tmp_path / "best.pt").samefile(tmp_path / "best_0002_50.0000.pt")
        again = keeper(tmp_path, keep_top=2)  # a resumed run, whose second epoch ends a little worse
        validate(again, 2, 0.45, 2)
        validate(again, 6, 0.9, 6)
        assert [path.name for path in sorted(tmp_path.glob("best*"))] == [
            "best.pt", "best_0002_45.0000.pt", "best_0006_90.0000.pt",
        ]  # fmt: skip
        assert step_of(tmp_path / "best.pt") == 6

    def test_minutes_count_from_the_last_save(self, tmp_path: Path) -> None:
        assert not keeper(tmp_path, every_minutes=None).minutes_due()
        assert not keeper(tmp_path, every_minutes=60).minutes_due()
        soon = keeper(tmp_path, every_minutes=1e-9)
        assert soon.minutes_due()
        hourly = keeper(tmp_path, every_minutes=1 / 600)
        while not hourly.minutes_due():
            time.sleep(0.01)
        hourly.save(state(1))
        hourly.finish()
        assert holds_run(tmp_path)

    def test_a_state_that_could_not_be_loaded_is_refused_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match=r"state\['progress'\] is a pathlib"):
            keeper(tmp_path).save(state(1) | {"progress": tmp_path})

    def test_where_links_are_refused_files_are_copied_and_moved(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As on exFAT and on some network file systems, none of which can be mounted here."""

        def link(source: Path, target: Path) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
        kept = keeper(tmp_path)
        for step in (1, 2):
            kept.validated(step, {"top1_acc": 0.5}, state(step, step, best=1))
            kept.finish()
        assert steps(tmp_path) == {"best.pt": 1, "last.pt": 2, "previous.pt": 1}

    def test_a_damaged_file_does_not_take_the_place_of_the_whole_one_before_it(self, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "previous.pt", state(1))
        (tmp_path / "last.pt").write_bytes((tmp_path / "previous.pt").read_bytes()[:-100])
        kept = keeper(tmp_path)
        kept.save(state(2))
        kept.finish()
        assert steps(tmp_path) == {"last.pt": 2, "previous.pt": 1}


class TestBesideTraining:
    def test_training_goes_on_while_a_write_hangs_and_the_newest_state_follows(self, tmp_path: Path) -> None:
        """The file is a pipe that nobody reads: opening it blocks, as a network disk that has gone does."""
        said: list[str] = []
        kept = keeper(tmp_path, said)
        pipe = temporary_name(tmp_path / "last.pt")
        os.mkfifo(pipe)
        kept.save(state(1))
        for step in range(2, 6):
            kept.save(state(step))
        assert not (tmp_path / "last.pt").exists()
        with pipe.open("rb") as reader:  # a pipe cannot be sealed: an error, and the thread tries the next state
            reader.read()
        kept.finish()
        assert steps(tmp_path) == {"last.pt": 5}
        assert len(said) == 2
        assert "can be written again" in said[1]

    def test_no_kept_file_is_left_out_because_the_disk_is_slow(self, tmp_path: Path) -> None:
        kept = keeper(tmp_path, every_epochs=1)
        for epoch in range(1, 9):
            kept.epoch_done(epoch, state(epoch, epoch, numbers=300_000))
        kept.finish()
        found = steps(tmp_path)
        assert [found[f"epoch_{epoch:04d}.pt"] for epoch in range(1, 9)] == list(range(1, 9))

    def test_finish_leaves_no_thread_and_saving_goes_on_after_it(self, tmp_path: Path) -> None:
        before = threading.active_count()
        kept = keeper(tmp_path)
        for step in (1, 2):
            kept.save(state(step))
            kept.finish()
            assert threading.active_count() == before
        assert step_of(tmp_path / "last.pt") == 2


# What follows runs in a process of its own, in a file system that is its own: {setup} makes the folder `work`.
FULL_DISK = """
import json, os, pathlib, sys, time
from tests.tin.test_keeper import state, step_of
from tin.checkpoints.background import BackgroundWriter
from tin.errors import TinError
from tin.recipes import CheckpointSettings
from tin.train.keeper import CheckpointKeeper

work, said = pathlib.Path(sys.argv[1]), []
ballast = work / "ballast"
big = 500_000  # 2 MB

def fill():
    with ballast.open("wb", buffering=0) as file:
        try:
            while True: file.write(bytes(4096))
        except OSError: pass

def here(): return {p.name: step_of(p) for p in sorted(work.glob("*.pt"))}

def until(condition):
    while not condition(): kept.minutes_due(); time.sleep(0.01)

kept = CheckpointKeeper(work, CheckpointSettings(every_epochs=1), said.append)
kept.save(state(1, numbers=big)); kept.finish()
fill()
kept.validated(1, {"top1_acc": 0.5}, state(2, 1, best=1, numbers=big))
until(lambda: said)
trained = [here()]
for epoch in range(2, 20):
    kept.epoch_done(epoch, state(epoch + 1, epoch, best=1, numbers=big))
until(lambda: not kept._writer._writing)
waiting = len(set(map(id, kept._writer._waiting.values())))
ballast.unlink()
kept.save(state(30, 20, best=1, numbers=big))
kept.finish()
trained.append(here())

fill()
kept.save(state(31, 20, numbers=big))
try: kept.finish(0.5)
except TinError as error: failure = str(error)
trained.append(here())

ballast.unlink(); fill()
again = []
timed = BackgroundWriter(work, again.append, newest="last.pt", previous="previous.pt", retry_s=0.05)
timed.put(state(32, numbers=big), ["last.pt"])
while not again: timed.tell(); time.sleep(0.01)
ballast.unlink()
while len(again) < 2: timed.tell(); time.sleep(0.01)
trained.append(here())
left = sorted(p.name for p in work.iterdir() if not p.name.endswith(".pt"))
print(json.dumps({"said": said, "trained": trained, "failure": failure, "waiting": waiting, "again": again, "left": left}))
"""


def own_mount(tmp_path: Path, options: str, script: str) -> dict[str, Any]:
    """Run a script with a folder, its first argument, that is a file system of the script's own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = f"mount -t tmpfs -o {options} none {folder}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces with mounts of their own are not permitted here")
    (tmp_path / "script.py").write_text(script)
    command = f"{mount} && exec {sys.executable} {tmp_path / 'script.py'} {folder}"
    ran = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout)
    return result


class TestTrouble:
    @pytest.mark.slow
    def test_a_full_disk_stops_neither_training_nor_the_newest_state_from_getting_there(self, tmp_path: Path) -> None:
        found = own_mount(tmp_path, "size=12m", FULL_DISK)
        full, free, end, timed = found["trained"]
        assert full == {"last.pt": 1}
        warning, *left_out, again, second = found["said"]
        folder = tmp_path / "disk"
        assert warning.startswith(
            f"cannot write {folder}/last.pt, {folder}/best.pt, {folder}/epoch_0001.pt: No space left"
        )
        assert "0 MB free, a checkpoint takes 2 MB): make room" in warning
        assert "Training goes on and the files that are there stay as they are" in warning
        assert [text.split(" ")[0] for text in left_out] == [f"{folder}/epoch_{epoch:04d}.pt" for epoch in range(2, 20)]
        assert found["waiting"] == 2  # states in memory: the newest, and the best one
        assert "can be written again" in again
        assert free == {"best.pt": 2, "epoch_0001.pt": 2, "last.pt": 30, "previous.pt": 1}
        assert second.startswith(f"cannot write {folder}/last.pt")
        assert end == free
        assert "No space left" in found["failure"]
        assert "it was tried for" in found["failure"]
        assert timed["last.pt"] == 32
        assert "can be written again" in found["again"][1]
        assert found["left"] == []
