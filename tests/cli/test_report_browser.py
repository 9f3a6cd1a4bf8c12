"""`tin-cli report` as a user types it, and its page in a real browser: numbers, sorting, keyboard, paper, darkness."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.browser import chromium, complaints, open_page
from tests.tin.reported import write_drawn_result
from tests.tin.test_report import HOSTILE, write_run
from tin.evaluation import load_result

Cli = Callable[..., Any]
CLASSES = ["walk", "run", f"jump {HOSTILE}", "sit", "stand", "lie"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def fights(real_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of the real labelled clips, and two that cannot be read."""
    folder = tmp_path_factory.mktemp("fights")
    videos = sorted((real_videos / "fights").glob("*/*.mp4"))
    lines = [f"{video} {int(video.parent.name == 'nofight')}" for video in videos]
    (folder / "broken.mp4").write_bytes(b"no video")
    lines += [f"{folder / 'broken.mp4'} 0", f"{folder / 'gone.mp4'} 1"]
    (folder / "val.txt").write_text("\n".join(lines) + "\n")
    (folder / "labels.txt").write_text("fight\nnofight\n")
    return folder / "val.txt"


@pytest.fixture(scope="module")
def real_result(fights: Path) -> Path:
    """Scores are drawn; videos, list, settings and run are real. The videos that cannot be read are among the wrong ones."""
    names = [line.rpartition(" ")[0] for line in fights.read_text().splitlines()]
    run = write_run(fights.parent / "run", 5)
    return write_drawn_result(
        fights.with_name("result.json"), videos=len(names), classes=2, names=names, label_names=["fight", "nofight"],
        failed=[0], list_name=str(fights), checkpoint=run / "best.pt", test_crop="three",
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of drawn scores without videos, with hostile names; its result lies beside it."""
    from cli.main import run

    folder = tmp_path_factory.mktemp("page")
    names = [f"{HOSTILE} {number}.mp4" for number in range(240)]
    write_drawn_result(folder / "result.json", videos=240, names=names, label_names=CLASSES, failed=[7, 9])
    run_dir = write_run(folder / "run", 4)
    assert run(["report", str(folder / "result.json"), "--run", str(run_dir)]) == 0
    return folder / "result.html"


def cells(browser: Any, table: str) -> list[list[str]]:
    rows = "[...document.querySelectorAll(arguments[0] + ' tbody tr')]"
    return browser.execute_script(f"return {rows}.map((row) => [...row.cells].map((cell) => cell.textContent))", table)  # type: ignore[no-any-return]


def picture_of(browser: Any, css: str) -> np.ndarray:
    element = browser.find_element("css selector", css)
    with Image.open(io.BytesIO(element.screenshot_as_png)) as picture:
        return np.asarray(picture.convert("RGB"))


def colours(picture: np.ndarray) -> int:
    return len(np.unique(picture.reshape(-1, 3), axis=0))


def test_the_page_shows_the_numbers_of_the_result(browser: Any, page: Path) -> None:
    open_page(browser, page)
    result = load_result(page.with_name("result.json"))
    shown = {row[0]: row[1] for row in cells(browser, "#metrics-table")}
    assert shown == {
        "top-1": f"{100 * result.metrics['top1_acc']:.2f} %",
        "top-5": f"{100 * result.metrics['top5_acc']:.2f} %",
        "mean class accuracy": f"{100 * result.metrics['mean_class_accuracy']:.2f} %",
    }
    classes = {row[0]: row[1:] for row in cells(browser, "#classes-table")}
    assert sorted(classes) == sorted(CLASSES)
    for row in result.per_class:
        assert row.accuracy is not None
        expected = [row.index, row.videos, row.predicted, row.correct]
        assert classes[CLASSES[row.index]][:4] == [str(number) for number in expected]
        assert classes[CLASSES[row.index]][4] == f"{100 * row.accuracy:.2f} %"
    assert [row[1] for row in cells(browser, "#failures")] == ["is empty (0 bytes)"] * 2
    assert "238 of the 240 videos" in browser.find_element("id", "coverage").text
    assert len(cells(browser, "#videos-table")) == 100  # a page at a time


def test_names_are_shown_and_never_run(browser: Any, page: Path) -> None:
    open_page(browser, page)
    assert f"jump {HOSTILE}" in [row[0] for row in cells(browser, "#classes-table")]
    assert cells(browser, "#videos-table")[0][0].startswith(HOSTILE)
    assert browser.execute_script("return window.broken") is None
    added = "const bad = document.createElement('script'); bad.textContent = 'window.broken = 3'; document.body.append(bad);"
    assert browser.execute_script(f"{added} return window.broken") is None
    assert "Content Security Policy" in " ".join(complaints(browser))


def test_tables_sort_by_the_keyboard(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page(browser, page)
    heads = browser.find_elements("css selector", "#classes-table thead th")
    videos = heads[2]
    assert videos.get_attribute("aria-sort") == "none"
    button = videos.find_element("tag name", "button")
    browser.execute_script("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    assert videos.get_attribute("aria-sort") == "descending"
    numbers = [int(row[2]) for row in cells(browser, "#classes-table")]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) > 1
    button.send_keys(Keys.SPACE)
    assert videos.get_attribute("aria-sort") == "ascending"
    assert [int(row[2]) for row in cells(browser, "#classes-table")] == sorted(numbers)
    button.send_keys(Keys.SHIFT, Keys.TAB)
    browser.switch_to.active_element.send_keys(Keys.SHIFT, Keys.TAB)
    name = browser.switch_to.active_element
    assert name.text == "class"
    name.send_keys(Keys.ENTER)
    assert [head.get_attribute("aria-sort") for head in heads].count("none") == len(heads) - 1
    assert [row[0] for row in cells(browser, "#classes-table")] == sorted(CLASSES)
    more = browser.find_element("css selector", "#videos-table .more button")
    more.send_keys(Keys.ENTER)
    assert len(cells(browser, "#videos-table")) == 200
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert len(cells(browser, "#videos-table")) == 238
    assert complaints(browser) == []


def test_the_heat_map_is_read_by_arrows_and_pointer_and_opens_its_videos(browser: Any, page: Path) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    open_page(browser, page)
    result = load_result(page.with_name("result.json"))
    matrix = result.confusion
    assert matrix is not None
    field = browser.find_element("css selector", "#heatmap .field")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus()", field)
    field.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.END, Keys.ARROW_LEFT)
    reading = browser.find_element("css selector", "#heatmap .reading")
    part = matrix[3, 4] / matrix[3].sum()
    assert reading.text == f"sit, taken for stand: {matrix[3, 4]} of {matrix[3].sum()} videos, {100 * part:.2f} %"
    size = field.size["width"]
    right = int(size * (4.5 / 6 - 0.5))
    ActionChains(browser).move_to_element_with_offset(field, right, right).perform()
    assert reading.text.startswith(f"stand, recognised: {matrix[4, 4]} of ")
    field.send_keys(Keys.ARROW_RIGHT, Keys.ENTER)
    listed = cells(browser, "#videos-table")
    assert len(listed) == matrix[4, 5] > 0
    assert {(row[1], row[2]) for row in listed} == {("stand", "lie")}
    assert browser.switch_to.active_element.get_attribute("id") == "videos-title"
    assert complaints(browser) == []


def test_the_plots_have_content_by_day_and_night(browser: Any, page: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        open_page(browser, page)
        seen[scheme] = picture_of(browser, "body")
        assert colours(picture_of(browser, "#heatmap canvas:not(.ramp)")) > 10
        assert colours(picture_of(browser, "#offsets-chart svg")) > 10
    assert seen["light"].mean() > 180
    assert seen["dark"].mean() < 80
    slider = browser.find_element("id", "offsets-slider")
    before = picture_of(browser, "#offsets-chart svg")
    slider.send_keys("\ue012")  # left
    assert browser.find_element("id", "offsets-epoch").text == "epoch 3"
    assert (picture_of(browser, "#offsets-chart svg") != before).any()


def test_it_prints_with_all_rows_of_its_tables(browser: Any, cli: Cli, tmp_path: Path) -> None:
    result = write_drawn_result(tmp_path / "result.json", videos=900, classes=300)
    assert cli("report", result).status == 0
    open_page(browser, result.with_suffix(".html"))
    assert len(cells(browser, "#pairs")) == 100
    printed = base64.b64decode(browser.print_page())
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") > 5
    assert len(cells(browser, "#pairs")) > 150
    assert complaints(browser) == []


@pytest.mark.slow
def test_the_worst_videos_show_the_frames_that_the_model_saw(
    browser: Any, real_result: Path, tin_cli: Cli, tmp_path: Path
) -> None:
    answer = tin_cli("report", real_result, "--out", tmp_path / "r.html", "--png", tmp_path / "png")
    assert answer.status == 0, answer.err
    assert {path.name for path in (tmp_path / "png").iterdir()} == {
        "metrics.png", "classes.png", "confusion.png", "offsets.png",
    }  # fmt: skip
    open_page(browser, tmp_path / "r.html")
    result = load_result(real_result)
    readable = {video.id for video in result.videos[:-2]}
    items = browser.find_elements("css selector", ".worst li")
    assert len(items) > 3
    for item in items:
        pictures = item.find_elements("tag name", "img")
        if any(name in item.text for name in readable):
            natural = browser.execute_script(
                "return [arguments[0].naturalWidth, arguments[0].naturalHeight]", pictures[0]
            )
            segments = json.loads(real_result.read_text())["recipe"]["model"]["num_segments"]
            assert natural[0] == min(segments, 8) * natural[1]
        else:
            assert pictures == []
            assert "No frames: " in item.text
    assert colours(picture_of(browser, ".worst img")) > 500
    assert "Learned offsets" in browser.find_element("tag name", "main").text


def test_a_report_is_made_without_the_videos_and_with_them_elsewhere(
    cli: Cli, real_result: Path, real_videos: Path, tmp_path: Path
) -> None:
    content = json.loads(real_result.read_text())
    folder = real_videos / "fights"
    for video in content["videos"]:
        video["id"] = video["id"].removeprefix(f"{folder}/")
    content["list"] = str(tmp_path / "moved" / "val.txt")
    moved = tmp_path / "result.json"
    moved.write_text(json.dumps(content))
    answer = cli("report", moved)
    assert answer.status == 0, answer.err
    assert "moved/val.txt is gone: name the folder of its videos with --root" in answer.err
    page = moved.with_suffix(".html").read_text()
    assert "<img" not in page
    assert "No frames: the list" in page
    before = sorted(folder.iterdir())
    assert cli("report", moved, "--root", folder).status == 0
    assert sorted(folder.iterdir()) == before  # nothing is left among the videos
    assert len(re.findall("<img", moved.with_suffix(".html").read_text())) > 3
    moved.write_text(json.dumps(content | {"root": str(folder), "created": "2026-02-03T04:05:06+00:00"}))
    assert cli("report", moved).status == 0
    page = moved.with_suffix(".html").read_text()
    assert len(re.findall("<img", page)) > 3, "the result says where its videos are"
    assert "of 2026-02-03 04:05 UTC" in page
    moved.write_text(json.dumps(content | {"root": str(tmp_path / "gone")}))
    assert "name the folder of its videos with --root" in cli("report", moved).err


def test_the_help_fits_a_terminal(cli: Cli) -> None:
    answer = cli("report", "--help")
    assert answer.status == 0
    assert max(map(len, answer.out.splitlines())) <= 110
    assert "tin-cli report result.json --out report.html" in answer.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("text.json", "text.json is no result file"),
        ("result.json --out result.json", "is the result itself"),
        ("result.json --run .", "holds no log.jsonl"),
        ("result.json --out text.json/page.html", "cannot write"),
    ],
)
def test_mistakes_are_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_drawn_result(tmp_path / "result.json", videos=2, classes=1)
    (tmp_path / "text.json").write_text("no result")
    answer = cli("report", *arguments.split())
    assert answer.status == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.prove
def test_20000_videos_of_400_classes_open(browser: Any, cli: Cli, tmp_path: Path) -> None:
    names = [f"val/a class with a long name {n % 400:03d}/{n:011d}_000010_000020.mp4" for n in range(20_000)]
    labels = [f"a class with a long name {n:03d}" for n in range(400)]
    result = write_drawn_result(tmp_path / "r.json", videos=20_000, classes=400, names=names, label_names=labels)
    answer = cli("report", result, "--run", write_run(tmp_path / "run", 50))
    assert answer.status == 0, answer.err
    page = result.with_suffix(".html")
    assert page.stat().st_size < 15_000_000
    open_page(browser, page)
    assert len(cells(browser, "#classes-table")) == 400
    assert colours(picture_of(browser, "#heatmap canvas:not(.ramp)")) > 10
    times = "const entry = performance.getEntriesByType('navigation')[0]; return entry.loadEventEnd - entry.startTime"
    print(f"{page.stat().st_size / 1e6:.1f} MB, open in {browser.execute_script(times) / 1000:.2f} s")
