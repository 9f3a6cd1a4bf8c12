"""A run's record, read with TensorBoard's own readers and json."""

from __future__ import annotations

import io
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator

import tin
from tests.tin.clips import NUM_SEGMENTS, MemoryLoader
from tests.tin.test_train import recipe
from tin.distributed import World
from tin.errors import TinError
from tin.evaluation import Scores
from tin.models.inspect import OffsetProbe
from tin.train.log import RunLog, flat_recipe
from tin.train.meter import StepMeter
from tin.train.progress import StepReport
from tin.train.step import Outcome

NAMES = ["left", "middle", "right"]


def report(**changes: Any) -> StepReport:
    return StepReport(**{
        "epoch": 1, "epochs": 3, "step": 4, "steps": 6, "loss": 1.25, "top1": 0.5, "lr": 0.01, "clips_per_second": 20.0,
        "data_wait": 0.125, "grad_norm": 2.0, "memory_mb": 512.0, "eta_s": 60.0, "top5": 0.75, "lrs": {"weight": 0.01, "bias": 0.02},
        "updates": 3, "skipped": 1, "bad_videos": 2, "gpu_utilisation": 0.875, "scale": 1024.0, **changes,
    })  # fmt: skip


def read(work_dir: Path) -> EventAccumulator:
    events = EventAccumulator(str(work_dir / "tensorboard"), STORE_EVERYTHING_SIZE_GUIDANCE)
    events.Reload()
    return events


def scalars(events: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in events.Scalars(tag)]


def lines(work_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work_dir / "log.jsonl").read_text().splitlines()]


def picture(events: EventAccumulator, tag: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string)))


def scores(labels: list[int], predictions: list[int], classes: int = 3) -> Scores:
    values = np.eye(classes, dtype=np.float32)[predictions]
    return Scores(np.arange(len(labels)), values, np.array(labels), (), len(labels))


def test_json_lines_and_curves_hold_the_same_numbers(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, recipe(), label_names=NAMES, world_size=2)
    log.step(4, report())
    log.step(8, report(loss=float("nan"), gpu_utilisation=None, scale=None, top5=None))
    log.close()
    first, second = lines(tmp_path)
    assert (first["event"], first["global_step"], first["world_size"]) == ("step", 4, 2)
    assert first["host"]
    assert first["time"] > 1.7e9
    assert first["lrs"] == {"weight": 0.01, "bias": 0.02}
    assert (second["loss"], second["scale"]) == (None, None)
    events = read(tmp_path)
    for tag, field in {
        "train/loss": "loss", "train/top1": "top1", "train/top5": "top5", "train/grad_norm": "grad_norm", "train/scale": "scale",
        "train/skipped": "skipped", "train/updates": "updates", "speed/clips_per_second": "clips_per_second",
        "speed/data_wait": "data_wait", "system/memory_mb": "memory_mb", "system/gpu_utilisation": "gpu_utilisation",
        "data/bad_videos": "bad_videos",
    }.items():  # fmt: skip
        assert scalars(events, tag)[0] == (4, first[field]), tag
    assert scalars(events, "lr/bias") == [(4, pytest.approx(0.02)), (8, pytest.approx(0.02))]
    assert np.isnan(scalars(events, "train/loss")[1][1])
    assert len(scalars(events, "train/scale")) == 1


def test_a_resumed_run_appends_and_hides_what_it_does_again_alone(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, recipe())
    for step in (4, 8, 12):
        log.step(step, report(loss=float(step)))
    log.validation(8, 2, {"top1_acc": 0.5})
    log.validation(12, 3, {"top1_acc": 0.75})
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"event": "step", "los')  # killed while it wrote
    resumed = RunLog(tmp_path, 8, recipe())
    resumed.step(12, report(loss=120.0))
    resumed.close()
    assert [(line["event"], line["global_step"]) for line in lines(tmp_path)] == [
        ("step", 4), ("step", 8), ("step", 12), ("validation", 8), ("validation", 12), ("step", 12),
    ]  # fmt: skip
    events = read(tmp_path)
    assert scalars(events, "train/loss") == [(4, 4.0), (8, 8.0), (12, 120.0)]
    assert scalars(events, "val/top1_acc") == [(8, 0.5)]


def test_hyper_parameters_stand_beside_the_final_metrics(tmp_path: Path) -> None:
    """As TensorBoard's own plugin answers its table."""
    for run, lr in (("one", 0.01), ("two", 0.02)):
        (tmp_path / run).mkdir()
        log = RunLog(tmp_path / run, 0, recipe(f"optim.lr={lr}", "data.flip_labels=none"))
        log.validation(6, 1, {"top1_acc": 10 * lr, "mean_class_accuracy": 0.5})
        if run == "two":
            log.finish(6, {"top1_acc": 0.25, "epoch": 1.0})
        log.close()
    rows = {row["name"]: row for row in hyper_parameter_table(tmp_path)}
    assert set(rows) == {"one/tensorboard", "two/tensorboard"}  # of a run, its own folder alone
    one, two = rows["one/tensorboard"], rows["two/tensorboard"]
    assert (one["hparams"]["optim.lr"], two["hparams"]["optim.lr"]) == (0.01, 0.02)
    assert two["hparams"]["model.arch"] == "tin_resnet18"
    assert two["hparams"]["data.flip_labels"] == "null"
    assert two["metrics"]["val/top1_acc"] == pytest.approx(0.2)
    assert two["metrics"]["best/top1_acc"] == 0.25
    assert (one["status"], two["status"]) == ("STATUS_UNKNOWN", "STATUS_SUCCESS")


