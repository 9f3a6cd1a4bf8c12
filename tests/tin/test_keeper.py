"""The checkpoints of a run: kept under their names, written beside training, whole whatever happens to the disk or the process."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from tin.checkpoints import load_state, save_checkpoint
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

    def test_a_state_that_can_never_be_written_is_told_of_once_and_left_out(self, tmp_path: Path) -> None:
        class Broken(torch.Tensor):
            """As a copy that never arrived because the GPU failed."""

            def __reduce_ex__(self, protocol: Any) -> Any:
                raise RuntimeError("the GPU has fallen off the bus")

        said: list[str] = []
        kept = keeper(tmp_path, said)
        kept.save(state(1) | {"broken": torch.zeros(1).as_subclass(Broken)})
        with pytest.raises(TinError, match=r"cannot write .*last\.pt: the GPU has fallen off the bus"):
            kept.finish()
        assert len(said) == 1
        kept.finish()
        kept.save(state(2))
        kept.finish()
        assert steps(tmp_path) == {"last.pt": 2}


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
        late = {"epoch_0019.pt": 20} if "epoch_0019.pt" in free else {}  # the disk was free before a newer state came
        expected = [f"epoch_{epoch:04d}.pt" for epoch in range(2, 20)]  # each named once, or written
        assert sorted([*names, *late]) == expected
        assert found["waiting"] <= 2  # states in memory: the newest, and the best one
        assert "can be written again" in again
        before = 20 if late else 1
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
            "from tests.tin.test_keeper import keeper, state, step_of\n"
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
            "from tests.tin.test_keeper import keeper, state\n"
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
from tests.tin.test_keeper import keeper, state
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


class TestGoingOn:
    def test_nothing_there_is_no_error(self, tmp_path: Path) -> None:
        assert load_for_resume(tmp_path, World(), refuse) is None
        assert load_for_resume(tmp_path / "missing", World(), refuse) is None
        (tmp_path / "log.jsonl").write_text("{}")
        assert load_for_resume(tmp_path, World(), refuse) is None
        assert not holds_run(tmp_path)

    def test_the_newest_comes_first_then_the_one_before_then_the_furthest_of_the_others(self, tmp_path: Path) -> None:
        for name, step in (("last", 9), ("previous", 8), ("best", 3), ("epoch_0002", 4), ("best_0001_50.0000", 7)):
            save_checkpoint(tmp_path / f"{name}.pt", state(step))
        (tmp_path / "epoch_0009.pt").write_bytes(b"PK")
        save_checkpoint(tmp_path / "mine.pt", state(99))  # none of a run's names
        for name in ("last", "previous", "best_0001_50.0000", "epoch_0002", "best"):
            said: list[str] = []
            found = load_for_resume(tmp_path, World(), said.append)
            assert found is not None
            assert found[1] == tmp_path / f"{name}.pt"
            assert step_of(found[1]) == found[0]["progress"]["global_step"]
            assert bool(said) == (name != "last")
            found[1].unlink()
            found[1].mkdir()

    def test_leftovers_of_killed_writers_are_removed_and_nothing_else(self, tmp_path: Path) -> None:
        for name in (".last.pt.123.tmp", ".epoch_0001.pt.7.tmp", ".hidden.tmp", "my.last.pt.1.tmp"):
            (tmp_path / name).write_text("x")
        load_for_resume(tmp_path, World(), refuse)
        assert sorted(os.listdir(tmp_path)) == [".hidden.tmp", "my.last.pt.1.tmp"]

    def test_another_programs_file_is_passed_over(self, tmp_path: Path) -> None:
        torch.save({"state_dict": {}}, tmp_path / "last.pt")
        with pytest.raises(TinError, match=r"no checkpoint in .* can be resumed.*last\.pt is no training checkpoint"):
            load_for_resume(tmp_path, World(), refuse)
        save_checkpoint(tmp_path / "previous.pt", state(1))
        said: list[str] = []
        load_for_resume(tmp_path, World(), said.append)
        assert said[0].startswith(f"passed over: {tmp_path}/last.pt is no training checkpoint")

    def test_every_kind_of_damage_is_noticed_and_the_file_before_it_used(self, tmp_path: Path) -> None:
        damage_and_look(tmp_path, rounds=4)

    @pytest.mark.prove
    def test_hundreds_of_damages_are_noticed_and_the_file_before_it_used(self, tmp_path: Path) -> None:
        damage_and_look(tmp_path, rounds=100)


def damage_and_look(folder: Path, rounds: int) -> None:
    """Each round damages the same file in seven ways, at places of its own."""
    random_ = random.Random(rounds)
    last = folder / "last.pt"
    save_checkpoint(folder / "previous.pt", state(1))
    save_checkpoint(last, state(2))
    whole = last.read_bytes()
    size = len(whole)

    def flipped(data: bytes, at: int) -> bytes:
        return data[:at] + bytes([data[at] ^ random_.randint(1, 255)]) + data[at + 1 :]

    def zeros() -> bytes:
        while True:
            at, length = random_.randrange(size), random_.randint(1, 600)
            if any(whole[at : at + length]):  # what is zero already is not damaged by zeros
                return whole[:at] + bytes(len(whole[at : at + length])) + whole[at + length :]

    def swapped() -> bytes:
        a, b = sorted(random_.sample(range(0, size - 64, 64), 2))
        data = whole[:a] + whole[b : b + 64] + whole[a + 64 : b] + whole[a : a + 64] + whole[b + 64 :]
        return data if data != whole else flipped(data, a)

    for _ in range(rounds):
        damages: list[bytes | None] = [
            whole[: random_.randrange(1, size)],
            whole[: size - random_.randint(1, 60)],  # the end alone
            flipped(whole, random_.randrange(size)),
            flipped(flipped(whole, random_.randrange(size)), random_.randrange(size)),
            zeros(),
            swapped(),
            whole + bytes(random_.randint(1, 4096)),
            bytes(size),
            b"",
            None,
        ]
        for number, data in enumerate(damages):
            if data == whole:
                continue  # two flips may undo each other
            if last.is_dir():
                last.rmdir()
            last.unlink(missing_ok=True)
            if data is None:
                last.mkdir()
            else:
                last.write_bytes(data)
            said: list[str] = []
            found = load_for_resume(folder, World(), said.append)
            assert found is not None, number
            assert found[1].name == "previous.pt", number
            assert found[0]["state_dict"]["w"].eq(1).all()
            assert said[0].startswith(f"passed over: {last} "), said
            assert said[1].startswith(f"using {folder}/previous.pt instead"), said


def resume_on_two_machines(rank: int, folder: str) -> None:
    """Each rank has a folder of its own, as on machines without a common file system."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=Path(folder, "port").read_text(), RANK=str(rank), WORLD_SIZE="2"
    )
    world = World(rank, 0, 2)
    result: dict[str, Any] = {}
    with process_group(world, torch.device("cpu"), timeout_s=60):
        for case in ("rank 0 alone", "rank 1 further", "damaged", "none", "broken"):
            work_dir = Path(folder, case, str(rank))
            said: list[str] = []
            try:
                result[case] = load_for_resume(work_dir, world, said.append), said
            except TinError as error:
                result[case] = type(error).__name__, str(error)
    torch.save(result, Path(folder, f"result{rank}"))


