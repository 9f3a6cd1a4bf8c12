"""Where a run goes on from: the newest whole state among those that its folder, or the folders of its machines, hold."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from tests.tin.run_states import refuse, state, step_of
from tin.checkpoints import save_checkpoint
from tin.distributed import World, process_group
from tin.errors import PeerError, TinError
from tin.train.keeper import holds_run, load_for_resume


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
