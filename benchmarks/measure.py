"""Time and peak memory of the variants of a case, and what they were measured on."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from attnbook.timing import paired_times, ratio
from benchmarks.cases import Case, Variant

FORWARD, BOTH = "forward", "forward and backward"
FEWEST_ROUNDS, MOST_ROUNDS = 3, 25
PACKAGES = ("torch", "timm", "x-transformers", "torchvision", "kornia", "einops")


def measure(case: Case, *, seconds: float, compiled: bool = False) -> list[dict[str, Any]]:
    """Return a row for each pass and each thing beside ours: ratio of times, times, peak memory.

    Each pass is repeated for about `seconds`, but in three rounds at least.
    """
    variants = case.variants()
    if compiled:
        torch.compiler.reset()
        variants = {
            name: replace(variant, call=torch.compile(variant.call, dynamic=False))
            for name, variant in variants.items()
        }
        variants["attnbook, eager"] = case.ours
    rows = []
    for kind in (FORWARD, BOTH):
        runs = {name: prepare(variant, case.x, kind) for name, variant in variants.items()}
        mib = {name: peak_mib(function, case.x.device) for name, function in runs.items()}
        times = paired_times(runs, rounds=rounds_within(seconds, runs))
        ms = {name: 1e3 * median(readings) for name, readings in times.items()}
        rows += [
            {
                "mechanism": case.mechanism,
                "size": case.size,
                "pass": kind,
                "beside": name,
                "ratio": ratio(times, "attnbook", to=name),
                "rounds": len(times[name]),
                "ms": [ms["attnbook"], ms[name]],
                "mib": [mib["attnbook"], mib[name]],
            }
            for name in runs
            if name != "attnbook"
        ]
    return rows


def measure_memory(case: Case) -> dict[str, Any]:
    """Return the peak memory of our forward and backward pass, whatever the peers need."""
    mib = peak_mib(prepare(case.ours, case.x, BOTH), case.x.device)
    return {"mechanism": case.mechanism, "size": case.size, "mib": mib}


def prepare(variant: Variant, x: Tensor, kind: str) -> Callable[[], Any]:
    """Return the function to be measured: evaluation without gradients, or training with them."""
    for module in variant.modules:
        module.train(kind == BOTH)

    def forward() -> Tensor:
        with torch.no_grad():
            return variant.call(x)

    if kind == FORWARD:
        return forward
    x = x.detach().requires_grad_()
    parameters = [parameter for module in variant.modules for parameter in module.parameters()]
    weights = torch.randn_like(forward())

    def forward_and_backward() -> tuple[Tensor, ...]:
        return torch.autograd.grad(variant.call(x), [x, *parameters], weights, allow_unused=True)

    return forward_and_backward


def rounds_within(seconds: float, runs: dict[str, Callable[[], Any]]) -> int:
    """Return how many rounds take so long; the functions have run before."""

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    one_round = 0.0
    for function in runs.values():
        wait()  # for what was asked for before, which is not this function's time
        start = time.perf_counter()
        function()
        wait()
        once = time.perf_counter() - start
        one_round += max(0.01, once) + 2 * once  # a reading, after two calls to warm up
    return min(max(FEWEST_ROUNDS, int(seconds / one_round)), MOST_ROUNDS)


def peak_mib(function: Callable[[], Any], device: torch.device) -> float:
    """Return the most memory that one call holds beyond what was there before, in MiB."""
    function()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events: list[Any] = profiler.profiler.kineto_results.events()
    held = peak = 0
    for event in events:
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 2**20


def surroundings(device: torch.device) -> dict[str, Any]:
    """Return what the numbers depend on: date, commit, device, versions, environment."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, check=False)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.decode().strip() or "unknown",
        "device": {
            "type": device.type,
            "name": device_name(device),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": versions,
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
