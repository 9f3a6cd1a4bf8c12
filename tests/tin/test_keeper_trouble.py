"""The checkpoints of a run stay whole whatever happens to the disk or the process that writes them."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.tin.run_states import refuse, steps
from tin.distributed import World
from tin.train.keeper import load_for_resume

# What follows runs in a process of its own, in a file system that is its own: {setup} makes the folder `work`.
FULL_DISK = """
import json, os, pathlib, sys, time
from tests.tin.run_states import state, step_of
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
        names = [name for text in left_out for name in re.findall(r"epoch_\d+\.pt", text)]
        expected = [f"epoch_{epoch:04d}.pt" for epoch in range(2, 20)]  # each named once, or written
        late = {
            name: step for name, step in free.items() if name in expected
        }  # the disk was free before a newer state came
        assert all(step == int(name[6:10]) + 1 for name, step in late.items())
        assert sorted([*names, *late]) == expected
        assert found["waiting"] <= 2  # states in memory: the newest, and the best one
        assert "can be written again" in again
        before = max(late.values(), default=1)
        assert free == {"best.pt": 2, "epoch_0001.pt": 2, **late, "last.pt": 30, "previous.pt": before}
        assert second.startswith(f"cannot write {folder}/last.pt")
        assert end == free
        assert "No space left" in found["failure"]
        assert found["failure"].endswith("Trying again for 0.5 s at the end of the run did not help")
        assert timed["last.pt"] == 32
        assert "can be written again" in found["again"][1]
        assert found["left"] == []

    @pytest.mark.slow
    def test_a_folder_that_cannot_be_written_is_named_with_what_to_do(self, tmp_path: Path) -> None:
        script = (
            "import json, pathlib, subprocess, sys\n"
            "from tests.tin.run_states import keeper, state, step_of\n"
            "from tin.errors import TinError\n"
            "work, said = pathlib.Path(sys.argv[1]), []\n"
            "kept = keeper(work, said)\n"
            "kept.save(state(1)); kept.finish()\n"
            "subprocess.run(['mount', '-o', 'remount,ro', work], check=True)\n"
            "kept.save(state(2))\n"
            "try: kept.finish(0.2)\n"
            "except TinError as error: print(json.dumps([said, str(error), step_of(work / 'last.pt')]))\n"
        )
        (warning,), failure, step = own_mount(tmp_path, "size=12m", script)
        assert "Read-only file system: make " in warning
        assert "disk writable" in failure
        assert step == 1

    @pytest.mark.slow
    def test_a_file_size_limit_is_met_as_a_full_disk_is(self, tmp_path: Path) -> None:
        script = (
            "import pathlib, resource, sys\n"
            "from tests.tin.run_states import keeper, state\n"
            "kept = keeper(pathlib.Path(sys.argv[1]), [])\n"
            "kept.save(state(1)); kept.finish()\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n"
            "kept.save(state(2, numbers=10**6)); kept.finish(0)\n"
        )
        ran = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
        assert re.search(
            r"TinError: cannot write .*last\.pt: File too large \(.* MB free, a checkpoint takes 4 MB\)", ran.stderr
        )
        assert steps(tmp_path) == {"last.pt": 1}


# Saves without end, under names that share a state and names that do not, and says which step is on the disk.
SAVING = """
import itertools, pathlib, sys
from tests.tin.run_states import keeper, state
work, first = pathlib.Path(sys.argv[1]), int(sys.argv[2])
kept = keeper(work, every_epochs=1, keep_top=2)
print("ready", flush=True)
for step in itertools.count(first):
    kept.save(state(step, numbers=400_000))
    if step % 3 == 0:
        kept.validated(step % 5 + 1, {"top1_acc": step % 7 / 7}, state(step, step, best=step % 5 + 1, numbers=400_000))
    kept.finish()
    print(step, flush=True)
"""


class TestKilled:
    @pytest.mark.slow
    def test_a_killed_writer_leaves_a_whole_checkpoint_and_nothing_else(self, tmp_path: Path) -> None:
        kill_and_look(tmp_path, rounds=3)

    @pytest.mark.prove
    def test_a_writer_killed_at_many_moments_leaves_a_whole_checkpoint_and_nothing_else(self, tmp_path: Path) -> None:
        kill_and_look(tmp_path, rounds=15)


def kill_and_look(folder: Path, rounds: int) -> None:
    moments = random.Random(4)
    done, littered, reached = 0, 0, 0
    while done < rounds or (not littered and done < rounds + 20):  # until one was killed while it wrote
        done += 1
        command = [sys.executable, "-c", SAVING, str(folder), str(reached + 1)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(3):  # the run is under way
            said = writer.stdout.readline()
        time.sleep(moments.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        said = writer.stdout.read().split()[-1:] or [said]
        writer.wait()
        littered += any(path.suffix == ".tmp" for path in folder.iterdir())
        found = load_for_resume(folder, World(), refuse)
        assert found is not None
        before, reached = reached, found[0]["progress"]["global_step"]
        assert reached >= max(int(said[0]), before + 2)
        left = steps(folder)  # each of them whole, and no temporary files
        assert found[1].name == "last.pt"
        assert left["previous.pt"] in (reached, reached - 1)
    assert littered
