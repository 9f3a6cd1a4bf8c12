"""The numbers on the pages are those of the published results, and a page that says others is found out."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import page_numbers as numbers


def test_every_page_says_what_the_results_say() -> None:
    differ = [str(path) for path in numbers.pages() if numbers.fill(path.read_text()) != path.read_text()]
    assert not differ, f"{', '.join(differ)}: not what benchmarks/results say; `make numbers` writes them anew"


def test_every_number_that_is_made_stands_on_a_page() -> None:
    marks = [
        name
        for path in numbers.pages()
        for name in re.findall(r"^<!-- numbers: (\S+) -->$", path.read_text(), re.MULTILINE)
    ]
    assert sorted(marks) == sorted(numbers.BLOCKS)
    assert numbers.ROOT / "README.md" in numbers.pages()


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The README and the results in a folder of their own."""
    shutil.copytree(numbers.RESULTS, tmp_path / "benchmarks" / "results")
    for page in ("README.md", "benchmarks/README.md"):
        shutil.copy(numbers.ROOT / page, tmp_path / page)
    monkeypatch.setattr(numbers, "ROOT", tmp_path)
    monkeypatch.setattr(numbers, "RESULTS", tmp_path / "benchmarks" / "results")
    numbers._result.cache_clear()
    yield tmp_path
    numbers._result.cache_clear()


def test_a_new_result_is_found_and_written(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert numbers.main(["--check"]) == 0
    path = copy / "benchmarks" / "results" / "cpu-2threads-inference.json"
    result = json.loads(path.read_text())
    result["results"]["inference"]["rows"][1]["torchvision_ratio"] = 7.654
    path.write_text(json.dumps(result))
    numbers._result.cache_clear()
    before = (copy / "README.md").read_text()
    assert numbers.main(["--check"]) == 1
    assert capsys.readouterr().out == "README.md: differs from benchmarks/results\n"
    assert (copy / "README.md").read_text() == before
    assert numbers.main([]) == 0
    after = (copy / "README.md").read_text()
    assert "takes 7.65 times torchvision's ResNet-50" in after
    changed = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
    assert len(changed) == 1
    assert numbers.main(["--check"]) == 0


def test_a_row_that_is_gone_and_a_mark_that_is_wrong_are_named(copy: Path) -> None:
    with pytest.raises(ValueError, match="no numbers are known by the name 'speed'"):
        numbers.fill("<!-- numbers: speed -->\n<!-- /numbers -->")
    with pytest.raises(ValueError, match="lacks its <!-- /numbers -->"):
        numbers.fill("<!-- numbers: readme -->\n")
    with pytest.raises(ValueError, match="lacks its <!-- /numbers -->"):
        numbers.fill("<!-- numbers: readme -->\n<!-- numbers: index -->\n<!-- /numbers -->")
    path = copy / "benchmarks" / "results" / "data-2cores-untouched.json"
    path.write_text(path.read_text().replace("loader, copies", "something else"))
    numbers._result.cache_clear()
    with pytest.raises(ValueError, match=r"data-2cores-untouched\.json has 0 rows 'loader, copies'"):
        numbers.fill("<!-- numbers: copies -->\n<!-- /numbers -->")
