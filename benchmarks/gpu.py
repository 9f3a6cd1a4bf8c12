"""All GPU benchmarks as JSON; the second half of `make gpu`. Reading videos is left out where DALI or PyAV is not installed."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.shift_forms import forms
from tin import bench
from tin.bench.records import new_record, write_record
from tin.bench.shapes import LAYOUTS
from tin.bench.timing import Rounds
from tin.bench.workload import Workload


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON files")
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA GPU: nothing to measure", file=sys.stderr)
        return 2
    device = torch.device("cuda", 0)
    torch.backends.cudnn.benchmark = True
    rounds = Rounds.default(device, options.quick)
    options.out.mkdir(parents=True, exist_ok=True)

    def save(name: str, result: dict[str, Any]) -> None:
        command = shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]])
        record = new_record(bench.describe(device), command, {name.partition("-")[0]: result})
        write_record(options.out / f"{name}.json", record)
        for line in result["rows"]:
            print(
                f"{name:16} {line['name']:36} {line['median']:10.4f} {line['unit']:8} × {line['ratio']:.3f} of {line['ratio_to']}"
            )

    clips = 32
    for dtype in ("bfloat16", "float16", "float32"):
        work = Workload(batch_size=clips, dtype=dtype, device=device)
        skip = "left out by --quick" if options.quick else None
        save(f"op-{dtype}", bench.op(work, Rounds(5, 30), layouts=tuple(LAYOUTS), skip_compiled=skip))
    work = Workload(batch_size=clips, dtype="bfloat16", device=device)
    rows = [line for training in (False, True) for line in forms(work, Rounds(5, 30), training=training)]
    save("shift_forms-bfloat16", {"settings": work.settings(Rounds(5, 30)), "rows": rows})
    save("inference", bench.inference(Workload(dtype="float16", device=device), rounds))
    for dtype in ("bfloat16", "float16"):
        work = Workload(batch_size=clips, dtype=dtype, device=device)
        save(f"model-{dtype}", bench.model(work, Rounds(10, 40), Rounds(10, 40)))
    peers = Workload(batch_size=6, dtype="float16", device=device)  # the memory column of the TIN results table
    save("model-6clips", bench.model(peers, Rounds(10, 40), Rounds(10, 40)))
    try:
        from benchmarks.gpu_data import data
        from benchmarks.gpu_train import train
    except ModuleNotFoundError as missing:
        print(f"data and train left out: {missing.name} is not installed")
    else:
        save("data", data(device, Rounds(1, 3 if options.quick else 10), 4 if options.quick else 16))
        for name, result in train(device, 3 if options.quick else 10, 15 if options.quick else 100):
            save(f"train-{name.replace(' ', '')}", result)
            print(result["verdict"]["words"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
