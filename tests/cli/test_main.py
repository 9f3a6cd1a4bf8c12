"""The command line as a whole: help that reads, and one line with exit status 2 for every mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from cli.main import cli as everything

Cli = Callable[..., Any]


def commands(group: click.Command = everything, *path: str) -> Iterator[str]:
    """Every command that there is, and every group of them, as it is typed."""
    yield " ".join(path)
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None, name
            yield from commands(command, *path, name)


def test_every_command_is_known() -> None:
    known = set(commands())
    assert {"train", "predict", "data prepare k400", "bench op", "bench all", "bench compare"} <= known
    assert len(known) > 25


@pytest.mark.parametrize("command", list(commands()))
def test_every_help_has_a_description_and_fits_a_terminal(cli: Cli, command: str) -> None:
    result = cli(*command.split(), "--help")
    assert result.status == 0
    assert result.out.startswith("Usage: tin-cli")
    assert max(map(len, result.out.splitlines())) <= 110
    assert len(result.out.splitlines()) > 5
    assert result.err == ""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a few things that are not what they should be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIN_DATA", raising=False)
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "bad.txt").write_text("a.mp4 0\nb.mp4 x y\n")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trian", "No such command 'trian'"),
        ("train --datset motion", "No such option '--datset'"),
        ("train --dataset motoin", "'motoin' is not one of 'motion'"),
        ("train --epochs 0", "0 is not in the range x>=1"),
        ("train --epochs many", "'many' is not a valid integer"),
        ("train --data nowhere", "Directory 'nowhere' does not exist"),
        ("train --data empty", "no list empty/train.txt"),
        ("train --dataset k400", "no list data/k400/train.txt"),
        ("train --dataset k400 --set optim.lr=zero", "'optim.lr' should be a valid number"),
        ("train --dataset k400 --set optim.rl=1", "unknown key 'optim.rl'; did you mean 'lr'?"),
        ("train --recipe tin_r50", "no recipe or file named 'tin_r50'"),
        ("train --train-list bad.txt --no-validate --recipe motion --arch tni_resnet50", "tin_resnet50"),
        ("train --train-list bad.txt --no-validate --recipe motion", "bad.txt:2"),
        (
            "train --train-list bad.txt --no-validate --recipe motion --device gpu",
            "--device gpu: expected auto, cpu, cuda",
        ),
        ("train --train-list bad.txt --no-validate --recipe motion --device meta", "only cpu and cuda"),
        ("test", "Missing option '--checkpoint'"),
        ("test --checkpoint gone.pt", "'gone.pt' does not exist"),
        ("test --checkpoint text.pt", "text.pt"),
        ("test --checkpoint empty", "'empty' is a directory"),
        ("test --checkpoint text.pt --eval accuracy", "unknown metric 'accuracy'"),
        ("bench --runs 0", "0 is not in the range"),
        ("data prepare folder nowhere --out out", "'nowhere' does not exist"),
        ("data prepare list --out out", "give a list: --train, --val or --test"),
        ("data prepare k400 empty --out out", "no official files of k400"),
        ("data index bad.txt --format kinetics", "no Kinetics csv"),
        ("data index bad.txt", "bad.txt:2"),
    ],
)
def test_a_mistake_ends_in_one_line_and_status_2(cli: Cli, here: Path, arguments: str, message: str) -> None:
    result = cli(*arguments.split())
    assert result.status == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert result.err.startswith("tin-cli: error: ")
    assert "Traceback" not in result.out + result.err


def test_help_does_not_wait_for_pytorch(tin_cli: Cli, here: Path) -> None:
    """Importing torch takes seconds; `-X importtime` would show it."""
    result = tin_cli("--help", PYTHONPROFILEIMPORTTIME="1")
    assert result.status == 0
    assert " torch\n" not in result.err
    assert "tin-cli train" in result.out


def test_a_work_dir_with_a_run_is_not_overwritten(cli: Cli, here: Path) -> None:
    (here / "runs").mkdir()
    (here / "runs" / "last.pt").write_text("")
    result = cli(
        "train",
        "--train-list",
        "bad.txt",
        "--no-validate",
        "--recipe",
        "motion",
        "--work-dir",
        "runs",
        "--device",
        "cpu",
    )
    assert result.status == 2
    assert "runs already holds a run: --resume goes on with it" in result.err
