"""Frame sampling equals the golden tables of the public implementations, and stays inside the video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(n=st.integers(1, 5000), T=st.integers(1, 64), mode=st.sampled_from(MODES), seed=st.integers(0, 2**32))
def test_indices_stay_in_the_video_and_are_counted(n: int, T: int, mode: str, seed: int) -> None:
    indices = segment_indices(n, T, mode, np.random.default_rng(seed))
    assert indices.dtype == np.int64
    assert indices.shape == (num_clips(mode) * T,)
    assert indices.min() >= 0
    assert indices.max() < n


def test_training_draws_uniformly_within_each_segment() -> None:
    rng = np.random.default_rng(1)
    draws = np.stack([segment_indices(30, 8, "train", rng) for _ in range(4000)])
    assert draws.max() == 23  # frames past T·(n // T) are never drawn
    for segment in range(8):
        counts = np.bincount(draws[:, segment] - 3 * segment, minlength=3)
        assert counts.shape == (3,)
        assert np.all(np.abs(counts - 4000 / 3) < 5 * np.sqrt(4000 * 2 / 9))  # five standard deviations


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
