"""`python -m benchmarks`: every mechanism beside its peers, as a table."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import MEMORY_SIZES, SIZES
from benchmarks.measure import measure, measure_memory, surroundings
from benchmarks.report import page, table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "book" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "results"

# Without these, times on a CPU are those of the system: memory above 32 MiB would be asked for and
# given back at every call, and threads would fall asleep between two calls.
SETTINGS = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
    "MALLOC_TOP_PAD_": str(256 * 2**20),
    "OMP_NUM_THREADS": str(os.cpu_count()),
    "OMP_WAIT_POLICY": "active",
    "KINETO_LOG_LEVEL": "99",  # the profiler, which counts memory, is not to talk
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Time and peak memory of every mechanism beside its peers and a floor.",
        epilog="On Linux the program starts itself anew, once, with these variables unless they "
        "are set: " + " ".join(f"{name}={value}" for name, value in SETTINGS.items()),
    )
    mechanisms = [build.__name__ for build in SIZES]
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, few rounds")
    parser.add_argument("--only", choices=mechanisms, help="one mechanism")
    parser.add_argument("--compile", action="store_true", help="all compiled, one size of each")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the measurements there")
    parser.add_argument("--page", action="store_true", help="write book/benchmarks.md, then stop")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, choices=("cpu", "cuda"))
    asked = parser.parse_args()
    if asked.page:
        PAGE.write_text(page(stored_records()), encoding="utf-8")
        return
    if sys.platform == "linux" and not SETTINGS.keys() <= os.environ.keys():
        command = [sys.executable, "-m", "benchmarks", *sys.argv[1:]]
        os.execve(sys.executable, command, {**SETTINGS, **os.environ})
    warnings.simplefilter("ignore")  # of the peers
    record = run(
        mechanisms=[asked.only] if asked.only else mechanisms,
        device=torch.device(asked.device),
        quick=asked.quick,
        compiled=asked.compile,
    )
    print(table(record))
    if asked.json:
        asked.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def run(
    *, mechanisms: list[str], device: torch.device, quick: bool = False, compiled: bool = False
) -> dict[str, Any]:
    """Measure, and return what `--json` writes."""
    start = time.perf_counter()
    torch.manual_seed(0)
    rows, memory, left_out = [], [], {}
    for build, sizes in SIZES.items():
        if build.__name__ not in mechanisms:
            continue
        # Compiling takes longer than measuring: one size of each, and not the smallest.
        for size in sizes[:1] if quick else sizes[1:2] if compiled else sizes:
            case = build(*size).to(device)
            print(f"{case.mechanism} {case.size} ...", file=sys.stderr)
            rows += measure(case, seconds=0.3 if quick else 3.0, compiled=compiled)
            left_out |= dict.fromkeys(f"{name} ({case.mechanism})" for name in case.left_out)
        if not (quick or compiled):
            cases = [build(*size).to(device) for size in MEMORY_SIZES.get(build, [])]
            memory += [measure_memory(case) for case in cases]
    return {
        **surroundings(device),
        "compiled": compiled,
        "seconds": round(time.perf_counter() - start, 1),
        "left_out": [*left_out],
        "rows": rows,
        "memory": memory,
    }


def stored_records() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


if __name__ == "__main__":
    main()
