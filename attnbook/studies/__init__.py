"""Experiments too long for a chapter: each a module, its results stored beside it as JSON.

`python -m attnbook.studies.<name>` runs one in full and stores what it found;
with `--quick` it runs a small version and stores nothing.
"""

from __future__ import annotations

import argparse
import inspect
import json
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

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


def main(
    run: Callable[..., dict[str, Any]], *, full: dict[str, Any], quick: dict[str, Any]
) -> None:
    """Run a study from the command line: `run(**full)`, stored, or `run(**quick)`, printed."""
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--quick", action="store_true", help="a small version; nothing is stored")
    settings = quick if parser.parse_args().quick else full
    start = time.perf_counter()
    results = run(**settings)
    record = {
        "settings": settings,
        "results": results,
        "seconds": round(time.perf_counter() - start, 1),
        "device": "CPU",  # no study's `run` takes another
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "commit": commit(),
    }
    text = json.dumps(record, indent=1)
    print(text)
    if settings is full:
        name = Path(inspect.unwrap(run).__code__.co_filename).stem  # also where run is decorated
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


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
