"""Repeated augmentation and class-balanced sampling: the same order for any world size, and a draw of its own for each copy."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipelines.errors import SettingsError
from pipelines.order import class_weights, epoch_order, num_steps, place, rank_batch

LABELS = [0] * 100 + [1] * 10 + [2] * 40


def order(videos: int, batch: int, world: int = 1, **options: object) -> np.ndarray:
    return epoch_order(videos, batch, world, training=True, **{"seed": 3, "epoch": 0, **options})  # type: ignore[arg-type]


@given(videos=st.integers(1, 60), part=st.integers(1, 6), repeats=st.integers(1, 5), balanced=st.booleans())
def test_a_global_batch_holds_each_of_its_videos_repeats_times_as_different_copies(
    videos: int, part: int, repeats: int, balanced: bool
) -> None:
    weights = class_weights([number % 3 for number in range(videos)], 0.5) if balanced else None
    size = part * repeats
    everything = order(videos, size, repeats=repeats, weights=weights)
    assert len(everything) == size * num_steps(videos, size, 1, training=True, repeats=repeats)
    for batch in everything.reshape(-1, size):
        first = [place(int(number), videos)[0] for number in batch[:part]]
        for copy in range(repeats):  # a part apart, so that ranks see different videos
            assert [place(int(number), videos)[0] for number in batch[copy * part : (copy + 1) * part]] == first
    if repeats > 1 or balanced:
        assert len(set(everything.tolist())) == len(everything)  # no video is shown twice with the same copy number
        seen: Counter[int] = Counter()
        for number in everything.tolist():
            position, copy = place(number, videos)
            assert copy == seen[position]
            seen[position] += 1


def test_an_epoch_of_repeats_shows_every_video_that_often_and_is_the_same_permutation() -> None:
    single = order(24, 4)
    twice = order(24, 8, repeats=2)
    assert Counter(place(int(number), 24)[0] for number in twice) == dict.fromkeys(range(24), 2)
    assert [place(int(number), 24)[0] for batch in twice.reshape(-1, 8) for number in batch[:4]] == single.tolist()


def test_nothing_changes_where_neither_is_asked_for() -> None:
    assert order(50, 8).tolist() == order(50, 8, repeats=1, weights=None).tolist()
    assert order(5, 8).max() < 5  # a short list still repeats itself as it did, without copies


@pytest.mark.parametrize("balance", [0.0, 0.5])
def test_the_order_is_the_same_at_every_world_size(balance: float) -> None:
    weights = class_weights(LABELS, balance) if balance else None
    one = order(150, 12, 1, repeats=2, weights=weights)
    for world in (2, 3, 4, 6):
        other = order(150, 12 // world, world, repeats=2, weights=weights)
        assert other.tolist() == one.tolist()
        if world == 2:
            ranks = [{place(int(n), 150)[0] for n in rank_batch(other, 0, 6, rank, 2)} for rank in range(2)]
            assert ranks[0] == ranks[1]
            assert balance or len(ranks[0]) == 6  # each rank holds all the batch's videos once


@given(
    videos=st.integers(1, 60), first=st.integers(1, 30), batch=st.integers(1, 30), world=st.integers(1, 4),
    balanced=st.booleans(), data=st.data(),
)  # fmt: skip
def test_what_is_left_of_an_epoch_is_the_same_samples_at_any_global_batch(
    videos: int, first: int, batch: int, world: int, balanced: bool, data: st.DataObject
) -> None:
    weights = class_weights([number % 3 for number in range(videos)], 0.5) if balanced else None
    whole = order(videos, 1, weights=weights)
    start = first * data.draw(st.integers(0, num_steps(videos, first, 1, training=True)))
    left = order(videos, batch, world, weights=weights, start=start)
    assert len(left) == batch * world * num_steps(videos, batch, world, training=True, start=start)
    if start or videos >= batch * world:
        assert left.tolist() == whole[start : start + len(left)].tolist()
        assert start >= videos or len(whole) - start - len(left) < batch * world


@pytest.mark.parametrize("balance", [0.25, 0.5, 1.0])
def test_classes_come_in_proportion_to_their_size_to_the_power(balance: float) -> None:
    weights = class_weights(LABELS, balance)
    sizes = np.array([100, 10, 40.0])
    shares = sizes ** (1 - balance) / (sizes ** (1 - balance)).sum()
    assert [weights[np.array(LABELS) == label].sum() for label in range(3)] == pytest.approx(shares.tolist())
    drawn = np.concatenate([order(150, 10, epoch=epoch, weights=weights) % 150 for epoch in range(40)])
    counts = np.bincount(drawn, minlength=150)
    assert stats.chisquare(counts, weights * len(drawn)).pvalue > 1e-3  # and all videos of a class alike


def test_every_epoch_draws_anew_and_the_same_again() -> None:
    weights = class_weights(LABELS, 1.0)
    assert order(150, 10, weights=weights).tolist() == order(150, 10, weights=weights).tolist()
    assert order(150, 10, weights=weights).tolist() != order(150, 10, weights=weights, epoch=1).tolist()
    assert order(150, 10, weights=weights).tolist() != order(150, 10, weights=weights, seed=4).tolist()


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"global batch of 8 clips .* cannot hold each video 3 times"):
        order(50, 4, 2, repeats=3)
    with pytest.raises(SettingsError, match=r"class_balanced 1\.5"):
        class_weights([0, 1], 1.5)
    with pytest.raises(SettingsError, match="needs a label for every video"):
        class_weights([0, None], 0.5)
