"""`tin-cli predict` as a user types it, on real videos: tables, JSON lines, overlays, and every failure by its file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.probe import probe
from tests.conftest import REPOSITORY
from tests.tin.networks import NAMES, trained_file

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_file(tmp_path_factory.mktemp("checkpoint"), "train.batch_size=4")


@pytest.fixture
def videos(real_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a few real videos, good and bad, among other files."""
    monkeypatch.chdir(tmp_path)
    for target, source in {
        "mixed/a/rot.mov": "rot_90.mov",
        "mixed/a/wave.avi": "hmdb51_SchoolRules_wave.avi",
        "mixed/b/odd.mp4": "odd321x241_vp9.mp4",
        "mixed/cut.mp4": "audio_only_nasa.mp3",
    }.items():
        path = tmp_path / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(real_videos / "codecs" / source, path)
    (tmp_path / "mixed" / "notes.txt").write_text("no video")
    (tmp_path / "mixed" / ".hidden.mp4").write_text("")
    return tmp_path


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_folder_gives_a_line_a_video_and_the_bad_one_its_reason(cli: Cli, videos: Path, checkpoint: Path) -> None:
    result = cli("predict", "mixed", "--checkpoint", checkpoint, "--json")
    assert result.status == 1
    assert result.err.splitlines()[-1] == "1 of 4 videos failed"
    found = objects(result.out)
    assert [one["path"] for one in found] == ["mixed/cut.mp4", "mixed/a/rot.mov", "mixed/a/wave.avi", "mixed/b/odd.mp4"]
    assert found[0] == {"path": "mixed/cut.mp4", "error": "has no video stream"}
    for one in found[1:]:
        assert set(one) == {"path", "top"}
        scores = [best["score"] for best in one["top"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert all(best["label"] == NAMES[best["index"]] for best in one["top"])
    assert list(videos.iterdir()) == [videos / "mixed"]  # no index, or anything else, is left beside the videos
    assert sorted(path.name for path in (videos / "mixed").iterdir()) == [
        ".hidden.mp4",
        "a",
        "b",
        "cut.mp4",
        "notes.txt",
    ]


def test_scores_are_those_of_test(cli: Cli, videos: Path, checkpoint: Path) -> None:
    (videos / "list.txt").write_text("mixed/a/rot.mov 0\nmixed/a/wave.avi 1\nmixed/b/odd.mp4 2\n")
    tested = cli("test", "--checkpoint", checkpoint, "--list", "list.txt", "--out", "result.json", "--batch-size", 2)
    assert tested.status == 0, tested.err
    expected = json.loads((videos / "result.json").read_text())["scores"]
    result = cli("predict", "list.txt", "--checkpoint", checkpoint, "--json")
    assert result.status == 0, result.err
    for scores, one in zip(expected, objects(result.out), strict=True):
        assert [scores[best["index"]] for best in one["top"]] == pytest.approx(
            [b["score"] for b in one["top"]], abs=1e-5
        )


def test_the_table_lines_up_and_names_each_file_once(cli: Cli, videos: Path, checkpoint: Path) -> None:
    result = cli("predict", "mixed/a/rot.mov", "mixed/a", "--checkpoint", checkpoint, "--top-k", 2)
    assert result.status == 0, result.err
    head, *rows = result.out.splitlines()
    assert head == "video              score  class"
    assert [row[:16].strip() for row in rows] == ["mixed/a/rot.mov", "", "mixed/a/wave.avi", ""]
    assert all(row[16:18] == "  " and row[23:26] == "%  " and row[26:] in NAMES for row in rows)


def test_a_list_s_labels_do_not_matter_and_its_lines_name_the_root_s_files(
    cli: Cli, videos: Path, checkpoint: Path
) -> None:
    (videos / "lists").mkdir()
    (videos / "lists" / "val.txt").write_text("a/rot.mov 700\na/gone.mp4 3\n")
    result = cli("predict", "lists/val.txt", "--root", "mixed", "--checkpoint", checkpoint, "--top-k", 1)
    assert result.status == 1
    assert "mixed/a/rot.mov" in result.out
    assert "failed: mixed/a/gone.mp4: no such file" in result.err


@pytest.mark.slow
def test_paths_come_from_standard_input_and_options_reach_the_network(cli: Cli, videos: Path, checkpoint: Path) -> None:
    odd, rot = videos / "mixed" / "b" / "odd.mp4", videos / "mixed" / "a" / "rot.mov"
    views = ["--checkpoint", str(checkpoint), "--json", "--views", "ten-crop", "--num-clips", "2"]
    piped = subprocess.run(
        [sys.executable, "-m", "cli.main", "predict", "-", *views, "--fast"],
        cwd=REPOSITORY, capture_output=True, check=False, timeout=250, input=f"{odd}\n\n{rot}\n{odd}\n".encode(),
    )  # fmt: skip
    assert piped.returncode == 0, piped.stderr
    assert [one["path"] for one in objects(piped.stdout.decode())] == [str(odd), str(rot)]
    same, other = cli("predict", odd, rot, *views), cli("predict", odd, rot, *views[:3])
    for before, after in zip(objects(same.out), objects(piped.stdout.decode()), strict=True):
        assert [b["score"] for b in before["top"]] == pytest.approx([b["score"] for b in after["top"]], abs=1e-4)
    assert other.out != same.out


def test_one_video_is_saved_with_its_predictions(cli: Cli, videos: Path, checkpoint: Path) -> None:
    result = cli("predict", "mixed/a/rot.mov", "--checkpoint", checkpoint, "--save", "seen.mp4", "--json")
    assert result.status == 0, result.err
    assert objects(result.out)[0]["overlay"] == "seen.mp4"
    found = probe("seen.mp4", None, None, True)
    assert (found.codec, found.num_frames, found.width, found.height) == ("h264", 3, 320, 568)


def test_several_are_saved_below_a_folder_as_they_lie(
    cli: Cli, videos: Path, real_videos: Path, checkpoint: Path
) -> None:
    shutil.copy(videos / "mixed" / "a" / "rot.mov", videos / "mixed" / "a" / "wave.mov")
    frames = videos / "frames"
    frames.mkdir()
    result = cli("predict", "mixed", "--checkpoint", checkpoint, "--save", "seen", "--top-k", 1)
    assert result.status == 1
    assert sorted(str(path.relative_to(videos / "seen")) for path in (videos / "seen").rglob("*.mp4")) == [
        "a/rot.mp4", "a/wave.avi.mp4", "a/wave.mov.mp4", "b/odd.mp4",
    ]  # fmt: skip


def test_a_video_that_breaks_off_is_predicted_but_not_drawn(
    cli: Cli, videos: Path, real_videos: Path, checkpoint: Path
) -> None:
    """What the network needs may lie before the damage; the copy would need it all."""
    shutil.copy(real_videos / "codecs" / "corrupted.mp4", "broken.mp4")
    options = ["--checkpoint", checkpoint, "--json", "--save", "seen.mp4", "--set", "model.num_segments=4"]
    result = cli("predict", "broken.mp4", *options)
    (found,) = objects(result.out)
    assert result.status == 1
    assert "decod" in found.get("overlay_error", found.get("error"))
    assert not Path("seen.mp4").exists()


def test_nothing_readable_is_still_told_file_by_file(cli: Cli, videos: Path, checkpoint: Path) -> None:
    result = cli("predict", "gone.mp4", "mixed/cut.mp4", "--checkpoint", checkpoint)
    assert result.status == 1
    assert "failed: gone.mp4: no such file" in result.err
    assert "failed: mixed/cut.mp4: has no video stream" in result.err
    assert result.err.splitlines()[-1] == "2 of 2 videos failed"


def test_a_name_that_is_no_text_fails_alone(cli: Cli, videos: Path, checkpoint: Path) -> None:
    shutil.copy("mixed/a/rot.mov", "mixed/a/stra\udcffnge.mov")
    result = cli("predict", "mixed/a", "--checkpoint", checkpoint, "--json")
    assert result.status == 1
    rot, strange, wave = objects(result.out)
    assert strange["path"] == "mixed/a/stra\udcffnge.mov"
    assert "not UTF-8" in strange["error"]
    assert "top" in rot
    assert "top" in wave
    result = cli("predict", "mixed/a/stra\udcffnge.mov", "--checkpoint", checkpoint)
    assert "failed: mixed/a/stra\ufffdnge.mov: its name is not UTF-8" in result.err


def test_names_may_come_from_a_file(cli: Cli, videos: Path, checkpoint: Path) -> None:
    (videos / "names.txt").write_text("one\ntwo\nthree\n")
    result = cli("predict", "mixed/a/rot.mov", "--checkpoint", checkpoint, "--labels", "names.txt", "--top-k", 1)
    assert result.out.split()[-1] in ("one", "two", "three")
    (videos / "names.txt").write_text("one\ntwo\n")
    result = cli("predict", "mixed/a/rot.mov", "--checkpoint", checkpoint, "--labels", "names.txt")
    assert result.status == 2
    assert "--labels names.txt names 2 classes, the model has 3" in result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "Missing argument"),
        ("mixed/a --save seen.mp4", "there are 2 videos; give a folder, as seen/"),
        ("mixed/a/rot.mov --save seen.gif", "give a name that ends in .mp4"),
        ("mixed/b/odd.mp4 --save mixed/b/odd.mp4", "mixed/b/odd.mp4 is one of the videos"),
        ("bad.txt", "bad.txt:2"),
        ("empty", "no videos in empty"),
        ("mixed --top-k 0", "0 is not in the range x>=1"),
        ("mixed --recipe nothing", "no recipe or file named 'nothing'"),
        ("mixed --set model.num_classes=5", "is not this model"),
    ],
)
def test_every_mistake_is_one_line(cli: Cli, videos: Path, checkpoint: Path, arguments: str, message: str) -> None:
    (videos / "empty").mkdir()
    (videos / "bad.txt").write_text("a.mp4 0\nb.mp4 x y\n")
    result = cli("predict", *arguments.split(), "--checkpoint", checkpoint)
    assert result.status == 2
    assert message in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["predict", "plot", "info"])
def test_help_has_a_description_and_fits_a_terminal(cli: Cli, command: str) -> None:
    result = cli(command, "--help")
    assert result.status == 0
    assert max(map(len, result.out.splitlines())) <= 110
    assert "tin-cli " + command in result.out
