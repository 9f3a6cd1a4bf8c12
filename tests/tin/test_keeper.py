"""The checkpoints of a run: kept under their names, written beside training."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tin.run_states import keeper, state, step_of, steps
from tin.checkpoints import save_checkpoint
from tin.checkpoints.files import temporary_name
from tin.errors import TinError
from tin.train.keeper import CheckpointKeeper, holds_run


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
