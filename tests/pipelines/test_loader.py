"""The loader: each video once in testing, the same batches however it is run, resumable, and honest about bad videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines import Batch, ClipSpec, Loader, VideoIndex, VideoList
from pipelines.errors import BadVideosError, DataError, Failure, SettingsError
from pipelines.failures import Failures
from pipelines.loader import LoaderStats
from tests.pipelines.videos import codecs, listed, write_frames, write_video

SMALL = ClipSpec(num_segments=2, input_size=32, short_side=36)
Data = tuple[VideoList, VideoIndex]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Thirteen good videos, of several sizes and codecs."""
    folder = tmp_path_factory.mktemp("good")
    kinds = [("libx264", ".mp4"), ("libvpx-vp9", ".webm"), ("mjpeg", ".avi")]
    names = []
    for number in range(13):
        codec, suffix = kinds[number % 3]
        path = write_video(folder / f"{number}{suffix}", codec, frames=8 + number, size=(48 + 2 * number, 64))
        names.append(path.name)
    video_list = listed(folder, names)
    return video_list, VideoIndex.build(video_list, workers=0)


@pytest.fixture(scope="module")
def flawed(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Ten videos; the index knows that 3 is empty, and nobody knows yet that 6 ends early."""
    folder = tmp_path_factory.mktemp("flawed")
    names = [write_video(folder / f"{number}.mp4", frames=16).name for number in range(10)]
    (folder / "3.mp4").write_bytes(b"")
    video_list = listed(folder, names)
    index = VideoIndex.build(video_list, workers=0)
    write_video(folder / "6.mp4", frames=2)
    return video_list, index


def loader(data: Data, spec: ClipSpec = SMALL, **options: Any) -> Loader:
    return Loader(*data, spec, **{"batch_size": 4, "training": True, "num_workers": 1, **options})


def all_batches(data: Data, *, epoch: int = 0, start: int = 0, **options: Any) -> list[Batch]:
    with loader(data, **options) as source:
        source.set_epoch(epoch, start)
        return list(source)


def assert_same(some: list[Batch], others: list[Batch]) -> None:
    assert [b.ids.tolist() for b in some] == [b.ids.tolist() for b in others]
    for a, b in zip(some, others, strict=True):
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.labels, b.labels)


def test_shapes_types_and_memory(data: Data) -> None:
    batches = all_batches(data)
    assert len(batches) == 3
    for batch in batches:
        assert batch.frames.shape == (8, 3, 32, 32)
        assert batch.frames.dtype == torch.float32
        assert batch.frames.is_contiguous(memory_format=torch.channels_last)
        assert batch.labels.dtype == torch.int64
        assert batch.ids.dtype == np.int64
        assert batch.labels.tolist() == batch.ids.tolist()
        assert batch.num_views == 1


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_testing_visits_each_video_once_at_every_world_size(data: Data, world_size: int) -> None:
    options = {"training": False, "world_size": world_size, "num_workers": 0}
    ranks = [all_batches(data, rank=rank, **options) for rank in range(world_size)]
    ids = [int(id) for batches in ranks for batch in batches for id in batch.ids]
    assert sorted(ids) == list(range(13))
    assert all(0 < len(batch.ids) <= 4 for batches in ranks for batch in batches)
    assert len({len(loader(data, rank=rank, **options)) for rank in range(world_size)}) == 1


def test_the_number_of_workers_changes_nothing(data: Data) -> None:
    alone = all_batches(data, num_workers=0, epoch=2)
    assert_same(alone, all_batches(data, num_workers=1, epoch=2))
    assert_same(alone, all_batches(data, num_workers=3, prefetch=1, epoch=2))


def test_two_ranks_share_the_batches_of_one(data: Data) -> None:
    one = all_batches(data, batch_size=4)
    two = [all_batches(data, batch_size=2, world_size=2, rank=rank, num_workers=0) for rank in range(2)]
    assert len(one) == len(two[0]) == len(two[1])
    for whole, left, right in zip(one, *two, strict=True):
        assert whole.ids.tolist() == [*left.ids, *right.ids]
        assert torch.equal(whole.frames, torch.cat([left.frames, right.frames]))


def test_resuming_meets_the_same_batches(data: Data) -> None:
    assert_same(all_batches(data, epoch=5)[1:], all_batches(data, epoch=5, start=1))
    assert all_batches(data, epoch=5, start=3) == []


def drive(source: Loader, epochs: int, stop_after: int | None = None) -> list[list[int]]:
    """The training loop of the documentation, from wherever the loader stands; the ids of each batch."""
    seen: list[list[int]] = []
    for epoch in range(source.epoch, epochs):
        source.set_epoch(epoch)
        for batch in source:
            seen.append(batch.ids.tolist())
            if len(seen) == stop_after:
                return seen
    return seen


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 6, 8])
def test_a_saved_state_goes_on_at_the_very_next_sample(data: Data, stop: int) -> None:
    with loader(data, prefetch=3) as source:
        whole = drive(source, 3)
    with loader(data, prefetch=3) as source:
        before = drive(source, 3, stop_after=stop)
        state = json.loads(json.dumps(source.state_dict()))  # it is plain
    with loader(data, num_workers=0) as other:
        other.load_state_dict(state)
        assert other.state_dict() == state
        assert before + drive(other, 3) == whole


def test_a_state_counts_what_was_received_and_not_what_was_made_ahead(data: Data) -> None:
    with loader(data, batch_size=2, prefetch=4) as source:
        samples = [source.state_dict()["sample"]]
        source.set_epoch(7)
        for _ in source:
            samples.append(source.state_dict()["sample"])
        assert samples == [0, 2, 4, 6, 8, 10, 12]
        assert (source.state_dict()["epoch"], source.state_dict()["sample"]) == (7, 12)
        next(iter(source))  # the epoch anew
        assert source.state_dict()["sample"] == 2
        source.set_epoch(8)
        assert (source.state_dict()["epoch"], source.state_dict()["sample"]) == (8, 0)
    with loader(data, batch_size=8, training=False) as source:
        assert [source.state_dict()["sample"] for _ in source] == [8, 16]  # global batches, the last one partial


@pytest.mark.parametrize(("world_size", "batch_size"), [(2, 3), (3, 2), (6, 1)])
def test_another_world_size_goes_on_at_the_same_global_sample(data: Data, world_size: int, batch_size: int) -> None:
    expected = all_batches(data, batch_size=6, epoch=4)[1:]
    with loader(data, batch_size=6) as source:
        source.set_epoch(4)
        next(iter(source))
        state = source.state_dict()
    shares = []
    for rank in range(world_size):
        options: dict[str, Any] = {"batch_size": batch_size, "world_size": world_size, "num_workers": 0}
        with loader(data, rank=rank, **options) as source:
            source.load_state_dict(state)
            shares.append(list(source))
            assert source.state_dict()["sample"] == 12
    assert len(expected) == 1
    for step, whole in enumerate(expected):
        parts = [share[step] for share in shares]
        assert whole.ids.tolist() == [id for part in parts for id in part.ids]
        assert torch.equal(whole.frames, torch.cat([part.frames for part in parts]))


@pytest.mark.parametrize("class_balanced", [0.0, 1.0])
def test_going_on_at_another_global_batch_loses_and_repeats_nothing(data: Data, class_balanced: float) -> None:
    """Two ranks of 2, then one of 3, then two of 1: the ids that they receive in turn are the order of one long run."""
    options: dict[str, Any] = {"num_workers": 0, "class_balanced": class_balanced}
    with loader(data, batch_size=1, **options) as source:
        source.set_epoch(6)
        batches = [(batch.ids.tolist(), batch.frames) for batch in source]
    whole, clips = [ids[0] for ids, _ in batches], [frames for _, frames in batches]
    assert len(whole) == 13
    seen: list[int] = []
    state: dict[str, Any] = {}
    for world_size, batch_size, steps, left in ((2, 2, 1, 3), (1, 3, 2, 3), (2, 1, None, 1)):
        shares: list[list[Batch]] = []
        states = []
        for rank in range(world_size):
            with loader(data, rank=rank, world_size=world_size, batch_size=batch_size, **options) as source:
                if state:
                    source.load_state_dict(state)
                    assert (source.epoch, source.state_dict()["sample"]) == (6, len(seen))
                source.set_epoch(6)
                assert source.steps_left == left
                iterator = iter(source)
                shares.append([])
                for batch in iterator:
                    shares[-1].append(batch)
                    assert source.steps_left == left - len(shares[-1])
                    if len(shares[-1]) == steps:
                        break
                states.append(json.loads(json.dumps(source.state_dict())))
        assert all(other == states[0] for other in states)
        state = states[0]
        for parts in zip(*shares, strict=True):
            for part in parts:
                frames = part.frames.reshape(len(part.ids), -1, *part.frames.shape[1:])
                for id, clip in zip(part.ids.tolist(), frames, strict=True):
                    assert id == whole[len(seen)]
                    assert torch.equal(clip, clips[len(seen)])
                    seen.append(id)
        assert state["sample"] == len(seen)
    assert seen == whole[:12]  # the last one fills no global batch of 2


def test_an_epoch_starts_at_any_sample(data: Data) -> None:
    order = [id for batch in all_batches(data, batch_size=1, epoch=3, num_workers=0) for id in batch.ids.tolist()]
    with loader(data, num_workers=0) as source:
        for start, left in ((0, 3), (1, 3), (2, 2), (5, 2), (9, 1), (10, 0), (13, 0), (16, 0)):
            source.set_epoch(3, start_sample=start)
            assert source.steps_left == left
            assert source.state_dict()["sample"] == start
            ids = [id for batch in source for id in batch.ids.tolist()]
            assert ids == order[start : start + 4 * left]
            assert (source.steps_left, source.state_dict()["sample"]) == (0, start + 4 * left)
        assert len(source) == len(list(source)) == 3
    with loader(data, training=False, num_workers=0) as source:
        for start, sizes in ((9, [4]), (7, [4, 2]), (13, [])):
            source.set_epoch(0, start_sample=start)
            assert source.steps_left == len(sizes)
            assert [len(batch.ids) for batch in source] == sizes


def test_repeats_keep_their_global_batches_whole(data: Data) -> None:
    with loader(data, batch_size=6, repeats=2, num_workers=0) as source:
        source.set_epoch(1)
        start = source.state_dict()
        expected = [batch.ids.tolist() for batch in source]
        source.set_epoch(1, start_sample=12)
        assert source.steps_left == 2
        assert [batch.ids.tolist() for batch in source] == expected[2:]
        with pytest.raises(SettingsError, match=r"start_sample 8 is no multiple of the global batch \(6 clips"):
            source.set_epoch(1, start_sample=8)
        source.set_epoch(1)
        next(iter(source))
        within = source.state_dict()
    with loader(data, batch_size=4, repeats=2, num_workers=0) as source:
        with pytest.raises(DataError, match=r"another global batch .* with repeats .* global_batch 6, here 4"):
            source.load_state_dict(within)
        source.load_state_dict(start)  # between two epochs it makes no difference
        assert (source.epoch, source.steps_left) == (1, 6)


def test_a_loaded_state_gives_way_to_a_chosen_step_and_to_another_epoch(data: Data) -> None:
    with loader(data, num_workers=0) as source:
        source.set_epoch(2)
        next(iter(source))
        state = source.state_dict()
        for epoch, step, left in ((2, None, 2), (2, 0, 3), (3, None, 3), (2, 1, 2)):
            source.load_state_dict(state)
            source.set_epoch(epoch, step)
            assert len(list(source)) == left
        source.load_state_dict(state)
        source.set_epoch(2, start_sample=1)
        assert len(list(source)) == 3
        source.set_epoch(2)  # the state was used up
        assert len(list(source)) == 3


def test_states_of_another_order_are_refused_and_say_why(data: Data, flawed: Data) -> None:
    with loader(data) as source:
        state = source.state_dict()
    for options, message in (
        ({"seed": 1}, "of another seed: seed 0, here 1"),
        ({"training": False}, "the other mode"),
        ({"repeats": 2}, "another number of repeats"),
        ({"class_balanced": 0.5}, "another class balance"),
    ):
        with loader(data, num_workers=0, **options) as source, pytest.raises(DataError, match=message):
            source.load_state_dict(state)
    with loader(flawed, num_workers=0) as source:
        with pytest.raises(DataError, match="of another list"):
            source.load_state_dict(state)
        with pytest.raises(DataError, match=r"no state of a loader: version, list"):
            source.load_state_dict({"model": 1})


def test_moving_the_data_keeps_its_state_and_another_label_does_not(tmp_path: Path) -> None:
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        write_video(tmp_path / place / "a.mp4", frames=4)
    states = []
    for place, line in (("here", "a.mp4 1"), ("there", "a.mp4 1"), ("there", "a.mp4 2")):
        (tmp_path / "l.txt").write_text(line)
        video_list = VideoList.read(tmp_path / "l.txt", tmp_path / place)
        with loader((video_list, VideoIndex.build(video_list, workers=0)), num_workers=0) as source:
            states.append(source.state_dict())
    assert states[0] == states[1] != states[2]


def test_epochs_and_abandoned_iterations_do_not_mix(data: Data) -> None:
    expected = {epoch: all_batches(data, num_workers=0, epoch=epoch) for epoch in (0, 1)}
    with loader(data, num_workers=2) as source:
        for _ in range(3):
            source.set_epoch(0)
            next(iter(source))
            source.set_epoch(1)
            assert_same(list(source), expected[1])
        source.set_epoch(0)
        assert_same(list(source), expected[0])
    assert not torch.equal(expected[0][0].frames, expected[1][0].frames)


def test_kept_batches_stay_as_they_are_even_after_closing(data: Data) -> None:
    kept, copies = [], []
    with loader(data, batch_size=1) as source:
        for batch in source:
            kept.append(batch.frames)
            copies.append(batch.frames.clone())
    assert len(kept) == 13
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


def test_a_list_shorter_than_a_batch_is_repeated_in_training_only(data: Data) -> None:
    (batch,) = all_batches(data, batch_size=20)
    assert len(batch.ids) == 20
    assert set(batch.ids) == set(range(13))
    (batch,) = all_batches(data, batch_size=20, training=False)
    assert batch.ids.tolist() == list(range(13))


def test_views_and_types(data: Data) -> None:
    spec = ClipSpec(num_segments=3, input_size=16, short_side=20, test_crop="three", test_sampling="twice")
    (batch, *_) = all_batches(data, spec=spec, training=False, dtype="bfloat16")
    assert batch.frames.shape == (4 * 6 * 3, 3, 16, 16)
    assert batch.frames.dtype == torch.bfloat16
    assert batch.num_views == 6


def test_lists_without_labels_give_minus_one(data: Data, tmp_path: Path) -> None:
    entry = data[0].entries[0]
    (tmp_path / "l.txt").write_text(f"{entry.path}\n")
    video_list = VideoList.read(tmp_path / "l.txt")
    (batch,) = all_batches((video_list, VideoIndex.build(video_list, workers=0)), training=False)
    assert batch.labels.tolist() == [-1]


def test_bad_videos_are_left_out_of_testing_and_named(flawed: Data) -> None:
    with loader(flawed, training=False) as source:
        assert sorted(int(id) for batch in source for id in batch.ids) == [0, 1, 2, 4, 5, 7, 8, 9]
        assert [(f.id, f.name) for f in source.failures] == [(3, "3.mp4"), (6, "6.mp4")]
        assert "empty" in source.failures[0].reason
        assert "only 2 frames decode" in source.failures[1].reason
        assert source.stats().bad == 2
        assert source.stats().clips == 8


def test_bad_videos_have_the_same_substitutes_however_training_is_run(flawed: Data) -> None:
    runs = []
    for options in ({"num_workers": 0}, {"num_workers": 2}, {"num_workers": 1, "prefetch": 5}):
        with loader(flawed, batch_size=5, **options) as source:
            runs.append(list(source))
            assert [f.id for f in source.failures] == [3, 6]
            assert source.stats().bad == 2
            assert source.stats().clips == 10
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])
    used = [int(id) for batch in runs[0] for id in batch.ids]
    assert len(used) == 10
    assert not {3, 6} & set(used)
    assert [int(label) for batch in runs[0] for label in batch.labels] == used  # a substitute brings its own label


def test_a_limit_on_bad_videos(flawed: Data) -> None:
    with pytest.raises(DataError, match=r"1 of 10 videos unreadable \(3.mp4: is empty.*max_bad"):
        loader(flawed, max_bad=0.05)
    with loader(flawed, max_bad=0.1, training=False) as source, pytest.raises(DataError, match=r"2 of 10.*6\.mp4"):
        list(source)
    assert len(all_batches(flawed, max_bad=0.2, training=False)) == 3


def test_a_rank_of_several_goes_on_in_training_until_all_compare_their_failures(flawed: Data) -> None:
    """Of ten, 3 and 6 are bad; alone neither passes a limit of two, with a third of another rank they do."""
    with loader(flawed, max_bad=0.1, world_size=2, batch_size=5, num_workers=0) as source:
        for epoch in range(3):
            source.set_epoch(epoch)
            assert all(len(batch.ids) == 5 for batch in source)
        assert [failure.id for failure in source.failures] == [3, 6]
        with pytest.raises(BadVideosError, match=r"2 of 10.*at most 10 % may be") as raised:
            source.check_failures()
        assert [failure.id for failure in raised.value.failures] == [3, 6]
    with loader(flawed, max_bad=0.2, world_size=2, batch_size=5, num_workers=0) as source:
        source.check_failures(source.failures)
        mine = Failure(6, "6.mp4", "damaged")
        source.check_failures([mine, mine])
        with pytest.raises(BadVideosError, match=r"3 of 10 .*3\.mp4: is empty.*; 6\.mp4: damaged; 8\.mp4: gone"):
            source.check_failures([Failure(8, "8.mp4", "gone"), mine])


@pytest.mark.parametrize("total", [7, 100, 300])
def test_a_limit_that_is_just_met_is_kept(total: int) -> None:
    for bad in range(total + 1):
        failures = Failures(total, bad / total)
        failures.check(Failure(id, str(id), "") for id in range(bad))
        if bad < total:
            with pytest.raises(BadVideosError):
                failures.check(Failure(id, str(id), "") for id in range(bad + 1))


def test_nothing_readable_is_refused_at_once(tmp_path: Path) -> None:
    video_list = listed(tmp_path, ["a.mp4", "b.mp4"])
    with pytest.raises(DataError, match=r"none of its 2 videos.*a\.mp4: no such file.*root"):
        loader((video_list, VideoIndex.build(video_list, workers=0)))


def test_every_codec_size_and_rotation_in_one_batch(real_videos: Path, tmp_path: Path) -> None:
    rows = codecs(real_videos)
    video_list = listed(tmp_path, [row["file"] for row in rows], real_videos / "codecs")
    data = video_list, VideoIndex.build(video_list)
    with loader(data, training=False, batch_size=64, num_workers=2) as source:
        (batch,) = source
        failed = {failure.name: failure.reason for failure in source.failures}
    assert set(failed) == {"audio_only_nasa.mp3", "corrupted.mp4"}
    assert len(batch.ids) == len(rows) - 2
    assert torch.isfinite(batch.frames).all()


def test_frame_folders_and_a_broken_image_among_them(tmp_path: Path) -> None:
    for number in range(4):
        write_frames(tmp_path / str(number), 6)
    (tmp_path / "l.txt").write_text("".join(f"{number} 6 {number}\n" for number in range(4)))
    video_list = VideoList.read(tmp_path / "l.txt")
    data = video_list, VideoIndex.build(video_list, workers=0)
    (whole,) = all_batches(data, training=False)
    assert whole.frames.shape == (8, 3, 32, 32)
    for image in (tmp_path / "2").iterdir():
        if image.name != "00001.jpg":
            image.write_bytes(image.read_bytes()[:20])
    with loader(data, training=False) as source:
        (batch,) = source
        assert batch.ids.tolist() == [0, 1, 3]
        assert [f.id for f in source.failures] == [2]
    torch.testing.assert_close(batch.frames[:4], whole.frames[:4])
    with loader(data, batch_size=8) as source:
        (batch,) = source
        assert 2 not in batch.ids
        assert len(batch.ids) == 8
    assert_same([batch], all_batches(data, batch_size=8))


def test_a_broken_folder_costs_no_other_clip_of_the_batches_under_way(tmp_path: Path) -> None:
    for number in range(12):
        write_frames(tmp_path / str(number), 6)
    names: list[str | Path] = [str(number) for number in range(12)]
    names.insert(5, write_video(tmp_path / "video.mp4"))  # through another graph, which is rebuilt with the other
    video_list = listed(tmp_path, names)
    data = video_list, VideoIndex.build(video_list, workers=0)
    whole = {int(batch.ids[0]): batch.frames for batch in all_batches(data, training=False, batch_size=1)}
    for number in (4, 6, 7):
        for image in (tmp_path / str(number)).iterdir():
            image.write_bytes(image.read_bytes()[:20])
    with loader(data, training=False, batch_size=2) as source:
        batches = list(source)
        assert [failure.name for failure in source.failures] == ["4", "6", "7"]
    assert [id for batch in batches for id in batch.ids] == [0, 1, 2, 3, 5, 6, 9, 10, 11, 12]
    for batch in batches:
        for id, frames in zip(batch.ids, batch.frames.split(2), strict=True):
            torch.testing.assert_close(frames, whole[int(id)])


def test_an_iteration_that_another_has_ended_says_nothing_about_the_place(data: Data) -> None:
    with loader(data, batch_size=2) as source:
        first = iter(source)
        next(first)
        second = iter(source)
        next(second), next(second)
        assert list(first) == []
        assert source.state_dict()["sample"] == 4
        source.close()
        assert len(list(second)) < 4
        assert source.state_dict()["sample"] <= 8


@pytest.mark.parametrize("spec", [SMALL, ClipSpec(num_segments=2, input_size=36, short_side=36, test_crop="three")])
def test_files_and_frame_folders_mix_in_a_batch_and_each_clip_is_as_it_is_alone(tmp_path: Path, spec: ClipSpec) -> None:
    names = []
    for number in range(7):
        if number % 3:
            names.append(write_video(tmp_path / f"{number}.mp4", frames=8 + number).name)
        else:
            names.append(write_frames(tmp_path / str(number), 6 + number, template="img_{:05}.jpg").name)
    video_list = listed(tmp_path, names)
    data = video_list, VideoIndex.build(video_list, workers=0)
    for training in (False, True):
        options: dict[str, Any] = {"spec": spec, "training": training}
        for batch in all_batches(data, batch_size=7, **options):
            assert len(batch.ids) == 7
            assert batch.frames.is_contiguous(memory_format=torch.channels_last)
            assert batch.labels.tolist() == batch.ids.tolist()
            clips = batch.frames.unflatten(0, (7, -1))
            alone = {int(one.ids[0]): one.frames for one in all_batches(data, batch_size=1, **options)}
            for id, clip in zip(batch.ids, clips, strict=True):
                torch.testing.assert_close(clip, alone[int(id)], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("batch_size", 0), ("batch_size", 2.0), ("seed", -1), ("rank", 1), ("world_size", 0), ("num_workers", -1),
        ("prefetch", 0), ("max_bad", 2), ("dtype", "float64"), ("device", "tpu"), ("device", "mps"),
    ],
)  # fmt: skip
def test_impossible_arguments_are_refused_by_name(data: Data, option: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=option):
        loader(data, **{option: value})


def test_closed_loaders_and_wrong_steps_are_refused(data: Data) -> None:
    source = loader(data, num_workers=0)
    with pytest.raises(SettingsError, match="start_step 4"):
        source.set_epoch(0, 4)
    with pytest.raises(SettingsError, match="start_sample -1"):
        source.set_epoch(0, start_sample=-1)
    with pytest.raises(SettingsError, match="start_step 1 and start_sample 4 say the same"):
        source.set_epoch(0, 1, start_sample=4)
    source.close()
    source.close()
    with pytest.raises(DataError, match="closed"):
        next(iter(source))


@pytest.mark.parametrize(("kind", "least", "most"), [("mjpeg.avi", 2, 2), ("libx264.mp4", 4, 10), ("folder", 2, 2)])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_stats_count_clips_frames_and_what_decoding_cost(
    tmp_path: Path, num_workers: int, kind: str, least: int, most: int
) -> None:
    """Of 16 frames in two groups of eight, 4 and 12 are wanted: those before them in their groups are needed, but for some
    B-frames; images and MJPEG need no other frame."""
    codec, _, suffix = kind.partition(".")
    names = []
    for number in range(4):
        if suffix:
            names.append(write_video(tmp_path / f"{number}.{suffix}", codec, frames=16).name)
        else:
            names.append(write_frames(tmp_path / str(number), 16).name)
    video_list = listed(tmp_path, names)
    data = video_list, VideoIndex.build(video_list, workers=0)
    spec = ClipSpec(num_segments=2, input_size=32, short_side=36, test_crop="three")
    with loader(data, spec, training=False, num_workers=num_workers) as source:
        assert source.stats() == LoaderStats(0, 0, 0, 0.0, 0.0, 0)
        assert len(list(source)) == 1
        stats = source.stats()
    assert (stats.clips, stats.frames_used, stats.bad) == (4, 4 * 2, 0)
    assert 4 * least <= stats.frames_decoded <= 4 * most
    assert (stats.decode_seconds > 0) == bool(suffix)  # DALI decodes images
    assert stats.wait_seconds > 0
