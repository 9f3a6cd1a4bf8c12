"""The videos that a loader could not use, each once, and how many of them are too many."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from pipelines.errors import BadVideosError, Failure

logger = logging.getLogger("pipelines")

_LISTED = 10  # bad videos that an error message names


class Failures:
    """The bad videos of a loader, each once, and the limit on them. Shared by its threads.

    Args:
        total: videos in the list.
        max_bad: largest allowed part of them that is bad; None for any.
        at_once: whether a video that fails at run time and passes the limit is an error there and then. With several ranks
            in training it is not: one rank that stops alone leaves the others waiting for it. They meet in `check`.
    """

    def __init__(self, total: int, max_bad: float | None, *, at_once: bool = True) -> None:
        self._total, self._max_bad, self._at_once = total, max_bad, at_once
        self._lock = threading.Lock()
        self._by_id: dict[int, Failure] = {}

    def add(self, failure: Failure) -> None:
        """Record a bad video; warn of a new one. Raises BadVideosError, listing them, when they pass the limit."""
        with self._lock:
            if failure.id in self._by_id:
                return
            self._by_id[failure.id] = failure
        logger.warning("cannot use %s: %s", failure.name, failure.reason)
        if self._at_once:
            self.check()

    def add_known(self, failures: Iterable[Failure]) -> None:
        """Record what the index says is bad, with one warning for all. Raises BadVideosError when they pass the limit."""
        with self._lock:
            self._by_id.update((failure.id, failure) for failure in failures)
        if self._by_id:
            logger.warning("%s", _summary(self.all(), self._total))
        self.check()

    def check(self, others: Iterable[Failure] = ()) -> None:
        """Raise BadVideosError when the bad videos, those of other ranks among them, pass the limit."""
        if self._max_bad is None:
            return
        bad = {failure.id: failure for failure in (*others, *self.all())}
        if len(bad) > self._max_bad * self._total + 1e-6:  # 0.29 · 100 is a little less than 29
            failures = tuple(bad[id] for id in sorted(bad))
            raise BadVideosError(
                f"{_summary(failures, self._total)}; at most {100 * self._max_bad:g} % may be (max_bad, --max-bad)",
                failures,
            )

    def all(self) -> list[Failure]:
        """The bad videos so far, in list order."""
        with self._lock:
            return [self._by_id[id] for id in sorted(self._by_id)]


def _summary(bad: Iterable[Failure], total: int) -> str:
    bad = list(bad)
    named = "; ".join(f"{failure.name}: {failure.reason}" for failure in bad[:_LISTED])
    more = f"; and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
    return f"{len(bad)} of {total} videos unreadable ({named}{more})"
