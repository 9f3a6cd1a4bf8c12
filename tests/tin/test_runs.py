"""Logs read back as the training wrote them, through resumes, kills and damage; and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tin import recipes
from tin.errors import TinError
from tin.models.inspect import BlockShift
from tin.monitoring.curves import draw_runs
from tin.monitoring.runs import read_run
from tin.train.log import RunLog
from tin.train.progress import StepReport


def report(step: int, loss: float, top5: float | None = None) -> StepReport:
    """Of a run of ten steps an epoch."""
    return StepReport(
        epoch=1 + (step - 1) // 10, epochs=4, step=1 + (step - 1) % 10, steps=10, loss=loss, top1=0.25, top5=top5, lr=0.1 / step,
        clips_per_second=30.0, data_wait=0.1, grad_norm=1.0, memory_mb=100.0, eta_s=1.0, lrs={}, updates=step,
        skipped=0, bad_videos=0, gpu_utilisation=None, scale=None,
    )  # fmt: skip


def write(folder: Path, steps: range, loss: float, validated: tuple[int, ...] = (), top5: float | None = None) -> Path:
    """A part of a run, by the training's own log; appends as a resumed run does."""
    folder.mkdir(exist_ok=True)
    log = RunLog(folder, steps.start - 1, recipes.load("tin_motion"))
    for step in steps:
        log.step(step, report(step, loss, top5))
        if step in validated:
            log.validation(step, step // 10, {"top1_acc": loss / 10, "mean_class_accuracy": 0.5, "coverage": 1.0})
            shifts = torch.full((3, 2), loss / 10)
            log.offsets(step, step // 10, [BlockShift("layer1.0", shifts, torch.ones(3, 8, 2))])
    log.close()
    return folder


def numbers(points: Any) -> tuple[list[float], list[float]]:
    assert points is not None
    return points[0].tolist(), points[1].tolist()


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = read_run(write(tmp_path / "run", range(1, 21), 2.0, validated=(10, 20)))
    epochs, losses = numbers(run.training("loss"))
    assert epochs == pytest.approx([step / 10 for step in range(1, 21)])
    assert losses == [2.0] * 20
    assert numbers(run.validation("top1_acc")) == ([1.0, 2.0], [0.2, 0.2])
    assert run.metrics == ["top1_acc", "mean_class_accuracy"]
    assert run.training("top5") is None
    assert [entry["epoch"] for entry in run.offsets] == [1, 2]


def test_what_a_resumed_run_does_again_replaces_what_it_had_done(tmp_path: Path) -> None:
    write(tmp_path / "run", range(1, 24), 2.0, validated=(10, 20))
    run = read_run(write(tmp_path / "run", range(15, 26), 1.0, validated=(20,)))
    epochs, losses = numbers(run.training("loss"))
    assert epochs == pytest.approx([step / 10 for step in range(1, 26)])
    assert losses == [2.0] * 14 + [1.0] * 11
    assert numbers(run.validation("top1_acc")) == ([1.0, 2.0], [0.2, 0.1])
    assert [entry["blocks"]["layer1.0"]["mean"][0] for entry in run.offsets] == pytest.approx([0.2, 0.1])


def test_a_resumed_run_that_has_not_come_as_far_hides_what_lies_past_it(tmp_path: Path) -> None:
    write(tmp_path / "run", range(1, 24), 2.0, validated=(10, 20))
    run = read_run(write(tmp_path / "run", range(15, 18), 1.0))
    assert len(run.steps) == 17
    assert numbers(run.validation("top1_acc")) == ([1.0], [0.2])


def test_a_line_that_is_being_written_is_left_out_and_a_loss_that_is_not_finite_is_a_gap(tmp_path: Path) -> None:
    folder = write(tmp_path / "run", range(1, 3), 1.0)
    write(folder, range(3, 4), float("nan"))
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"event": "step", "glo')
    run = read_run(folder / "log.jsonl")
    assert numbers(run.training("loss"))[1] == pytest.approx([1.0, 1.0, float("nan")], nan_ok=True)
    assert len(run.steps) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"run holds no log\.jsonl: give the --work-dir"),
        ("", r"log\.jsonl has no step in it yet"),
        ('{"event": "finish"}\n', "has no step in it yet"),
        ('{"event": "step", "global_step": 1}\n', r"log\.jsonl:1: a line of event 'step' without epoch, step, steps"),
        ('{"event": "hello"}\nepoch 1 loss 2\n', r"log\.jsonl:2: no JSON object: 'epoch 1 loss 2'"),
        ("[1]\n", r"log\.jsonl:1: no JSON object"),
    ],
)
def test_what_is_no_log_is_told_with_file_and_line(tmp_path: Path, text: str | None, message: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    if text is not None:
        (folder / "log.jsonl").write_text(text)
    with pytest.raises(TinError, match=message):
        read_run(folder)


def test_every_panel_of_every_run_is_in_the_picture(tmp_path: Path) -> None:
    first = read_run(write(tmp_path / "tin", range(1, 21), 2.0, validated=(10, 20), top5=0.7))
    second = read_run(write(tmp_path / "tsn", range(1, 11), 1.0))
    out = tmp_path / "made" / "curves.svg"
    draw_runs({"tin ümlaut": first, "tsn": second}, out)
    svg = out.read_text()
    for words in (
        "tin ümlaut", "tsn", "training loss", "top-1, %", "top-5, %", "learning rate", "clips per second", "waiting for data",
        "mean class accuracy", "offsets of tin ümlaut", "mean |offset|, frames: how far a block looks",
    ):  # fmt: skip
        assert f"<!-- {words}" in svg, words
    assert "offsets of tsn" not in svg


def test_a_png_is_as_wide_as_a_page_and_has_both_colours(tmp_path: Path) -> None:
    runs = {
        name: read_run(write(tmp_path / name, range(1, 3000, 1), loss)) for name, loss in (("one", 2.0), ("two", 1.0))
    }
    draw_runs(runs, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width == 1420
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in ((0, 114, 178), (213, 94, 0)):
        assert (pixels == colour).all(axis=1).sum() > 500


def test_another_suffix_and_a_place_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    runs = {"run": read_run(write(tmp_path / "run", range(1, 4), 1.0))}
    with pytest.raises(TinError, match=r"ends in \.png or \.svg"):
        draw_runs(runs, tmp_path / "curves.gif")
    (tmp_path / "file").write_text(json.dumps({}))
    with pytest.raises(TinError, match="cannot write the picture"):
        draw_runs(runs, tmp_path / "file" / "curves.png")
