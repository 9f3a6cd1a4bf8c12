"""The end of `make demo`: TIN and TSN on the same motion videos, and whether they show what they must."""

from __future__ import annotations

import json
import sys
from pathlib import Path

TIN_TOP1 = 0.95
"""What TIN must reach."""
TSN_TIME_ORDER = 0.75
"""1.5 × chance: what a network that does not see the order of frames must not pass."""


def main(folder: Path) -> int:
    results = {arch: json.loads((folder / f"{arch}.json").read_text()) for arch in ("tin", "tsn")}
    print(f"\n{'':4}{'videos':>8}{'top-1':>9}{'time order':>12}   (chance: top-1 12.5 %, time order 50 %)")
    for arch, result in results.items():
        metrics = result["metrics"]
        scored = result["coverage"]["scored"]
        print(f"{arch:4}{scored:8}{metrics['top1_acc']:9.1%}{metrics['time_order_accuracy']:12.1%}")
    failed = []
    if results["tin"]["metrics"]["top1_acc"] < TIN_TOP1:
        failed.append(f"TIN stays under {TIN_TOP1:.0%} top-1")
    if results["tsn"]["metrics"]["time_order_accuracy"] > TSN_TIME_ORDER:
        failed.append(f"TSN passes {TSN_TIME_ORDER:.0%} time order: a single frame reveals the class")
    for reason in failed:
        print(f"demo failed: {reason}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
