"""One batch from the parts that several graphs made of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipelines.graphs import Ready


def join(parts: Sequence[tuple[Sequence[int], Ready]], count: int, stream: torch.cuda.Stream | None = None) -> Ready:
    """One batch of `count` clips from the parts that several graphs made, each with its places in it; one part is all of it.

    On a GPU `stream` makes the copies, after it has waited for the parts.
    """
    if len(parts) == 1:
        return parts[0][1]
    kept = tuple(tensor for _, ready in parts for tensor in (ready.frames, *ready.parts))
    with torch.cuda.stream(stream):
        clips = [ready.frames.permute(0, 2, 3, 1).unflatten(0, (len(places), -1)) for places, ready in parts]
        joined = torch.empty((count, *clips[0].shape[1:]), dtype=clips[0].dtype, device=clips[0].device)
        for (places, ready), part in zip(parts, clips, strict=True):
            if stream is not None and ready.done is not None:
                stream.wait_event(ready.done)
            for place, clip in zip(places, part, strict=True):
                joined[place].copy_(clip)
        done = None
        if stream is not None:
            done = torch.cuda.Event()
            done.record(stream)
    return Ready(joined.flatten(0, 1).permute(0, 3, 1, 2), done, kept)