def hyper_parameter_table(logdir: Path) -> list[dict[str, Any]]:
    from google.protobuf import json_format
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups

    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(logdir))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=10, allowed_statuses=[0, 1, 2, 3], include_metrics=True,
        aggregation_type=api_pb2.AGGREGATION_AVG,
    )  # fmt: skip
    experiment = get_experiment.Handler(
        RequestContext(),
        backend_context=context,
        experiment_id="",
        request=api_pb2.GetExperimentRequest(include_metrics=True),
    ).run()
    request.col_params.extend(
        [api_pb2.ColParams(hparam=info.name) for info in experiment.hparam_infos]
        + [api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos]
    )
    answer = list_session_groups.Handler(
        RequestContext(), backend_context=context, experiment_id="", request=request
    ).run()
    rows = []
    for group in answer.session_groups:
        (session,) = group.sessions
        rows.append({
            "name": session.name,
            "status": api_pb2.Status.Name(session.status),
            "hparams": {key: json_format.MessageToDict(value) for key, value in group.hparams.items()},
            "metrics": {value.name.tag: value.value for value in session.metric_values},
        })  # fmt: skip
    return rows


def test_the_recipe_is_flat_and_whole() -> None:
    flat = flat_recipe(recipe("data.repeats=2"))
    assert (flat["data.repeats"], flat["optim.lr"], flat["model.arch"]) == (2, 0.005, "tin_resnet18")
    assert flat["optim.nesterov"] == "false"
    assert flat["data.mean"] == "[123.675, 116.28, 103.53]"
    assert all(isinstance(value, str | int | float) and not isinstance(value, bool) for value in flat.values())


def test_clips_are_drawn_as_the_network_gets_them_with_their_names(tmp_path: Path) -> None:
    settings = recipe()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (settings.data.mean, settings.data.std))
    colours = torch.randint(0, 256, (2 * NUM_SEGMENTS, 3, 1, 1)).expand(-1, -1, 32, 32).float()
    frames = ((colours - mean) / std).contiguous(memory_format=torch.channels_last)
    log = RunLog(tmp_path, 0, settings, label_names=NAMES)
    log.clips(3, frames, torch.tensor([1, -1]), ["a.mp4", "b.mp4"])
    assert "clips" not in read(tmp_path).Tags()["images"]  # not in the hot path
    frames.zero_()  # a loader may use its memory again
    log.step(4, report())
    log.close()
    events = read(tmp_path)
    assert events.Images("clips")[0].step == 3
    image = picture(events, "clips")
    side = 3 * 32  # enlarged
    assert image.shape == (2 * (16 + side), NUM_SEGMENTS * (side + 2) - 2, 3)
    for clip in range(2):
        top = clip * (16 + side)
        for segment in range(NUM_SEGMENTS):
            tile = image[top + 16 :][:side, segment * (side + 2) :][:, :side]
            assert (tile == colours[clip * NUM_SEGMENTS + segment, :, 0, 0].numpy()).all()
        assert (image[top : top + 16] < 128).any()  # the caption


def test_confusions_are_counted_written_and_drawn(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0, recipe(), label_names=["left, far", "middle", "right"])
    log.validation(6, 1, {"top1_acc": 0.5}, scores([0, 0, 0, 1, 2, 2], [0, 1, 1, 1, 0, 2]))
    log.validation(12, 2, {"top1_acc": 0.6}, scores([0, 0, 0, 1, 2], [0, 1, 1, 1, 0]))
    log.close()
    assert (tmp_path / "confusion.csv").read_text() == (
        'true class,"left, far",middle,right\n"left, far",1,2,0\nmiddle,0,1,0\nright,1,0,0\n'
    )
    assert lines(tmp_path)[-1]["most_confused"] == [["left, far", "middle", 2], ["right", "left, far", 1]]
    events = read(tmp_path)
    assert [image.step for image in events.Images("val/confusion")] == [6, 12]
    assert picture(events, "val/confusion").shape[2] == 3


