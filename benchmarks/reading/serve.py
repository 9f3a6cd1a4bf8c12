"""The process of one reader: does what `peers_data.py` asks in lines of JSON on stdin.

`python -m benchmarks.reading.serve NAME JOB FD`; answers go to the file descriptor FD, because libraries print to stdout.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import torch

from benchmarks.reading.job import Job, Marks, Reader

READERS = {  # where each is; a module is imported by its own process alone
    "loader": ("ours", "OurLoader"),
    "decode-only": ("ours", "DecodeOnly"),
    "pyav": ("peers", "PyAv"),
    "decord": ("peers", "Decord"),
    "torchcodec": ("peers", "TorchCodec"),
    "torchcodec-approximate": ("peers", "TorchCodecApproximate"),
    "torchvision": ("peers", "TorchvisionJpeg"),
    "mmaction2": ("mmaction", "MmAction"),
}


def serve(reader: Reader, requests: Iterator[str], answer: Callable[[Any], None]) -> None:
    """Do what is asked: {"frames": [path, indices], "to": npy}, {"clips": ids, "to": npy}, {"start": null}, {"go": seconds}."""
    stream: Iterator[Marks] = iter(())
    for line in requests:
        request = json.loads(line)
        if "frames" in request:
            np.save(request["to"], reader.frames(*request["frames"]))
            answer(None)
        elif "clips" in request:
            np.save(request["to"], torch.stack(reader.clips(request["clips"])).numpy())
            answer(None)
        elif "start" in request:
            stream = reader.read()
            next(stream)
            answer(None)
        else:
            since = time.monotonic()
            marks: Marks = []
            while time.monotonic() < since + request["go"]:
                marks += next(stream)
            answer({"since": since, "until": time.monotonic(), "marks": marks})


def main() -> None:
    name, job, fd = sys.argv[1:]
    with os.fdopen(int(fd), "w", encoding="utf-8") as out:

        def answer(value: Any) -> None:
            out.write(json.dumps(value) + "\n")
            out.flush()

        module, reader = READERS[name]
        kind = getattr(import_module(f"benchmarks.reading.{module}"), reader)
        serve(kind(Job(**json.loads(job))), iter(sys.stdin.readline, ""), answer)


if __name__ == "__main__":
    main()
