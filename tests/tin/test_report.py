"""The report's numbers against the result's, its page, and its pictures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tin.reported import write_drawn_result
from tin.errors import TinError
from tin.evaluation import load_result
from tin.evaluation.schema import Video
from tin.evaluation.tables import confusion_matrix
from tin.report import make_report, read_offsets, render_page, write_page, write_plots

HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'>&amp;\"<!--"


def data_of(page: str) -> Any:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def write_run(folder: Path, epochs: int) -> Path:
    """A run's record as training writes it, of a network of two blocks."""
    folder.mkdir()
    lines = []
    for epoch in range(1, epochs + 1):
        blocks = {
            f"layer{block}.0": {
                "mean": [0.1 * epoch, -0.2 * block], "reach": [1.0, 1.0], "spread": [0.5, 0.5], "gain": 1.5,
                "percentiles": [[-1.0, -0.5, 0.1, 0.6, 1.1], [-2.0, -1.5, -0.2, 0.2, 0.4]],
            }
            for block in (1, 2)
        }  # fmt: skip
        lines.append({"epoch": epoch, "global_step": 10 * epoch, "clips": 4, "blocks": blocks})
    (folder / "offsets.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = [{"event": "validation", "global_step": 10 * n, "epoch": n, "top1_acc": 0.5} for n in range(1, epochs + 1)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return folder


def test_the_numbers_are_those_of_the_result(tmp_path: Path) -> None:
    result = load_result(write_drawn_result(tmp_path / "result.json", failed=[3, 40]))
    report = make_report(result)
    assert {metric.name: metric.value for metric in report.metrics} == result.metrics
    assert {metric.name: metric.interval for metric in report.metrics} == result.intervals
    assert report.failures == [("video 3.mp4", "is empty (0 bytes)"), ("video 40.mp4", "is empty (0 bytes)")]
    assert "58 of the 60 videos" in report.coverage
    wrong = [
        (float(np.nanmax(result.scores[place])), video.id)
        for place, video in enumerate(result.videos)
        if video.failed is None and video.label != video.prediction
    ]
    assert len(wrong) > 10
    best = sorted(wrong, reverse=True)[: len(report.worst)]
    assert [(report.confidences[row], report.ids[row]) for row in report.worst] == best
    pairs: dict[tuple[int | None, int | None], int] = {}
    for video in result.videos:
        if video.failed is None and video.label != video.prediction:
            pairs[video.label, video.prediction] = pairs.get((video.label, video.prediction), 0) + 1
    assert {(label, taken): count for label, taken, count in report.pairs} == pairs
    counts = [count for _, _, count in report.pairs]
    assert counts == sorted(counts, reverse=True)


def test_the_page_carries_the_tables_and_no_scores(tmp_path: Path) -> None:
    result = load_result(write_drawn_result(tmp_path / "result.json", failed=[3]))
    page = render_page(make_report(result))
    data = data_of(page)
    assert result.confusion is not None
    matrix = np.zeros_like(result.confusion)
    cells = np.array(data["confusion"]).reshape(-1, 3)
    matrix[cells[:, 0], cells[:, 1]] = cells[:, 2]
    np.testing.assert_array_equal(matrix, result.confusion)
    assert data["classes"]["correct"] == [row.correct for row in result.per_class]
    assert data["classes"]["videos"] == [row.videos for row in result.per_class]
    assert data["videos"]["labels"] == [video.label for video in result.videos if video.failed is None]
    assert "scores" not in data
    for name, value in result.metrics.items():
        low, high = result.intervals[name]
        assert f"{100 * value:.2f} %" in page
        assert f"{100 * low:.2f} – {100 * high:.2f} %" in page
    assert re.search(r'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:;', page)
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)


def test_names_from_files_cannot_leave_their_place(tmp_path: Path) -> None:
    names = [f"{HOSTILE}{number}" for number in range(60)]
    labels = [f"{HOSTILE}{number}" for number in range(6)]
    page = render_page(
        make_report(load_result(write_drawn_result(tmp_path / "r.json", names=names, label_names=labels))),
        {names[0]: HOSTILE},
    )
    assert page.count("<script") == 2
    assert "<img" not in page
    assert "<!--" not in page
    assert data_of(page)["names"] == labels
    assert data_of(page)["videos"]["ids"] == names


