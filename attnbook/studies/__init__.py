"""Experiments too long for a chapter: each a module, its results stored beside it as JSON.

`python -m attnbook.studies.<name>` runs one in full and stores what it found;
with `--quick` it runs a small version and stores nothing. A study that is made of jobs (its `run`
takes `each`) also has `--jobs N`, `--device cuda` and `--dask ADDRESS`: see `runner`. One with a
`question` in its record keeps to `protocol`, and a test holds it to that.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from attnbook.studies.runner import Each

FOLDER = Path(__file__).parent


def stored(name: str) -> dict[str, Any]:
    """Return the stored results of a study, with its seeds, versions, device, run time and commit.

    Raises:
        ValueError: no results of that name are stored.
    """
    path = FOLDER / f"{name}.json"
    if not path.exists():
        names = sorted(path.stem for path in FOLDER.glob("*.json"))
        raise ValueError(f"no study named {name!r} is stored; there are {names}")
    return json.loads(path.read_text(encoding="utf-8"))


def again(name: str, device: torch.device) -> str:
    """Do a stored study again on a GPU, and return a sentence on how the two lie to each other.

    On a CPU nothing is done; the sentence says how long it took.
    """
    record = stored(name)
    if device.type != "cuda":
        where, minutes = record["device"], record["seconds"] / 60
        return f"{name}: stored, found on {where} in {minutes:.1f} minutes of one core"
    run = importlib.import_module(f"{__name__}.{name}").run
    start = time.perf_counter()
    found = run(Each(device=str(device), progress=True), **record["settings"])["comparisons"]
    minutes = (time.perf_counter() - start) / 60
    alike = sum(
        abs(found[what]["mean"] - old["mean"]) <= found[what]["half"] + old["half"]
        for what, old in record["comparisons"].items()
    )
    return (
        f"{name}: done again on {torch.cuda.get_device_name(device)} in {minutes:.1f} minutes, "
        f"{alike} of {len(found)} differences as stored (intervals overlap)"
    )


def main(
    run: Callable[..., dict[str, Any]], *, full: dict[str, Any], quick: dict[str, Any]
) -> None:
    """Run a study from the command line: `run(**full)`, stored, or `run(**quick)`, printed.

    A study whose `run` takes `each` hands its jobs to that (see `runner`), and may be stopped and
    started again, spread over processes and machines, and put on another device. What its `run`
    returns is the record itself, whose `results` and other parts stand beside the settings.
    """
    name = Path(inspect.unwrap(run).__code__.co_filename).stem  # also where run is decorated
    in_jobs = "each" in inspect.signature(run).parameters
    parser = argparse.ArgumentParser(
        prog=f"python -m {__name__}.{name}", description=inspect.getdoc(run)
    )
    parser.add_argument("--quick", action="store_true", help="a small version; nothing is stored")
    if in_jobs:
        parser.add_argument("--jobs", type=int, help="processes; by default one for each core")
        parser.add_argument("--device", default="cpu", help="where each job runs, e.g. cuda")
        parser.add_argument(
            "--dask",
            metavar="ADDRESS",
            help="a scheduler whose workers run them; all need this package",
        )
        parser.add_argument("--fresh", action="store_true", help="use no job of an earlier start")
    chosen = parser.parse_args()
    settings = quick if chosen.quick else full
    device = getattr(chosen, "device", "cpu")
    start = time.perf_counter()
    if in_jobs:
        folder = None if chosen.quick else finished_jobs()
        if chosen.fresh and folder is not None:
            for kept in folder.glob(f"{name}-*"):
                shutil.rmtree(kept)
        each = Each(jobs=chosen.jobs, device=device, dask=chosen.dask, folder=folder, progress=True)
        if run.__module__ == "__main__":  # another process has to find the jobs by their name
            run = importlib.import_module(f"{__name__}.{name}").run
        try:
            found = run(each, **settings)
        except KeyboardInterrupt:
            sys.exit(f"Stopped. Finished jobs are kept in {folder}; the next start goes on there.")
        seconds = each.seconds
    else:
        found = {"results": run(**settings)}
        seconds = time.perf_counter() - start
    record = {
        "settings": settings,
        **found,
        "seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU",
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "commit": commit(),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    print(text)
    if settings is full:
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def finished_jobs() -> Path:
    """Return the folder where finished jobs are kept, below the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "attnbook" / "studies"


def difference(runs: Sequence[float], baseline: Sequence[float]) -> tuple[float, float]:
    """Return the mean of runs - baseline, seed by seed, and half the width of its 95 % interval.

    Student's t: mean +- half covers the true mean in 95 of 100 such studies, if the differences
    are normal.

    Raises:
        ValueError: there are not as many runs in both, or fewer than two.

    >>> mean, half = difference([0.5, 0.7, 0.9], [0.4, 0.5, 0.6])
    >>> round(mean, 2), round(half, 2)
    (0.2, 0.25)
    """
    from scipy import stats  # noqa: PLC0415 (its import takes as long as that of torch)

    if len(runs) != len(baseline) or len(runs) < 2:
        raise ValueError(
            f"runs has {len(runs)} numbers and baseline {len(baseline)}: "
            "both need as many, from the same seeds, and at least 2"
        )
    differences = torch.tensor(runs, device="cpu") - torch.tensor(baseline, device="cpu")
    half = stats.t.ppf(0.975, len(runs) - 1) * differences.std() / len(runs) ** 0.5
    return differences.mean().item(), half.item()


def commit() -> str:
    """Return the commit that the code was checked out from, or "unknown"."""
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