@pytest.mark.slow
def test_machines_without_a_common_file_system_go_on_from_the_furthest_state(tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(sock.getsockname()[1]))
    rich = state(3) | {"recipe": {"name": "x"}, "rng": {"python": (3, (1, 2), None)}}
    rich["state_dict"] |= {
        "conv": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        "half": torch.randn(5).bfloat16(),
        "flag": torch.tensor(True),
        "empty": torch.zeros(0, 3),
        "gaps": torch.arange(12.0).view(3, 4)[:, :2],
    }
    save_checkpoint(tmp_path / "rank 0 alone" / "0" / "last.pt", rich)
    save_checkpoint(tmp_path / "rank 1 further" / "0" / "last.pt", state(5))
    save_checkpoint(tmp_path / "rank 1 further" / "1" / "last.pt", state(8))
    for name, step in (("last", 7), ("previous", 6)):
        save_checkpoint(tmp_path / "damaged" / "1" / f"{name}.pt", state(step))
    damaged, broken = tmp_path / "damaged" / "1" / "last.pt", tmp_path / "broken" / "1" / "last.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"")

    mp.spawn(resume_on_two_machines, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    zero, one = (torch.load(tmp_path / f"result{rank}", weights_only=False) for rank in range(2))
    strides = []
    for rank, result in enumerate((zero, one)):
        (found, file), said = result["rank 0 alone"]
        assert file == tmp_path / "rank 0 alone" / str(rank) / "last.pt"
        assert said == []
        for name, tensor in rich["state_dict"].items():
            assert torch.equal(found["state_dict"][name], tensor), name
            assert found["state_dict"][name].dtype == tensor.dtype
        assert {k: v for k, v in found.items() if k != "state_dict"} == {k: rich[k] for k in rich if k != "state_dict"}
        strides.append([tensor.stride() for tensor in found["state_dict"].values()][:-1])
        assert result["rank 1 further"][0][0]["progress"]["global_step"] == 8
        assert result["damaged"][0][0]["progress"]["global_step"] == 6
        assert result["none"] == (None, [])
    assert strides[0] == strides[1]
    assert zero["damaged"][1][0].startswith(f"passed over: {damaged} is damaged (cut short")
    assert one["damaged"][1] == []
    assert zero["broken"][0] == "TinError"
    assert "last.pt is empty" in zero["broken"][1]
    assert one["broken"] == (PeerError.__name__, zero["broken"][1])
