"""Every Python example of the documentation runs as it stands, and shows what it says."""

from __future__ import annotations

import doctest
import os
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.evaluators.doctest import NUMBER
from sybil.parsers.markdown import PythonCodeBlockParser

from tests.conftest import REPOSITORY

START = REPOSITORY / "docs" / "python" / "README.md"
PAGES = sorted(path for path in START.parent.glob("*.md") if path != START)

pytestmark = pytest.mark.slow


def run(page: Path) -> int:
    """Run the examples of a page, one after another in one namespace; returns how many there are."""
    parser = PythonCodeBlockParser(doctest_optionflags=doctest.ELLIPSIS | NUMBER)
    examples = list(Sybil([parser], path=str(page.parent)).parse(page).examples())
    for example in examples:
        example.evaluate()
    return len(examples)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the first page makes, which the others use."""
    folder, before = tmp_path_factory.mktemp("docs"), Path.cwd()
    os.chdir(folder)
    try:
        assert run(START) > 0
    finally:
        os.chdir(before)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_of_a_page(workplace: Path, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    assert run(page) > 1


def test_the_example_of_the_readme(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names a checkpoint of `tin-cli train` and a folder of videos."""
    (tmp_path / "runs" / "tin_motion").mkdir(parents=True)
    (tmp_path / "runs" / "tin_motion" / "best.pt").symlink_to(workplace / "run" / "last.pt")
    (tmp_path / "clips").symlink_to(workplace / "motion" / "videos" / "val")
    monkeypatch.chdir(tmp_path)
    run(REPOSITORY / "README.md")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert all(line.startswith("clips/0000") and line.count("'") == 6 for line in lines)
