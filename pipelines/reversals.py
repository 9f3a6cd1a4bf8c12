"""Which class a video shows when it is played backwards, for data sets that know."""

from __future__ import annotations

from pathlib import Path

from pipelines.errors import DataError


def read_reversals(list_path: Path) -> dict[int, int]:
    """Read `reversals.txt` beside a list: `class class` a line, both ways.

    Returns:
        Class → class of the reversed video; empty when there is no such file.

    Raises:
        DataError: a line that is not two whole numbers.
    """
    path = list_path.parent / "reversals.txt"
    if not path.is_file():
        return {}
    pairs: dict[int, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            first, second = map(int, line.split())
        except ValueError:
            raise DataError(f"{path}:{number}: '{line}': expected two class numbers") from None
        pairs |= {first: second, second: first}
    return pairs
