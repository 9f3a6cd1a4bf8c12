"""Two results of benchmarks beside each other: what changed, and whether by more than noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tin.bench.records import Record, read_records
from tin.errors import TinError

By = Literal["figure", "ratio"]
Verdict = Literal["regression", "improvement", "same", "unclear", "incomparable"]

_INCIDENTAL = {"runs", "warmup", "train_runs", "list", "root", "starts", "measured", "frames_decoded_per_used"}
"""Settings that say how often was measured, or where files were: other ones make another benchmark."""


@dataclass(frozen=True)
class Figure:
    """A number with its spread: of the median, and of the medians of its runs.

    Attributes:
        spread: (low, high).
    """

    value: float
    spread: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One row of both results.

    Attributes:
        file: its file, where folders are compared.
        old, new: the figure, in `unit`.
        old_ratio, new_ratio: to the row's yardstick; None for a yardstick.
        worse: new cost / old cost, above 1 for worse, of what is judged: for times new / old, for rates old / new.
        spread: of `worse`.
    """

    file: str
    benchmark: str
    name: str
    unit: str
    old: Figure
    new: Figure
    old_ratio: Figure | None
    new_ratio: Figure | None
    by: By
    worse: float
    spread: tuple[float, float]
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        warnings: what else differs: machine, versions, settings.
        only_old, only_new: rows that the other result lacks.
    """

    changes: list[Change]
    warnings: list[str]
    only_old: list[str]
    only_new: list[str]

    @property
    def regressions(self) -> list[Change]:
        """Rows that are slower by more than noise."""
        return [change for change in self.changes if change.verdict == "regression"]


def compare(old: Path, new: Path, *, threshold: float = 0.05, by: By | None = None) -> Comparison:
    """Compare result files of `tin-cli bench`, or folders of them, row by row.

    A row is a regression when it is worse by more than `threshold` and the spreads of both do not meet; an improvement likewise; `unclear`
    when it is away by more than `threshold` and the spreads meet; else the same. Rows of a benchmark whose settings differ did other work
    and are `incomparable`. A spread is the 95 % interval of the median, widened to
    the medians of the runs. Of a row without an interval it is estimated from p10, p90 and the number of samples, as if they were normally
    distributed.

    Args:
        old, new: two files, or two folders, whose files are matched by name.
        threshold: part of the old value.
        by: what is judged: the figure, or its ratio to the yardstick of its own run. None: the figure where the machine is the same, else
            the ratio.

    Raises:
        TinError: a file and a folder; no row is in both; as `read_record`.
    """
    if old.is_dir() != new.is_dir():
        raise TinError(f"{old} and {new}: name two files or two folders")
    folders = old.is_dir()
    found_old, found_new = _files(old), _files(new)
    changes: list[Change] = []
    warnings: list[str] = []
    only: tuple[list[str], list[str]] = ([], [])
    for file in [*found_old, *(name for name in found_new if name not in found_old)]:
        before, after = found_old.get(file), found_new.get(file)
        rows_before, rows_after = _rows(before), _rows(after)
        where = f"{file}: " if folders else ""
        only[0].extend(f"{where}{key[0]}, {key[1]}" for key in rows_before if key not in rows_after)
        only[1].extend(f"{where}{key[0]}, {key[1]}" for key in rows_after if key not in rows_before)
        if before is None or after is None:
            continue
        moved, other_work = _other_machine(before, after), _other_settings(before, after)
        said = (*moved, *_other_versions(before, after), *(text for texts in other_work.values() for text in texts))
        warnings += [f"{where}{text}" for text in said]
        judged: By = by or ("ratio" if moved else "figure")
        for key, row in rows_before.items():
            if key in rows_after:
                change = _change(file if folders else "", key, row, rows_after[key], judged, threshold)
                changes.append(replace(change, verdict="incomparable") if other_work.get(key[0]) else change)
    if not changes:
        raise TinError(f"{old} and {new} have no row in common")
    return Comparison(changes, list(dict.fromkeys(warnings)), *only)


Row = Mapping[str, Any]
Key = tuple[str, str]


def _files(path: Path) -> dict[str, Record]:
    """Records by the names of their files; a single file has no name."""
    return {record.path.name if path.is_dir() else "": record for record in read_records(path)}


def _rows(record: Record | None) -> dict[Key, Row]:
    """The rows by benchmark and name."""
    if record is None:
        return {}
    return {(benchmark, row["name"]): row for benchmark, result in record.results.items() for row in result["rows"]}


def _change(file: str, key: Key, old: Row, new: Row, by: By, threshold: float) -> Change:
    if old["unit"] != new["unit"]:
        raise TinError(f"{key[0]}, {key[1]}: {old['unit']} in one result, {new['unit']} in the other")
    figures = [_figure(row, "figure") for row in (old, new)]
    ratios = [None if _is_yardstick(row) else _figure(row, "ratio") for row in (old, new)]
    before, after = figures
    if by == "ratio" and ratios[0] and ratios[1]:
        before, after = ratios[0], ratios[1]
    worse, spread = after.value / before.value, (after.spread[0] / before.spread[1], after.spread[1] / before.spread[0])
    if old["unit"].endswith("/s"):  # more is better
        worse, spread = 1 / worse, (1 / spread[1], 1 / spread[0])
    verdict: Verdict = "same"
    if by == "ratio" and not (ratios[0] and ratios[1]):
        pass  # a yardstick has no ratio that could change
    elif worse > 1 + threshold:
        verdict = "regression" if spread[0] > 1 else "unclear"
    elif worse < 1 - threshold:
        verdict = "improvement" if spread[1] < 1 else "unclear"
    return Change(
        file=file, benchmark=key[0], name=key[1], unit=old["unit"], old=figures[0], new=figures[1], old_ratio=ratios[0],
        new_ratio=ratios[1], by=by, worse=worse, spread=spread, verdict=verdict,
    )  # fmt: skip


def _is_yardstick(row: Row) -> bool:
    return bool(row["ratio"] == 1.0 and row.get("ratio_interval", [1.0, 1.0]) == [1.0, 1.0])


def _figure(row: Row, what: By) -> Figure:
    value, interval, runs = (
        (row["median"], row.get("interval"), row.get("run_medians"))
        if what == "figure"
        else (row["ratio"], row.get("ratio_interval"), row.get("run_ratios"))
    )
    if interval is None:
        # 1.96 standard errors of a median of a normal distribution, whose deviation is (p90 - p10) / 2.563; a ratio is taken
        # to be as uncertain as its figure
        deviation = (row["p90"] - row["p10"]) / 2.563 / row["median"]
        half = 1.96 * 1.253 * deviation / math.sqrt(row["samples"])
        interval = (value * (1 - half), value * (1 + half))
    ends = (*interval, *(runs or ()))
    return Figure(float(value), (float(min(ends)), float(max(ends))))


def _other_machine(old: Record, new: Record) -> list[str]:
    """What of the machine differs that a speed depends on."""
    keys = ("cpu", "usable_cores", "torch_threads", "device", "gpu", "keeps_freed_memory")
    return list(_differences("machine", old.content.get("machine", {}), new.content.get("machine", {}), keys))


def _other_versions(old: Record, new: Record) -> list[str]:
    """Of what others made; that the commit differs is why results are compared."""
    keys = ("python", "torch", "torchvision", "cuda", "cudnn", "dali", "op")
    return list(_differences("versions", old.content.get("versions", {}), new.content.get("versions", {}), keys))


def _other_settings(old: Record, new: Record) -> dict[str, list[str]]:
    """By benchmark: which settings differ."""
    texts: dict[str, list[str]] = {}
    for benchmark in old.results.keys() & new.results.keys():
        before, after = (record.results[benchmark].get("settings", {}) for record in (old, new))
        keys = [key for key in before | after if key not in _INCIDENTAL]
        texts[benchmark] = list(_differences(f"settings of {benchmark}", before, after, keys))
    return texts


def _differences(what: str, old: Row, new: Row, keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        if key in old and key in new and old[key] != new[key]:
            yield f"{what} differ: {key} {old[key]} → {new[key]}"
