"""Order: every world size sees the same epoch, testing visits each video once, and steps are equal on all ranks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.order import epoch_order, num_steps, rank_batch, substitute

SIZES = {"videos": st.integers(1, 60), "batch": st.integers(1, 9), "world": st.integers(1, 5)}


def batches(videos: int, batch: int, world: int, *, training: bool, epoch: int = 0) -> list[list[list[int]]]:
    everything = epoch_order(videos, batch, world, training=training, seed=3, epoch=epoch)
    steps = num_steps(videos, batch, world, training=training)
    return [[rank_batch(everything, s, batch, r, world).tolist() for r in range(world)] for s in range(steps)]


@given(**SIZES)
def test_testing_visits_every_video_exactly_once_in_list_order(videos: int, batch: int, world: int) -> None:
    steps = batches(videos, batch, world, training=False)
    assert [id for step in steps for part in step for id in part] == list(range(videos))
    assert all(len(part) <= batch for step in steps for part in step)
    assert all(max(map(len, step)) - min(map(len, step)) <= 1 for step in steps)


@given(**SIZES)
def test_training_gives_full_batches_of_one_permutation(videos: int, batch: int, world: int) -> None:
    steps = batches(videos, batch, world, training=True)
    assert all(len(part) == batch for step in steps for part in step)
    used = [id for step in steps for part in step for id in part]
    if videos >= batch * world:
        assert len(set(used)) == len(used) > videos - batch * world
    else:
        assert set(used) == set(range(videos))


def test_the_global_order_is_the_same_at_every_world_size() -> None:
    one = [part[0] for part in batches(50, 12, 1, training=True)]
    for world in (2, 3, 4):
        assert [sum(step, []) for step in batches(50, 12 // world, world, training=True)] == one  # noqa: RUF017


def test_epochs_differ_and_repeat() -> None:
    assert batches(50, 4, 1, training=True, epoch=1) != batches(50, 4, 1, training=True, epoch=2)
    assert batches(50, 4, 1, training=True, epoch=1) == batches(50, 4, 1, training=True, epoch=1)


def test_substitutes_are_others_and_all_of_them() -> None:
    drawn = {substitute(5, seed=0, epoch=0, id=2, attempt=attempt) for attempt in range(100)}
    assert drawn == {0, 1, 3, 4}
    assert substitute(5, seed=0, epoch=0, id=2, attempt=1) == substitute(5, seed=0, epoch=0, id=2, attempt=1)
    assert substitute(1, seed=0, epoch=0, id=0, attempt=1) == 0
