"""The motion data set on disk: which clips there are, rendered by parallel processes, and its list files."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipelines.errors import DataError
from pipelines.motion.encode import CODECS, write_video
from pipelines.motion.scene import CLASSES, MOTIONS, render, reversed_label

SETTINGS_FILE = "motion.json"
_RENDERER = 1  # part of the settings; raise it when the same settings draw other frames or encode them differently


@dataclass(frozen=True, kw_only=True)
class MotionSettings:
    """What decides every byte of the data set.

    Attributes:
        train, val: clips in each list; multiples of 8, so that every class has as many.
        size: width and height in pixels; even. NVIDIA's hardware decoder takes VP9 from 128 × 128 on.
        frames: frames a clip: 8 × an odd number, so that the middle of each of 8 segments is a frame, and the test frames of a
            clip are those of its reversed twin.
        seed: of all random draws.
    """

    train: int = 1600
    val: int = 400
    size: int = 128
    frames: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train", "val"):
            count = getattr(self, name)
            if count < len(CLASSES) or count % len(CLASSES):
                raise DataError(f"{name} {count}: give a positive multiple of {len(CLASSES)}, the number of classes")
        if self.size < 32 or self.size % 2:
            raise DataError(f"size {self.size}: give an even number of at least 32 pixels")
        if self.frames < 8 or self.frames % 16 != 8:
            raise DataError(
                f"frames {self.frames}: give 8 times an odd number (8, 24, 40, …), so that a clip and its reversed twin are "
                "tested on the same frames"
            )
        if self.seed < 0:
            raise DataError(f"seed {self.seed}: give a number that is not negative")


@dataclass(frozen=True)
class Scene:
    """One rendered scene, written twice: forwards and, as its twin, backwards.

    Attributes:
        split: "train" or "val"; twins are always in the same.
        number: counts within the split.
        label: class index of the forward clip; the twin's is `reversed_label(label)`.
        codec: of both files.
    """

    split: str
    number: int
    label: int
    codec: str

    def clips(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """(path relative to the data set, label) of the forward clip and of its twin."""
        labels = (self.label, reversed_label(self.label))
        first, second = (
            (f"videos/{self.split}/{self.number:05d}_{CLASSES[label]}{CODECS[self.codec]}", label) for label in labels
        )
        return first, second


@dataclass(frozen=True)
class MotionSummary:
    """How many clip files were written now, and how many an earlier run had already finished."""

    written: int
    reused: int


def plan_scenes(settings: MotionSettings) -> list[Scene]:
    """Every scene of the data set, train then val. Classes and codecs take turns, so both are balanced in each split."""
    codecs = tuple(CODECS)
    scenes = []
    for split in ("train", "val"):
        for number in range(getattr(settings, split) // 2):
            pair, turn = number % len(MOTIONS), number // len(MOTIONS)
            # Codec, class and the sense in which the scene is drawn take turns independently of each other.
            scenes.append(Scene(split, number, 2 * pair + turn % 2, codecs[(turn // 2 + pair) % 2]))
    return scenes


def render_scene(scene: Scene, settings: MotionSettings) -> npt.NDArray[np.uint8]:
    """The frames of the forward clip, (frames, size, size, 3) uint8; the twin's are these reversed."""
    seed = np.random.SeedSequence(settings.seed, spawn_key=(("train", "val").index(scene.split), scene.number))
    return render(scene.label, settings.frames, settings.size, np.random.default_rng(seed))


def write_motion(
    out: Path,
    settings: MotionSettings | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> MotionSummary:
    """Write the motion data set to the folder `out`: `train.txt`, `val.txt`, `labels.txt`, `videos/`,
    `reversals.txt` (which class a clip of another shows backwards) and `motion.json` (the settings).

    A run that was interrupted is completed by running it again: finished files are kept.

    Args:
        out: created if needed.
        settings: `MotionSettings()` by default.
        workers: rendering processes; all cores by default. They are spawned, so call this under `if __name__ == "__main__"`.
        progress: called with (clips done, clips in all).

    Raises:
        DataError: `out` holds a data set of other settings or of another kind, or cannot be written.
    """
    settings = settings or MotionSettings()
    scenes = plan_scenes(settings)
    total = 2 * len(scenes)
    try:
        _claim(out, settings)
        for split in ("train", "val"):
            (out / "videos" / split).mkdir(parents=True, exist_ok=True)
        missing = [scene for scene in scenes if not all((out / path).is_file() for path, _ in scene.clips())]
        reused = total - 2 * len(missing)
        done = reused
        if progress:
            progress(done, total)
        for count in _render_all(out, settings, missing, workers or os.cpu_count() or 1):
            done += count
            if progress:
                progress(done, total)
        for split in ("train", "val"):
            clips = [clip for scene in scenes if scene.split == split for clip in scene.clips()]
            _write_text(out / f"{split}.txt", "".join(f"{path} {label}\n" for path, label in clips))
        _write_text(out / "labels.txt", "".join(f"{name}\n" for name in CLASSES))
        pairs = ((CLASSES.index(first), CLASSES.index(second)) for first, second in MOTIONS)
        _write_text(out / "reversals.txt", "".join(f"{first} {second}\n" for first, second in pairs))
    except OSError as error:
        raise DataError(f"cannot write the motion data set to {out}: {error.strerror or error}") from error
    return MotionSummary(written=total - reused, reused=reused)


def _claim(out: Path, settings: MotionSettings) -> None:
    """Mark `out` as the home of these settings, or refuse it."""
    wanted = {"renderer": _RENDERER, **asdict(settings)}
    path = out / SETTINGS_FILE
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DataError(f"{path} is not what this command wrote; name another folder or remove {out}")
        changed = [f"{key} {found.get(key)}, not {value}" for key, value in wanted.items() if found.get(key) != value]
        if changed:
            raise DataError(f"{out} holds a motion data set of {', '.join(changed)}; name another folder or remove it")
        return
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise DataError(f"{out} is not empty and no motion data set; name another folder")
    _write_text(path, json.dumps(wanted, indent=2) + "\n")


def _render_all(out: Path, settings: MotionSettings, scenes: list[Scene], workers: int) -> Iterator[int]:
    """Write the scenes; yields the number of clips each finished batch has written."""
    batches = [scenes[i : i + 8] for i in range(0, len(scenes), 8)]
    if workers == 1 or len(batches) <= 1:
        for batch in batches:
            yield _write_scenes(out, settings, batch)
        return
    # spawned, because forking a process that has decoded video can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(batches)), mp_context=context) as pool:
        tasks = [pool.submit(_write_scenes, out, settings, batch) for batch in batches]
        try:
            for task in as_completed(tasks):
                yield task.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_scenes(out: Path, settings: MotionSettings, scenes: list[Scene]) -> int:
    for scene in scenes:
        frames = render_scene(scene, settings)
        (forward, _), (backward, _) = scene.clips()
        write_video(out / forward, frames, scene.codec)
        write_video(out / backward, frames[::-1], scene.codec)
    return 2 * len(scenes)


def _write_text(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
