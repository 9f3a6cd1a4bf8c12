"""The rooms of docs/architecture.md stay apart: who may import whom, and what imports without heavy libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

FORBIDDEN = {
    "tin": {"nvidia", "click", "rich", "av", "pipelines", "cli"},
    "pipelines": {"tin", "click", "rich", "cli"},
}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    files = sorted((REPOSITORY / room).rglob("*.py"))
    assert len(files) > 5
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{line} imports {name}"
        for path in files
        for line, name in imports(path)
        if name in FORBIDDEN[room]
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("pipelines", ["torch", "nvidia.dali"]),
        ("tin", ["torch"]),
        ("cli.main", ["torch", "nvidia.dali"]),
        ("tin.models", ["nvidia.dali"]),
    ],
)
def test_importing_a_room_does_not_load_what_it_does_not_use_yet(module: str, unwanted: list[str]) -> None:
    code = f"import sys, {module}; print([m for m in {unwanted!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
