"""A training state: everything comes back, what must not change is refused, older files are read."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tin
from tests.conftest import REPOSITORY
from tin.checkpoints import load_state, save_checkpoint
from tin.distributed import World
from tin.errors import TinError
from tin.recipes import Recipe, from_dict
from tin.train.ema import Ema
from tin.train.optim import build_optimizer
from tin.train.provenance import git_commit
from tin.train.rng import rng_state, set_rng_state
from tin.train.state import VERSION, restore, snapshot

RECIPE: dict[str, Any] = {
    "name": "small",
    "dataset": "memory",
    "model": {"arch": "tsn_resnet18", "num_classes": 3, "num_segments": 2},
    "optim": {"lr": 0.1},
    "schedule": {"epochs": 10},
    "train": {"batch_size": 2, "amp": "fp16", "ema": 0.9},
}
SOURCE = Path("runs/x/last.pt")


class Run:
    """What a training loop holds, after some steps on numbers of their own."""

    def __init__(self, seed: int, steps: int = 0, *overrides: str) -> None:
        self.recipe: Recipe = from_dict(RECIPE, "small", overrides)
        torch.manual_seed(seed)
        self.model = tin.build_model(**self.recipe.model.model_dump(exclude={"pretrained"}))
        self.optimizer = build_optimizer(self.model, self.recipe.optim, 0.01)
        self.scaler = torch.amp.GradScaler("cpu", enabled=True, init_scale=2.0**seed)
        self.ema = Ema(self.model, 0.9)
        for step in range(steps):
            self.step(step)

    def step(self, number: int) -> None:
        torch.manual_seed(number)  # of dropout, as the loop does
        frames = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        loss = nn.functional.cross_entropy(self.model.train()(frames), torch.tensor([0, 2]))
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.update()

    def snapshot(self, **changes: Any) -> dict[str, Any]:
        progress = {"epoch": 1, "step": 5, "samples": 20, "global_step": 25, "best": {"top1_acc": 0.5, "epoch": 1.0}}
        given: dict[str, Any] = {"seed": 3, "label_names": ["a", "b", "c"], "lists": {"train": "x"}, "ema": self.ema}
        return snapshot(
            self.recipe, self.model, self.optimizer, self.scaler, progress, 4, **(given | changes)
        )  # fmt: skip

    def restore(self, state: dict[str, Any], global_batch: int = 4, **changes: Any) -> dict[str, Any]:
        return restore(
            state, SOURCE, self.recipe, self.model, self.optimizer, self.scaler, global_batch,
            **({"ema": self.ema} | changes),
        )  # fmt: skip

    def numbers(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Everything that decides the next steps."""
        yield from self.model.state_dict().items()
        for key, parts in (
            ("optimizer", self.optimizer.state_dict()["state"]),
            ("ema", {0: self.ema.state_dict()["averages"]}),
        ):
            for number, values in parts.items():
                yield from ((f"{key} {number} {name}", value) for name, value in values.items())
        yield "scale", torch.tensor(self.scaler.get_scale())
        yield "updates", torch.tensor(self.ema.updates)


def same(one: Run, two: Run) -> None:
    a, b = dict(one.numbers()), dict(two.numbers())
    assert list(a) == list(b)
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def through_a_file(folder: Path, state: dict[str, Any]) -> dict[str, Any]:
    save_checkpoint(folder / "last.pt", state)
    return load_state(folder / "last.pt")


def test_a_restored_run_goes_on_bit_identical(tmp_path: Path) -> None:
    run, other = Run(1, steps=3), Run(2, steps=1)
    state = through_a_file(tmp_path, run.snapshot(loader={"version": 1, "sample": 20}, world_size=2))
    progress = other.restore(state)
    same(run, other)
    for number in (7, 8):
        run.step(number)
        other.step(number)
    same(run, other)
    assert progress == {
        "epoch": 1,
        "step": 5,
        "samples": 20,
        "global_step": 25,
        "best": {"top1_acc": 0.5, "epoch": 1.0},
    }


def test_a_state_says_what_made_it(tmp_path: Path) -> None:
    state = through_a_file(tmp_path, Run(1).snapshot(loader={"version": 1, "sample": 20}, world_size=2))
    assert state["version"] == VERSION == 2
    assert (state["world_size"], state["global_batch"], state["seed"]) == (2, 4, 3)
    assert state["loader"] == {"version": 1, "sample": 20}
    assert (state["label_names"], state["lists"]) == (["a", "b", "c"], {"train": "x"})
    assert state["recipe"]["train"]["ema"] == 0.9
    assert set(state["versions"]) == {"tin", "torch", "numpy", "python"}
    assert state["git"] == git_commit()


