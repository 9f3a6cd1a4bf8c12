"""The part of `tin-cli bench data` that reads videos: a loader for a list, and its decoder by itself as the yardstick."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines import Loader
    from tin.bench.files import Decode
    from tin.bench.workload import Workload


def data_on_files(
    list_path: Path, root: Path | None, work: Workload, workers: int | None, quick: bool, runs: int | None
) -> dict[str, Any]:
    """The result of `tin.bench.data` on the videos of a list; `work` shrinks to a list shorter than its batch."""
    from cli.console import callback_bar
    from pipelines import ClipSpec, Loader, VideoIndex, VideoList
    from tin import bench as benchmarks
    from tin.bench.timing import Rounds

    videos = VideoList.read(list_path, root=root)
    work = replace(work, batch_size=min(work.batch_size, len(videos.entries)))
    with callback_bar("probing videos") as progress:
        index = VideoIndex.build(videos, progress=progress)
    spec = ClipSpec(
        num_segments=work.num_segments,
        input_size=work.input_size,
        short_side=round(work.input_size * 256 / 224),  # the recipes' proportion of frame to crop
    )
    workers = min(16, len(os.sched_getaffinity(0))) if workers is None else workers
    on_cpu = work.device.type == "cpu"
    batches = 8 if quick else 32
    with ExitStack() as stack:
        loader = stack.enter_context(
            Loader(
                videos, index, spec, batch_size=work.batch_size, training=True, device=work.device,
                dtype="float32" if on_cpu else work.dtype, num_workers=workers,
            )
        )  # fmt: skip
        rounds = Rounds(1, runs or (3 if quick else 10))
        decode = stack.enter_context(_decoding_alone(loader, workers))
        # a GPU needs more batches to be timed well, and has the speed
        result = benchmarks.data(loader, work.device, rounds, batches if on_cpu else 4 * batches, decode)
    result["settings"].update(
        list=str(list_path), videos=len(videos.entries), workers=workers, batch_size=work.batch_size
    )
    return result


@contextmanager
def _decoding_alone(loader: Loader, workers: int) -> Iterator[Decode | None]:
    """The loader's clips through as many decoding processes and nothing after them; None where PyAV does not decode."""
    from pipelines import make_plan
    from pipelines.workers import WorkerPool

    entries, index = loader.video_list.entries, loader.index
    folders = any(index[entry].error is None and index[entry].template is not None for entry in entries)
    if loader.device.type == "cuda" or folders:
        yield None
        return
    pool = WorkerPool(workers)

    def decode(epoch: int, ids: Sequence[int]) -> float:
        before, used = pool.tally.frames, 0
        for ticket, id in enumerate(ids):
            info = index[entries[id]]
            plan = make_plan(entries[id], info, loader.spec, training=True, seed=loader.seed, epoch=epoch, id=id)
            pool.submit((epoch, ticket), "decode", str(entries[id].path), plan.indices.reshape(-1), info.layout)
            used += plan.indices.size
        left = len(ids)
        while left:
            for _, _, error in pool.collect():
                if error is not None:
                    raise error
                left -= 1
        return (pool.tally.frames - before) / used

    try:
        yield decode
    finally:
        pool.close()