def test_offsets_become_histograms_lines_and_a_picture_over_epochs(tmp_path: Path) -> None:
    model = tin.build_model("tin_resnet18", 3, NUM_SEGMENTS)
    loader = MemoryLoader(8, training=False)
    log = RunLog(tmp_path, 0, recipe())
    for epoch in (1, 2):
        with OffsetProbe(model) as probe, torch.no_grad():
            for batch in loader:
                model.eval()(batch.frames)
        shifts = probe.shifts()
        log.offsets(6 * epoch, epoch, shifts)
    log.close()
    resumed = RunLog(tmp_path, 6, recipe())
    resumed.offsets(12, 2, shifts)
    resumed.close()
    entries = [json.loads(line) for line in (tmp_path / "offsets.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in entries] == [1, 2, 2]
    block = entries[1]["blocks"]["layer2.1"]
    expected = next(shift for shift in shifts if shift.name == "layer2.1").offsets
    assert entries[1]["clips"] == len(expected) == 8
    assert block["mean"] == pytest.approx(expected.mean(0).tolist(), abs=1e-4)
    assert block["percentiles"][1][::2] == pytest.approx(
        [expected[:, 1].min().item(), expected[:, 1].median().item(), expected[:, 1].max().item()], abs=0.01
    )
    events = read(tmp_path)
    histogram = events.Histograms("offsets/layer2.1")[0]
    assert (histogram.step, histogram.histogram_value.num) == (6, 16)
    assert [image.step for image in events.Images("offsets over the epochs")] == [6, 12]


def test_a_network_without_offsets_leaves_none(tmp_path: Path) -> None:
    model = tin.build_model("tsm_resnet18", 3, NUM_SEGMENTS)
    with OffsetProbe(model) as probe, torch.no_grad():
        model.eval()(torch.randn(NUM_SEGMENTS, 3, 32, 32))
    log = RunLog(tmp_path, 0, recipe())
    log.offsets(1, 1, probe.shifts())
    log.close()
    assert read(tmp_path).Tags()["images"] == []


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond `limit` bytes: the operating system writes what fits and refuses the rest."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_stops_no_run_and_loses_nothing(tmp_path: Path) -> None:
    warnings: list[str] = []
    log = RunLog(tmp_path, 0, recipe(), warn=warnings.append)
    log.step(1, report())
    sizes = [path.stat().st_size for path in (tmp_path / "log.jsonl", *(tmp_path / "tensorboard").iterdir())]
    with full_disk(min(sizes) + 100):
        log.step(2, report())
        log.validation(2, 1, {"top1_acc": 0.5}, scores([0, 1] * 20, [0, 0] * 20))
        log.step(3, report())
        refused = [text for text in warnings if "waits in memory" in text]
        assert len(refused) == len(set(refused)) == 2, "one warning for each file, not one a line"
        assert [
            line["global_step"] for line in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines()[:-1])
        ] == [1]
    log.step(4, report())
    log.close()
    assert [line["global_step"] for line in lines(tmp_path)] == [1, 2, 2, 3, 4]
    assert [step for step, _ in scalars(read(tmp_path), "train/loss")] == [1, 2, 3, 4]
    assert sum("is written again" in text for text in warnings) == 2


@pytest.mark.parametrize("name", ["log.jsonl", "offsets.jsonl", "tensorboard"])
def test_what_cannot_be_made_is_named_at_the_start(tmp_path: Path, name: str) -> None:
    if name == "tensorboard":
        (tmp_path / name).write_text("a file where a folder belongs")
    else:
        (tmp_path / name).symlink_to(tmp_path / "nowhere" / name)
    with pytest.raises(TinError, match=rf"cannot (write|make) {tmp_path / name}: .*; choose another --work-dir"):
        RunLog(tmp_path, 0, recipe())


def outcome(loss: float, hits1: int, hits5: int, clips: int = 4, **changes: Any) -> Outcome:
    values = {"grad_norm": 1.0, "parameter_norms": 0.0, "skipped": 0.0, "scale": None, **changes}
    tensors = {name: None if value is None else torch.tensor(value) for name, value in values.items()}
    return Outcome(torch.tensor(loss), torch.tensor(hits1), torch.tensor(hits5), clips, **tensors)  # type: ignore[arg-type]


def test_the_meter_averages_over_clips_and_leaves_out_what_is_not_finite() -> None:
    meter = StepMeter(torch.device("cpu"))
    meter.add(outcome(1.0, 1, 2))
    meter.add(outcome(4.0, 2, 2, clips=2))
    meter.add(outcome(float("nan"), 0, 0, skipped=1.0, grad_norm=7.0, scale=512.0))
    averages, extra = meter.read(World(), 3.0, 0.0)
    assert averages.loss == pytest.approx((4 * 1.0 + 2 * 4.0) / 6)
    assert (averages.top1, averages.top5) == (3 / 6, 4 / 6)
    assert (averages.clips, averages.skipped, averages.grad_norm, averages.scale) == (10, 1, 7.0, 512.0)
    assert extra == [3.0, 0.0]
    assert 0 <= averages.data_wait <= 1
    nothing_good = StepMeter(torch.device("cpu"))
    nothing_good.add(outcome(float("inf"), 0, 0, skipped=1.0))
    assert np.isnan(nothing_good.read(World())[0].loss)
