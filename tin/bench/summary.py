"""All benchmarks of a machine on one page: a Markdown table with the spread of every number, and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tin.bench.stability import Criterion
from tin.errors import TinError

_STABLE, _UNSTABLE, _YARDSTICK = "#0072b2", "#d55e00", "0.6"
_ROW = 17
"""Pixels of a line of the chart."""


@dataclass(frozen=True)
class Part:
    """What came of one benchmark.

    Attributes:
        name: inference, op, ….
        runs: that were made and went into `result`.
        result: of `tin.bench.stability.join_runs`; None where no run gave one.
        failed: why a run did.
        left_out: why there was none.
    """

    name: str
    runs: int = 0
    result: Mapping[str, Any] | None = None
    failed: str | None = None
    left_out: str | None = None

    @property
    def state(self) -> str:
        """failed, left out, stable or unstable."""
        if self.failed is not None:
            return "failed"
        if self.result is None:
            return "left out"
        return "unstable" if any(line["unstable"] for line in self.result["rows"]) else "stable"

    @property
    def words(self) -> str:
        """The state, with its reason or the number of runs."""
        reason = self.failed or self.left_out
        runs = f"{self.runs} run{'' if self.runs == 1 else 's'}"
        if reason:
            return f"{self.state}{f' after {runs}' if self.runs else ''}: {reason}"
        if self.state == "unstable" and self.result is not None:
            rows = [bool(line["unstable"]) for line in self.result["rows"]]
            return f"{sum(rows)} of {len(rows)} rows unstable, {runs}"
        return f"{self.state}, {runs}"


HEAD = ("what", "median", "95 % interval", "p10 … p90", "ratio", "95 % interval", "to", "")


def table(result: Mapping[str, Any]) -> list[list[str]]:
    """The rows of a joined result as text, a column for each of HEAD. An unstable number is in brackets, with a question mark."""
    lines = []
    for row in result["rows"]:
        faults = row["unstable"] or {}
        unit, itself = row["unit"], row["ratio_interval"] == [1.0, 1.0]
        figure, ratio = f"{row['median']:.4g} {unit}", "" if itself else f"{row['ratio']:.3f}"
        lines.append(
            [
                row["name"],
                f"({figure}?)" if faults.get("figure") else figure,
                _span(row["interval"], ".4g"),
                _span((row["p10"], row["p90"]), ".4g"),
                f"({ratio}?)" if faults.get("ratio") else ratio,
                "" if itself else _span(row["ratio_interval"], ".3f"),
                "" if itself else row["ratio_to"],
                "unstable" if any(faults.values()) else "",
            ]
        )  # fmt: skip
    return lines


def markdown(
    record: Mapping[str, Any], headline: str, parts: Sequence[Part], criterion: Criterion, chart: str | None
) -> str:
    """The page: machine, versions, command, criterion, chart, and a table for each part.

    Args:
        record: of `tin.bench.records.new_record`.
        headline: machine and versions in words.
        chart: file name of the picture beside the page; None for none.
    """
    lines = [
        "# Benchmarks", "", *(f"{line}  " for line in headline.splitlines()), f"measured until {record['created']} by", "",
        "```", record["command"], "```", "",
        f"{criterion.words} A ratio of times is best when small, a ratio of rates when large.", "",
        "| part | | arch, batch, frames |", "|---|---|---|",
        *(f"| {part.name} | {_cell(part.words)} | {_settings(part)} |" for part in parts), "",
    ]  # fmt: skip
    if chart:
        lines += [f"![ratios with their 95 % intervals]({chart})", ""]
    for part in parts:
        if part.result is None:
            continue
        lines += [f"## {part.name}", "", "| " + " | ".join(HEAD) + " |", "|---|---:|---:|---:|---:|---:|---|---|"]
        lines += ["| " + " | ".join(_cell(cell) for cell in cells) + " |" for cells in table(part.result)]
        lines.append("")
        if "verdict" in part.result:
            lines += [part.result["verdict"]["words"], ""]
    return "\n".join(lines)


def draw(parts: Sequence[Part], path: Path, title: str) -> bool:
    """Draw the ratio of every row with its 95 % interval, the medians of the runs as small dots; unstable ones are hollow and orange.

    Returns:
        Whether there was anything to draw.

    Raises:
        TinError: the picture cannot be written.
    """
    from PIL import Image

    from tin.monitoring.figures import new_figure, rendered

    shown = []
    for part in parts:
        rows = [row for row in part.result["rows"] if row["ratio_interval"] != [1.0, 1.0]] if part.result else []
        if rows:
            shown.append((part, rows))
    if not shown:
        return False
    heights = [70 + _ROW * len(rows) for _, rows in shown]
    figure = new_figure(1000, 40 + sum(heights))
    figure.suptitle(title, fontsize=9)
    for axes, (part, rows) in zip(
        figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0], shown, strict=True
    ):
        _draw_part(axes, part, rows)
    try:
        Image.fromarray(rendered(figure)).save(path)
    except OSError as error:
        raise TinError(f"cannot write the picture {path}: {error.strerror or error}") from None
    return True


def _draw_part(axes: Any, part: Part, rows: Sequence[Mapping[str, Any]]) -> None:
    right = axes.get_yaxis_transform()  # across the panel, at the height of a row
    for place, row in enumerate(rows):
        faults = row["unstable"] or {}
        colour = _UNSTABLE if faults.get("ratio") else _STABLE
        axes.hlines(place, *row["ratio_interval"], color=colour, linewidth=4, alpha=0.35)
        axes.plot(row["run_ratios"], [place] * len(row["run_ratios"]), ".", color=colour, markersize=3)
        axes.plot(
            row["ratio"], place, "o", color=colour, markersize=5, fillstyle="none" if faults.get("ratio") else "full"
        )
        text = f"{row['ratio']:.3f}" + (" unstable" if faults.get("ratio") else "")
        figure = f"{row['median']:.4g} {row['unit']}" + (" (unstable)" if faults.get("figure") else "")
        axes.text(1.01, place, f"{text}   {figure}", transform=right, va="center", fontsize=7, color=colour)
    axes.axvline(1, color=_YARDSTICK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows], fontsize=7, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", alpha=0.4)
    axes.tick_params(axis="x", labelsize=7)
    better = "less is better" if rows[0]["unit"] == "ms" else "more is better"
    yardsticks = {row["ratio_to"] for row in rows}
    to = next(iter(yardsticks)) if len(yardsticks) == 1 else "its yardstick"
    axes.set_title(f"{part.name} ({part.words}): ratio to {to}; {better}", fontsize=8, loc="left")


def _settings(part: Part) -> str:
    if part.result is None:
        return ""
    settings = part.result["settings"]
    frames = f"{settings['num_segments']}×{settings['input_size']}²" if "input_size" in settings else None
    batch = f"batch {settings['batch_size']}" if "batch_size" in settings else None
    return ", ".join(
        str(word) for word in (settings.get("recipe"), settings.get("arch"), batch, frames, settings.get("dtype")) if word
    )  # fmt: skip


def _span(ends: Sequence[float], digits: str) -> str:
    return f"{ends[0]:{digits}} … {ends[1]:{digits}}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
