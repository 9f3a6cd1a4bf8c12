"""The motion data set: what its videos show, that its files are what they should be, and that a run can be trusted."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.annotations import VideoList
from pipelines.errors import DataError
from pipelines.motion import CLASSES, MOTIONS, MotionSettings, plan_scenes, render_scene, reversed_label, write_motion
from pipelines.reversals import read_reversals

TINY = MotionSettings(train=16, val=8, size=64, frames=8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("motion") / "tiny"
    write_motion(out, TINY, workers=1)
    return out


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_lists_name_every_file_once_with_its_class(tiny: Path) -> None:
    entries = []
    for split, count in (("train", 16), ("val", 8)):
        videos = VideoList.read(tiny / f"{split}.txt")
        assert len(videos) == count
        assert videos.labels == list(CLASSES)
        assert Counter(entry.label for entry in videos.entries) == dict.fromkeys(range(8), count // 8)
        for entry in videos.entries:
            assert entry.label is not None
            assert entry.id.startswith(f"videos/{split}/")
            assert entry.path.stem.endswith(f"_{CLASSES[entry.label]}")
        entries += videos.entries
    assert sorted(entry.path for entry in entries) == sorted((tiny / "videos").rglob("*.*"))


def test_reversals_file_pairs_each_class_with_its_opposite(tiny: Path) -> None:
    pairs = read_reversals(tiny / "train.txt")
    assert {(CLASSES[a], CLASSES[b]) for a, b in pairs.items()} == {*MOTIONS, *((b, a) for a, b in MOTIONS)}
    assert all(reversed_label(a) == b for a, b in pairs.items())


@pytest.mark.parametrize(("train", "val"), [(1600, 400), (64, 32), (8, 8)])
def test_twins_share_scene_codec_and_split_and_carry_opposite_labels(train: int, val: int) -> None:
    scenes = plan_scenes(MotionSettings(train=train, val=val))
    labels = Counter()
    for scene in scenes:
        (first, a), (second, b) = scene.clips()
        assert b == reversed_label(a)
        assert Path(first).parent == Path(second).parent == Path("videos", scene.split)
        assert Path(first).suffix == Path(second).suffix
        labels.update([(scene.split, a), (scene.split, b)])
    assert set(labels.values()) == {train // 8, val // 8}
    assert len({(scene.split, scene.number) for scene in scenes}) == len(scenes)


def test_both_codecs_hold_every_class_and_both_senses_of_drawing_equally_often() -> None:
    scenes = plan_scenes(MotionSettings(train=1600, val=384))
    counts = Counter((scene.split, scene.label, scene.codec) for scene in scenes)
    assert len(counts) == 2 * 8 * 2
    assert {count for (split, *_), count in counts.items() if split == "train"} == {50}
    assert {count for (split, *_), count in counts.items() if split == "val"} == {12}


def test_files_are_the_codecs_they_say_with_every_frame_a_key_frame(tiny: Path) -> None:
    seen = Counter()
    for path in sorted((tiny / "videos").rglob("*.*")):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = list(container.decode(stream))
            seen[path.suffix, stream.codec_context.codec.canonical_name] += 1
            assert (stream.width, stream.height, stream.average_rate) == (64, 64, 25)
        assert len(frames) == 8
        assert all(frame.key_frame for frame in frames)
    assert seen == {(".mp4", "h264"): 12, (".webm", "vp9"): 12}


def test_decoded_video_is_the_rendered_scene(tiny: Path) -> None:
    for scene in plan_scenes(TINY)[::3]:
        frames = render_scene(scene, TINY)
        with av.open(str(tiny / scene.clips()[0][0])) as container:
            decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        assert np.abs(decoded.astype(float) - frames).mean() < 12
        assert np.corrcoef(decoded.ravel(), frames.ravel())[0, 1] > 0.95


def test_frames_and_files_are_bit_identical_for_a_seed_and_any_number_of_workers(tiny: Path, tmp_path: Path) -> None:
    write_motion(tmp_path / "again", TINY, workers=2)
    assert digests(tmp_path / "again") == digests(tiny)
    other = MotionSettings(train=16, val=8, size=64, frames=8, seed=1)
    scene = plan_scenes(TINY)[0]
    assert np.array_equal(render_scene(scene, TINY), render_scene(scene, TINY))
    assert not np.array_equal(render_scene(scene, TINY), render_scene(scene, other))


def test_training_and_validation_share_no_scene() -> None:
    frames = [render_scene(scene, TINY).tobytes() for scene in plan_scenes(TINY)]
    assert len(set(frames)) == len(frames)


def test_interrupted_run_is_completed_and_finished_files_are_kept(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_motion(out, TINY, workers=1)
    files = sorted((out / "videos").rglob("*.*"))
    kept = files[-1].stat().st_mtime_ns
    files[0].unlink()
    (out / "val.txt").unlink()
    calls: list[tuple[int, int]] = []
    summary = write_motion(out, TINY, workers=1, progress=lambda done, total: calls.append((done, total)))
    assert (summary.written, summary.reused) == (2, 22)
    assert calls == [(22, 24), (24, 24)]
    assert files[-1].stat().st_mtime_ns == kept
    assert digests(out) == digests(tiny)


def test_failed_render_leaves_no_file_that_looks_finished(tmp_path: Path) -> None:
    from pipelines.motion.encode import write_video

    with pytest.raises(Exception, match=r"."):
        write_video(tmp_path / "odd.mp4", np.zeros((2, 31, 31, 3), np.uint8), "libx264")  # H.264 4:2:0 has no odd sizes
    assert not (tmp_path / "odd.mp4").exists()


def test_folder_of_other_settings_or_other_content_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"of seed 0, not 3; name another folder"):
        write_motion(tiny, MotionSettings(train=16, val=8, size=64, frames=8, seed=3), workers=1)
    (tmp_path / "train.txt").write_text("mine.mp4 0\n")
    with pytest.raises(DataError, match="is not empty and no motion data set"):
        write_motion(tmp_path, TINY, workers=1)
    assert (tmp_path / "train.txt").read_text() == "mine.mp4 0\n"
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "motion.json").write_text("[]")
    with pytest.raises(DataError, match="is not what this command wrote"):
        write_motion(broken, TINY, workers=1)
    blocked = tmp_path / "train.txt" / "below"
    with pytest.raises(DataError, match=r"cannot write the motion data set to .*below"):
        write_motion(blocked, TINY, workers=1)


def test_settings_file_says_what_was_rendered(tiny: Path) -> None:
    settings = json.loads((tiny / "motion.json").read_text())
    assert settings == {"renderer": 1, "train": 16, "val": 8, "size": 64, "frames": 8, "seed": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 12}, "train 12: give a positive multiple of 8"),
        ({"val": 0}, "val 0: give a positive multiple of 8"),
        ({"size": 65}, "size 65: give an even number"),
        ({"size": 16}, "size 16: give an even number of at least 32"),
        ({"frames": 16}, "frames 16: give 8 times an odd number"),
        ({"frames": 20}, "frames 20: give 8 times an odd number"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_settings_that_would_break_a_promise_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        MotionSettings(**change)
