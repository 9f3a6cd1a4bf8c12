"""Results compared: regressions beyond noise are named, noise is not, and other machines are warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tin.bench.comparison import compare
from tin.bench.records import new_record, write_record
from tin.bench.timing import row
from tin.errors import TinError

MACHINE = {"cpu": "X", "usable_cores": 2, "torch_threads": 2, "device": "cpu", "gpu": None}


def line(name: str, median: float, ratio: float, unit: str = "ms", spread: float = 0.01, **more: Any) -> dict[str, Any]:
    """A row whose samples, and their ratios, are within `spread` of the median."""
    around = [1 - spread, 1 - spread, 1.0, 1.0, 1.0, 1.0, 1.0, 1 + spread, 1 + spread]
    return row(name, unit, [median * part for part in around], [ratio * part for part in around], "that", **more)


def write(path: Path, *rows: dict[str, Any], part: str = "op", **changes: Any) -> Path:
    described = {
        "machine": MACHINE | changes.pop("machine", {}),
        "versions": {"torch": "2.15"} | changes.pop("versions", {}),
    }
    settings = {"batch_size": 1, "runs": 9} | changes.pop("settings", {})
    write_record(path, new_record(described, "c", {part: {"settings": settings, "rows": list(rows)}}))
    return path


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (line("x", 10, 1), line("x", 11, 1), "regression"),
        (line("x", 11, 1), line("x", 10, 1), "improvement"),
        (line("x", 10, 1), line("x", 10.4, 1), "same"),
        (line("x", 10, 1, spread=0.001), line("x", 10.4, 1, spread=0.001), "same"),
        (line("x", 10, 1, spread=0.06), line("x", 11, 1, spread=0.06), "unclear"),
        (line("x", 11, 1, spread=0.06), line("x", 10, 1, spread=0.06), "unclear"),
        (line("x", 10, 1, "clips/s"), line("x", 11, 1, "clips/s"), "improvement"),
        (line("x", 11, 1, "clips/s"), line("x", 10, 1, "clips/s"), "regression"),
        (line("x", 10, 1, run_medians=[10, 11.5]), line("x", 11, 1), "unclear"),
    ],
)  # fmt: skip
def test_only_changes_beyond_threshold_and_noise_count(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], verdict: str
) -> None:
    found = compare(write(tmp_path / "a.json", old), write(tmp_path / "b.json", new))
    assert [change.verdict for change in found.changes] == [verdict]
    assert len(found.regressions) == (verdict == "regression")
    assert found.warnings == []


def test_the_threshold_is_the_callers(tmp_path: Path) -> None:
    paths = write(tmp_path / "a.json", line("x", 10, 1)), write(tmp_path / "b.json", line("x", 11, 1))
    assert compare(*paths, threshold=0.2).changes[0].verdict == "same"
    (change,) = compare(*paths, threshold=0.02).changes
    assert change.worse == pytest.approx(1.1)
    assert change.spread == pytest.approx((10.89 / 10.1, 11.11 / 9.9))


def test_on_the_same_machine_the_figure_is_judged_on_another_the_ratio(tmp_path: Path) -> None:
    """The other machine is twice as fast, and the op has lost ground to its yardstick."""
    old = write(tmp_path / "a.json", line("x", 10, 1.5), line("that", 6, 1.0, spread=0.0))
    other = {"cpu": "Y"}
    new = write(tmp_path / "b.json", line("x", 5, 1.8), line("that", 3, 1.0, spread=0.0), machine=other)
    found = compare(old, new)
    assert found.warnings == ["machine differ: cpu X → Y"]
    assert [(change.name, change.by, change.verdict) for change in found.changes] == [
        ("x", "ratio", "regression"), ("that", "ratio", "same"),
    ]  # fmt: skip
    assert found.changes[1].old_ratio is None
    assert [change.verdict for change in compare(old, new, by="figure").changes] == ["improvement"] * 2


def test_other_versions_are_warned_of_and_rows_of_other_settings_are_not_judged(tmp_path: Path) -> None:
    old = write(tmp_path / "a.json", line("x", 10, 1))
    new = write(tmp_path / "b.json", line("x", 20, 1), versions={"torch": "2.16"}, settings={"runs": 99})
    found = compare(old, new)
    assert found.warnings == ["versions differ: torch 2.15 → 2.16"], "how often is no other work"
    assert [change.verdict for change in found.changes] == ["regression"]
    found = compare(old, write(tmp_path / "b.json", line("x", 20, 1), settings={"batch_size": 2}))
    assert found.warnings == ["settings of op differ: batch_size 1 → 2"]
    assert [change.verdict for change in found.changes] == ["incomparable"]
    assert found.regressions == []


def test_folders_are_matched_by_file_and_what_is_in_one_alone_is_named(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "train-a.json", line("end to end", 10, 1, "clips/s"), part="train")
    write(tmp_path / "old" / "train-b.json", line("end to end", 10, 1, "clips/s"), part="train")
    write(tmp_path / "new" / "train-a.json", line("end to end", 5, 1, "clips/s"), line("more", 1, 1), part="train")
    found = compare(tmp_path / "old", tmp_path / "new")
    assert [(change.file, change.verdict) for change in found.changes] == [("train-a.json", "regression")]
    assert found.only_old == ["train-b.json: train, end to end"]
    assert found.only_new == ["train-a.json: train, more"]


def test_rows_without_intervals_have_one_estimated_from_their_quantiles(tmp_path: Path) -> None:
    """As results had them before intervals were stored: a normal distribution of 1 has p10 and p90 at ∓1.2816."""
    old, new = line("x", 100, 1.2), line("x", 110, 1.2)
    for row_ in (old, new):
        for key in ("interval", "ratio_interval", "values", "ratios"):
            del row_[key]
        row_ |= {"p10": row_["median"] - 12.816, "p90": row_["median"] + 12.816, "samples": 25}
    (change,) = compare(write(tmp_path / "a.json", old), write(tmp_path / "b.json", new)).changes
    assert change.old.spread == pytest.approx((100 - 4.91, 100 + 4.91), abs=0.02)  # 1.96 · 1.253 · 10 / 5
    assert change.verdict == "improvement" if change.worse < 1 else "regression"
    assert change.old_ratio is not None
    assert change.old_ratio.spread == pytest.approx((1.2 * 0.9509, 1.2 * 1.0491), abs=1e-3)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    old = write(tmp_path / "a.json", line("x", 10, 1))
    with pytest.raises(TinError, match="two files or two folders"):
        compare(old, tmp_path)
    with pytest.raises(TinError, match="no row in common"):
        compare(old, write(tmp_path / "b.json", line("y", 10, 1)))
    with pytest.raises(TinError, match="op, x: ms in one result, clips/s in the other"):
        compare(old, write(tmp_path / "b.json", line("x", 10, 1, "clips/s")))
