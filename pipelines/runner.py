"""A thread that makes an epoch's batches ahead of the consumer, and what must be ended with it."""

from __future__ import annotations

import queue
import threading
from contextlib import closing

from pipelines.clips import EpochClips
from pipelines.maker import BatchMaker, Made, Steps

_POLL_SECONDS = 0.1


class Resources:
    """What must be ended with the loader; holds no reference to it."""

    def __init__(self, maker: BatchMaker) -> None:
        self.maker = maker
        self.runner: Runner | None = None

    def start(self, clips: EpochClips, steps: Steps, prefetch: int) -> Runner:
        if self.runner is not None:
            self.runner.stop()
        self.runner = Runner(self.maker, clips, steps, prefetch)
        return self.runner

    def close(self) -> None:
        if self.runner is not None:
            self.runner.stop()
        self.maker.close()


class Runner:
    """Makes the batches of one epoch in a thread, at most `prefetch` ahead of the consumer."""

    def __init__(self, maker: BatchMaker, clips: EpochClips, steps: Steps, prefetch: int) -> None:
        self._queue: queue.Queue[Made | BaseException | None] = queue.Queue(prefetch)
        self._stop = threading.Event()
        self._over = False
        self.ended = False
        """Whether `next` has come to the end of the epoch; not when it was stopped."""
        self._thread = threading.Thread(target=self._work, args=(maker, clips, steps), name="clip loader", daemon=True)
        self._thread.start()

    def next(self) -> Made | None:
        """The next batch, None at the end; raises what the thread raised."""
        while not self._over:
            try:
                item = self._queue.get(timeout=1.0)
            except queue.Empty:
                self._over = self._stop.is_set()
                continue
            self.ended = item is None
            self._over = self.ended or isinstance(item, BaseException)
            if isinstance(item, BaseException):
                raise item
            return item
        return None

    def stop(self) -> None:
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self, maker: BatchMaker, clips: EpochClips, steps: Steps) -> None:
        try:
            with closing(maker.make(clips, steps, self._stop)) as batches:
                for made in batches:
                    if not self._put(made):
                        return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Made | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
