"""Frame sampling equals the golden tables of the public implementations, and stays inside the video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.errors import SettingsError
from pipelines.sampling import MODES, num_clips, segment_indices

TABLES = {
    "test_T8": (8, "test"),
    "twice_T8": (8, "twice"),
    "test_T16": (16, "test"),
    "train_T8_short(n<8, deterministic)": (8, "train"),
    "train_T8_seed0": (8, "train"),
    "train_T8_keep_tail_seed0": (8, "keep_tail"),
    "dense_test_T8": (8, "dense_test"),
    "dense_train_T8_seed0": (8, "dense_train"),
}


class LegacyDraws:
    """numpy's legacy generator, which the tables were drawn from, behind the method names of today's."""

    def __init__(self, seed: int) -> None:
        self.state = np.random.RandomState(seed)

    def integers(self, low: int, high: int, size: int | None = None) -> Any:
        return self.state.randint(low, high, size=size)

    def uniform(self, low: float, high: float, size: int) -> Any:
        return self.state.uniform(low, high, size)


@pytest.mark.parametrize("table", TABLES)
def test_golden_tables_are_matched_exactly(golden: Path, table: str) -> None:
    T, mode = TABLES[table]
    rows = json.loads((golden / "sampleframes.json").read_text())[table]
    assert rows
    for n, expected in rows.items():
        assert segment_indices(int(n), T, mode, LegacyDraws(0)).tolist() == expected, n  # type: ignore[arg-type]


def test_two_clips_share_out_the_golden_table_of_twice_as_many_segments(golden: Path) -> None:
    tables = json.loads((golden / "sampleframes.json").read_text())
    assert set(tables) == set(TABLES), "a golden table is not looked at"
    for n, expected in tables["test_T16"].items():
        first, second = segment_indices(int(n), 8, "test", clips=2).reshape(2, 8).tolist()
        assert first == expected[0::2]
        assert second == expected[1::2]


@given(n=st.integers(1, 5000), T=st.integers(1, 32), clips=st.integers(1, 12))
def test_clips_of_a_test_are_the_segments_of_a_longer_one_in_turn(n: int, T: int, clips: int) -> None:
    indices = segment_indices(n, T, "test", clips=clips)
    assert indices.reshape(clips, T).T.reshape(-1).tolist() == segment_indices(n, clips * T, "test").tolist()
    assert num_clips("test", clips) == clips


def test_dense_clips_spread_from_the_first_start_to_the_last() -> None:
    for clips in (1, 2, 5, 10, 30):
        starts = segment_indices(300, 8, "dense_test", clips=clips).reshape(clips, 8)[:, 0]
        assert starts.tolist() == np.linspace(0, 236, clips).astype(int).tolist()
    assert (segment_indices(300, 8, "dense_test", clips=10) == segment_indices(300, 8, "dense_test")).all()


@pytest.mark.parametrize(
    ("mode", "clips", "word"),
    [("twice", 3, "takes 2"), ("train", 2, "takes 1"), ("test", 0, "at least 1"), ("test", 1.5, "clips 1.5")],
)
def test_numbers_of_clips_that_a_mode_has_not_are_refused(mode: str, clips: Any, word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        segment_indices(30, 8, mode, np.random.default_rng(0), clips=clips)


@given(n=st.integers(1, 5000), T=st.integers(1, 64), mode=st.sampled_from(MODES), seed=st.integers(0, 2**32))
def test_indices_stay_in_the_video_and_are_counted(n: int, T: int, mode: str, seed: int) -> None:
    indices = segment_indices(n, T, mode, np.random.default_rng(seed))
    assert indices.dtype == np.int64
    assert indices.shape == (num_clips(mode) * T,)
    assert indices.min() >= 0
    assert indices.max() < n


@pytest.mark.parametrize("n", [8, 30, 300])
def test_training_draws_uniformly_within_each_segment(n: int) -> None:
    rng, average = np.random.default_rng(n), n // 8
    draws = np.stack([segment_indices(n, 8, "train", rng) for _ in range(200 * average)])
    assert draws.max() == 8 * average - 1  # frames past T·(n // T) are never drawn
    counts = np.bincount(draws.reshape(-1), minlength=8 * average)
    assert stats.chisquare(counts).pvalue > 1e-3
    between = np.corrcoef(draws.T) - np.eye(8) if average > 1 else np.zeros(1)
    assert np.abs(between).max() < 4 / np.sqrt(len(draws))  # segments are drawn independently


@pytest.mark.parametrize("n", [5, 30, 61])
def test_keep_tail_gives_every_frame_its_part_of_each_segment(n: int) -> None:
    rng, draws, width = np.random.default_rng(n), 4000, n / 8
    drawn = np.stack([segment_indices(n, 8, "keep_tail", rng) for _ in range(draws)])
    for segment in range(8):
        low, high = segment * width, (segment + 1) * width
        part = np.array([max(0.0, min(high, f + 1) - max(low, f)) for f in range(n)]) / width
        counts = np.bincount(drawn[:, segment], minlength=n)
        assert counts[part == 0].sum() == 0
        if (part > 0).sum() > 1:
            assert stats.chisquare(counts[part > 0], draws * part[part > 0]).pvalue > 1e-3


def test_dense_training_starts_anywhere_alike_but_at_the_last_start() -> None:
    rng = np.random.default_rng(5)
    starts = [int(segment_indices(100, 8, "dense_train", rng)[0]) for _ in range(3600)]
    counts = np.bincount(starts)
    assert len(counts) == 36  # 100 − 64, one less than there are, as in MMAction2
    assert stats.chisquare(counts).pvalue > 1e-3


def test_keep_tail_reaches_the_last_frame() -> None:
    rng = np.random.default_rng(2)
    assert max(segment_indices(30, 8, "keep_tail", rng).max() for _ in range(500)) == 29


@pytest.mark.parametrize(
    ("n", "T", "mode", "word"), [(0, 8, "test", "0 frames"), (5, 0, "test", "0 segments"), (5, 8, "tests", "keep_tail")]
)
def test_impossible_requests_are_refused(n: int, T: int, mode: str, word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        segment_indices(n, T, mode)


def test_random_modes_need_a_generator() -> None:
    with pytest.raises(SettingsError, match="rng"):
        segment_indices(30, 8, "train")
