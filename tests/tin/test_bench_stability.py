"""When a number is a result: intervals of medians, runs joined, and the page and chart that show what is not stable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import binom

from tin.bench.records import new_record, read_record, read_records, write_record
from tin.bench.stability import Criterion, join_runs, unstable_rows
from tin.bench.summary import Part, draw, markdown, table
from tin.bench.timing import median_interval, ratios, row
from tin.errors import TinError

CRITERION = Criterion(0.05)
DESCRIBED = {"machine": {"cpu": "X", "device": "cpu"}, "versions": {"torch": "2"}}


def run(*lines: tuple[str, list[float], list[float]], unit: str = "ms") -> dict[str, Any]:
    """A result whose rows have these samples and these of the yardstick."""
    rows = [row(name, unit, these, ratios(these, those), "that", extra=these[0]) for name, these, those in lines]
    return {"settings": {"arch": "a", "batch_size": 1, "runs": len(lines[0][1])}, "rows": rows}


def steady(median: float, count: int = 10) -> list[float]:
    """Samples about a median, within 1 %."""
    return [median * (1 + 0.01 * (2 * place / (count - 1) - 1)) for place in range(count)]


class TestIntervals:
    @pytest.mark.parametrize("count", [6, 8, 9, 10, 20, 60, 2000])
    def test_the_ends_are_the_innermost_samples_that_the_median_is_rarely_beyond(self, count: int) -> None:
        samples = np.random.default_rng(0).permutation(count) + 1.0
        low, high = median_interval(samples.tolist())
        assert high == count + 1 - low
        assert binom.cdf(low - 1, count, 0.5) <= 0.025 < binom.cdf(low, count, 0.5)

    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_of_few_samples_it_is_their_range(self, count: int) -> None:
        assert median_interval([float(place) for place in range(count)]) == [0, count - 1]

    def test_it_covers_the_median_in_19_of_20_cases_whatever_the_distribution(self) -> None:
        rng = np.random.default_rng(1)
        for draw_, median in ((rng.standard_normal, 0.0), (rng.standard_exponential, np.log(2))):
            ends = np.array([median_interval(draw_(25)) for _ in range(2000)])
            assert 0.94 < np.mean((ends[:, 0] <= median) & (median <= ends[:, 1])) < 0.98

    def test_a_row_keeps_its_samples_in_its_unit(self) -> None:
        line = row("a", "ms", [0.0012345678, 0.002], [1.0, 3.0], "b", scale=1e3)
        assert line["values"] == [1.23457, 2.0]
        assert (line["ratio"], line["ratios"]) == (2.0, [1.0, 3.0])
        assert (line["interval"], line["ratio_interval"]) == ([1.23457, 2.0], [1.0, 3.0])


class TestJoined:
    def test_runs_are_joined_over_all_their_samples(self) -> None:
        first, second = run(("x", [1.0, 2.0, 3.0], [1.0, 1.0, 1.0])), run(("x", [5.0, 6.0, 7.0], [1.0, 2.0, 7.0]))
        (line,) = join_runs([first, second], CRITERION)["rows"]
        assert (line["median"], line["samples"], line["interval"]) == (4.0, 6, [1.0, 7.0])
        assert line["ratios"] == [1.0, 2.0, 3.0, 5.0, 3.0, 1.0]
        assert (line["ratio"], line["run_medians"], line["run_ratios"]) == (2.5, [2.0, 6.0], [2.0, 3.0])
        assert line["extra"] == 3.0, "other numbers are medians over the runs"

    def test_agreeing_runs_are_stable_and_one_alone_never_is(self) -> None:
        same = run(("x", steady(10), steady(5)))
        (line,) = join_runs([same, same], CRITERION)["rows"]
        assert line["unstable"] is None
        (alone,) = join_runs([same], CRITERION)["rows"]
        assert alone["unstable"] == {"figure": "one run only", "ratio": "one run only"}
        assert Part("op", 2, join_runs([same, same], CRITERION)).words == "stable, 2 runs"
        assert Part("op", 1, join_runs([same], CRITERION)).words == "1 of 1 rows unstable, 1 run"

    def test_a_wide_interval_is_not_stable(self) -> None:
        wide = run(("x", [8.0, 9.0, 10.0, 11.0, 12.0] * 2, [1.0] * 10))
        joined = join_runs([wide, wide], CRITERION)
        assert joined["rows"][0]["unstable"]["figure"] == "its 95 % interval is -10.0 … +10.0 %"
        assert unstable_rows(joined) == [("x", "ratio: its 95 % interval is -10.0 … +10.0 %")]
        assert join_runs([wide, wide], Criterion(0.11))["rows"][0]["unstable"] is None

    def test_runs_that_differ_are_not_stable_however_narrow_the_interval(self) -> None:
        # the whole machine was slower in the last run: the ratio held still
        runs = [run(("x", steady(10, 40), steady(5, 40)))] * 2 + [run(("x", steady(12, 40), steady(6, 40)))]
        (line,) = join_runs(runs, CRITERION)["rows"]
        assert line["unstable"]["figure"].startswith("its runs differ: one is +19")
        assert line["unstable"]["ratio"] is None

    def test_one_run_in_four_may_be_an_outlier(self) -> None:
        good, slow = run(("x", steady(10), steady(5))), run(("x", steady(12), steady(5)))
        assert join_runs([good, good, good, slow], CRITERION)["rows"][0]["unstable"] is None
        assert join_runs([good, good, slow], CRITERION)["rows"][0]["unstable"] is not None
        assert join_runs([good] * 6 + [slow] * 2, CRITERION)["rows"][0]["unstable"] is None

    def test_the_words_about_training_are_of_the_joined_rows(self) -> None:
        parts = ("end to end", 40.0), ("loader alone", 50.0), ("model alone", 200.0)
        result = run(*((name, steady(rate), steady(40)) for name, rate in parts), unit="clips/s")
        for line in result["rows"]:
            line["cpu_seconds_per_clip"] = 0.05
        result["rows"][0]["data_wait"] = 0.7
        result["settings"] |= {"device": "cpu", "frames_decoded_per_used": 20.0, "workers": 2}
        result["verdict"] = {"limit": "model", "words": "of one run"}
        joined = join_runs([result, result], CRITERION)
        assert joined["verdict"]["limit"] == "loader"
        assert "of one run" not in joined["verdict"]["words"]


class TestPage:
    @pytest.fixture
    def parts(self) -> list[Part]:
        fine = run(("steady | row", steady(10), steady(5)), ("yardstick", steady(5), steady(5)))
        wild = run(("wild row", [1.0, 9.0] * 5, [1.0] * 10))
        return [
            Part("op", 2, join_runs([fine, fine], CRITERION)),
            Part("model", 2, join_runs([wild, wild], CRITERION)),
            Part("data", left_out="no videos"),
            Part("train", failed="no labels"),
        ]

    def test_unstable_numbers_are_marked_and_nothing_is_left_unsaid(self, parts: list[Part]) -> None:
        text = markdown(new_record(DESCRIBED, "tin-cli bench all", {}), "a machine", parts, CRITERION, "chart.png")
        assert "| op | stable, 2 runs |" in text
        assert "| model | 1 of 1 rows unstable, 2 runs |" in text
        assert "| data | left out: no videos |" in text
        assert "| train | failed: no labels |" in text
        assert "(5 ms?) | 1 … 9 | 1 … 9 | (5.000?)" in text
        assert r"| steady \| row | 10 ms |" in text
        assert "![" in text
        assert CRITERION.words in text
        assert [cells[-1] for cells in table(parts[1].result or {})] == ["unstable"]

    def test_the_chart_shows_stable_ratios_in_blue_and_unstable_ones_in_orange(
        self, parts: list[Part], tmp_path: Path
    ) -> None:
        def colours(shown: list[Part]) -> tuple[bool, bool]:
            assert draw(shown, tmp_path / "chart.png", "a machine")
            pixels = np.asarray(Image.open(tmp_path / "chart.png").convert("RGB")).reshape(-1, 3)
            return tuple(bool((pixels == colour).all(axis=1).any()) for colour in ((0, 114, 178), (213, 94, 0)))

        assert colours(parts) == (True, True)
        assert colours(parts[:1]) == (True, False)
        assert not draw(parts[2:], tmp_path / "none.png", "a machine")
        assert not (tmp_path / "none.png").exists()
        with pytest.raises(TinError, match="cannot write the picture"):
            draw(parts, tmp_path / "no folder" / "chart.png", "a machine")


class TestRecords:
    def test_a_file_is_read_back_and_lists_of_numbers_stay_on_their_line(self, tmp_path: Path) -> None:
        content = new_record(DESCRIBED, 'tin-cli "[1,  2]"', {"op": run(("x", [1.5, 2.5], [1.0, 1.0]))}, part_of="all")
        write_record(tmp_path / "r.json", content)
        assert read_record(tmp_path / "r.json").content == json.loads(json.dumps(content))
        text = (tmp_path / "r.json").read_text()
        assert '"values": [1.5, 2.5],\n' in text
        assert '"part_of": "all"' in text

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "is no result of tin-cli bench"),
            ("[]", "it has no 'results'"),
            ('{"metrics": {}}', "it has no 'results'"),
            ('{"results": {"op": {}}}', r"'results.op' has no 'rows'"),
            ('{"results": {"op": {"rows": [{"name": "x", "unit": "ms"}]}}}', r"'results.op.rows.0' has no 'median'"),
        ],
    )
    def test_what_is_no_result_is_refused(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(TinError, match=message):
            read_record(tmp_path / "r.json")

    def test_of_a_folder_the_results_are_read_and_other_files_left_alone(self, tmp_path: Path) -> None:
        with pytest.raises(TinError, match="holds no result"):
            read_records(tmp_path)
        (tmp_path / "all.json").write_text('{"parts": {}}')
        (tmp_path / "half.json").write_text("{")
        for name in ("b", "a"):
            write_record(tmp_path / f"{name}.json", new_record(DESCRIBED, "c", {"op": run(("x", [1.0], [1.0]))}))
        assert [record.path.name for record in read_records(tmp_path)] == ["a.json", "b.json"]
        with pytest.raises(TinError, match=r"cannot read .*gone.json"):
            read_records(tmp_path / "gone.json")
        with pytest.raises(TinError, match=r"cannot write .*gone"):
            write_record(tmp_path / "gone" / "r.json", {})

    def test_every_published_result_can_be_read(self) -> None:
        folder = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
        assert len(read_records(folder)) == len(list(folder.glob("*.json"))) > 10
