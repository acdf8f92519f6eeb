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
from collections.abc import Callable
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
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "commit": commit(),
    }
    text = json.dumps(record, indent=1)
    print(text)
    if settings is full:
        name = Path(inspect.unwrap(run).__code__.co_filename).stem  # also where run is decorated
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def commit() -> str:
    """Return the commit that the code was checked out from, or "unknown"."""
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