def test_a_name_that_is_no_unicode_is_written_all_the_same(tmp_path: Path) -> None:
    names = [f"caf\udce9 {number}.mp4" for number in range(60)]
    report = make_report(load_result(write_drawn_result(tmp_path / "r.json", videos=60)))
    report.ids[:] = names
    write_page(tmp_path / "deep" / "page.html", render_page(report))
    page = (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    assert data_of(page)["videos"]["ids"] == names


def test_frames_become_one_picture_a_video_and_reasons_words(tmp_path: Path) -> None:
    report = make_report(load_result(write_drawn_result(tmp_path / "r.json")))
    first, second = (report.ids[row] for row in report.worst[:2])
    frames = {first: np.full((12, 20, 30, 3), 90, np.uint8), second: "no such file"}
    page = render_page(report, frames)
    assert page.count('<img src="data:image/jpeg;base64,') == 1
    assert 'width="720" height="120"' in page  # eight in the first line, four in the second; three times as large
    assert "No frames: no such file" in page


def test_without_labels_it_says_so_and_shows_the_predictions(tmp_path: Path) -> None:
    report = make_report(load_result(write_drawn_result(tmp_path / "r.json", labelled=False)))
    assert report.matrix is None
    page = render_page(report)
    assert "No metrics: the list has no labels." in page
    assert 'id="heatmap"' not in page
    assert data_of(page)["classes"] is None
    assert len(data_of(page)["videos"]["predictions"]) == 60


def test_a_result_of_version_1_opens(tmp_path: Path) -> None:
    path = write_drawn_result(tmp_path / "r.json")
    content = json.loads(path.read_text())
    for key in ("intervals", "per_class", "confusion", "ensemble", "views", "commit", "reversals"):
        del content[key]
    del content["checkpoint"]["weights"]
    path.write_text(json.dumps({**content, "version": 1}))
    report = make_report(load_result(path))
    assert [metric.interval for metric in report.metrics] == [None] * len(report.metrics)
    assert report.matrix is not None
    assert report.matrix.sum() == 60
    assert "no intervals" in render_page(report)


def test_one_class_and_nothing_wrong(tmp_path: Path) -> None:
    report = make_report(load_result(write_drawn_result(tmp_path / "r.json", videos=3, classes=1)))
    assert report.worst == []
    assert render_page(report).count("No video is predicted wrong.") == 2


def test_offsets_are_those_of_the_run_thinned_evenly(tmp_path: Path) -> None:
    offsets = read_offsets(write_run(tmp_path / "run", 250))
    assert offsets is not None
    assert offsets.blocks == ["layer1.0", "layer2.0"]
    assert len(offsets.epochs) == 100
    assert (offsets.epochs[0], offsets.epochs[-1]) == (1, 250)
    np.testing.assert_allclose(
        offsets.values[0], [[0.1, -0.5, 0.6, -0.2, -1.5, 0.2, 1.5], [0.1, -0.5, 0.6, -0.4, -1.5, 0.2, 1.5]]
    )


def test_damaged_offsets_name_the_file_and_the_step(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", 3)
    path = run / "offsets.jsonl"
    path.write_text(path.read_text().replace('"gain": 1.5', '"gain": null', 1))
    with pytest.raises(TinError, match=r"run/offsets\.jsonl: the line of global_step 10 "):
        read_offsets(run)


def test_the_plots_are_pictures_of_more_than_a_colour(tmp_path: Path) -> None:
    result = load_result(write_drawn_result(tmp_path / "r.json"))
    offsets = read_offsets(write_run(tmp_path / "run", 2))
    written = write_plots(make_report(result, offsets), tmp_path / "png")
    assert [path.name for path in written] == ["metrics.png", "classes.png", "confusion.png", "offsets.png"]
    for path in written:
        with Image.open(path) as picture:
            assert min(picture.size) > 150
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20, path


def test_a_report_of_20000_videos_and_400_classes_stays_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(20_000) % 400
    predictions = np.where(
        rng.random(20_000) < 0.6, labels, rng.integers(0, 400, 20_000)
    )  # spread: no matrix is less empty
    scores = np.full((20_000, 400), 0.001, np.float32)
    scores[np.arange(20_000), predictions] = 0.601
    names = [f"val/a class with a long name {n % 400:03d}/{n:011d}_000010_000020.mp4" for n in range(20_000)]
    large = replace(
        load_result(write_drawn_result(tmp_path / "r.json")),
        videos=[
            Video(id=name, label=int(label), prediction=int(prediction))
            for name, label, prediction in zip(names, labels, predictions, strict=True)
        ],
        labels=labels,
        predictions=predictions,
        scores=scores,
        scored=np.ones(20_000, bool),
        confusion=confusion_matrix(scores, labels),
        label_names=[f"a class with a long name {n:03d}" for n in range(400)],
    )
    report = make_report(large, read_offsets(write_run(tmp_path / "run", 120)))
    noise = rng.integers(0, 256, (16, 112, 112, 3), dtype=np.uint8)  # no picture takes more bytes
    page = render_page(report, {report.ids[row]: noise for row in report.worst})
    assert page.count("<img") == 24
    assert len(page.encode()) < 15_000_000