def test_clips_are_counted_exactly_at_another_global_batch() -> None:
    progress = Run(1).restore(Run(1).snapshot(), global_batch=6)
    assert (progress["samples"], progress["global_step"], progress["step"]) == (20, 25, 3)


def test_the_generators_go_on_where_they_were_on_rank_0_alone(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.normal()), float(np.random.rand()), float(torch.rand(1))]

    run = Run(1)
    draw()
    state = through_a_file(tmp_path, run.snapshot())
    before = rng_state(torch.device("cpu"))
    expected, following = draw(), draw()
    run.restore(state)
    assert draw() == expected
    run.restore(state, world=World(rank=1, local_rank=1, size=2))
    assert draw() == following
    set_rng_state(before, torch.device("cpu"))
    assert draw() == expected


def test_what_a_state_lacks_starts_anew(tmp_path: Path) -> None:
    """Averages switched on later begin at the weights; a loss scale at its first value."""
    state = through_a_file(tmp_path, Run(1, steps=2).snapshot(ema=None) | {"scaler": {}})
    assert "ema" not in state
    run = Run(2, steps=1)
    run.restore(state)
    assert run.ema.updates == 0
    assert run.scaler.get_scale() == 4.0
    for name, average in run.ema.state_dict()["averages"].items():
        assert torch.equal(average, state["state_dict"][name])


def test_files_of_version_1_are_read(tmp_path: Path) -> None:
    run = Run(1, steps=2)
    state = run.snapshot()
    for key in ("ema", "loader", "rng", "world_size", "git"):
        state.pop(key)
    for section, key in (("data", "repeats"), ("data", "class_balanced"), ("optim", "kind"), ("train", "ema")):
        state["recipe"][section].pop(key)
    state |= {"version": 1, "progress": {"epoch": 1, "step": 5, "global_step": 25, "best": {}}}
    other = Run(2)
    progress = other.restore(through_a_file(tmp_path, state), global_batch=2)
    assert progress == {"epoch": 1, "step": 10, "samples": 20, "global_step": 25, "best": {}}
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_classes=4", r"model\.num_classes = 3, this run has 4; a resumed run must keep it"),
        ("model.arch=tsm_resnet18", r"model\.arch = tsn_resnet18, this run has tsm_resnet18"),
        ("optim.partial_bn=true", r"optim\.partial_bn = False, this run has True"),
        ("optim.kind=lamb", r"optim\.kind = sgd, this run has lamb"),
        ("data.repeats=2", r"data\.repeats = 1, this run has 2"),
        ("schedule.epochs=1", r"has finished its 1 epochs; raise --epochs"),
    ],
)
def test_what_a_resumed_run_must_keep_is_refused_by_name_and_changes_nothing(override: str, message: str) -> None:
    run = Run(2)
    before = {name: value.clone() for name, value in run.numbers()}
    run.recipe = from_dict(RECIPE, "small", [override])
    with pytest.raises(TinError, match=rf"{SOURCE} .*{message}"):
        run.restore(Run(1, steps=1).snapshot())
    assert all(torch.equal(before[name], value) for name, value in run.numbers())


def test_foreign_and_newer_files_are_refused() -> None:
    with pytest.raises(TinError, match="is not a training checkpoint of tin-cli"):
        Run(1).restore({"state_dict": {}})
    with pytest.raises(TinError, match=r"has format 3, this tin-video reads up to 2: .* that wrote it \(0"):
        Run(1).restore(Run(1).snapshot() | {"version": 3})


@pytest.mark.slow
def test_the_commit_is_that_of_the_packages_own_checkout(tmp_path: Path) -> None:
    """Not of a repository that the installed package merely lies in, and of none when there is none."""

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    package = tmp_path / "tin"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "0"\n')
    script = tmp_path / "ask.py"
    script.write_text((REPOSITORY / "tin/train/provenance.py").read_text() + "\nprint(git_commit())\n")

    def ask() -> Any:
        # GIT_DIR, as in a hook of another repository, is not asked.
        ran = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, check=True,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "GIT_DIR": str(REPOSITORY / ".git")},
        )  # fmt: skip
        return eval(ran.stdout)

    assert ask() is None
    git("init", "-q")
    (tmp_path / "other").write_text("x")
    git("add", "other")
    git("commit", "-qm", "other")
    assert ask() is None
    git("add", "tin/__init__.py")
    git("commit", "-qm", "tin")
    head = git("rev-parse", "HEAD")
    assert ask() == {"commit": head, "dirty": False}
    (package / "__init__.py").write_text('__version__ = "1"\n')
    assert ask() == {"commit": head, "dirty": True}
