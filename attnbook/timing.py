"""Timing that holds on a shared machine: every variant in every round, in shuffled order."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

import torch
from torch.utils.benchmark import Timer

from attnbook.checks import check_number, check_size


def paired_times(
    functions: dict[str, Callable[[], Any]], *, rounds: int = 15, seconds: float = 0.01
) -> dict[str, list[float]]:
    """Return the seconds one call of each function takes, one reading a round.

    Every round times all functions once, in a new random order, so that a machine that slows down
    slows all of them. A reading is the mean over as many calls as take about `seconds`. PyTorch's
    Timer warms up and waits for the GPU.

    Args:
        functions: what is timed, by name; each is called without arguments.
        rounds: how many readings each gets.
        seconds: about how long a reading takes, if one call does not take longer.

    Raises:
        TypeError: functions is no dictionary of functions, rounds no whole number, or seconds no
            number.
        ValueError: fewer than two rounds, from which no spread can be told, or seconds not above 0.
    """
    if not isinstance(functions, dict) or not all(map(callable, functions.values())):
        raise TypeError("functions must be a dictionary of functions without arguments, by name")
    check_size("rounds", rounds, least=-math.inf)
    check_number("seconds", seconds, above=0)
    if rounds < 2:
        raise ValueError(f"rounds={rounds}: at least 2 are needed to see a spread")
    threads = torch.get_num_threads()
    timers = {
        name: Timer("function()", globals={"function": function}, num_threads=threads)
        for name, function in functions.items()
    }
    calls = {name: max(1, round(seconds / timer.timeit(1).mean)) for name, timer in timers.items()}
    times: dict[str, list[float]] = {name: [] for name in functions}
    generator = random.Random(0)
    for _ in range(rounds):
        for name in generator.sample(list(functions), len(functions)):
            times[name].append(timers[name].timeit(calls[name]).mean)
    return times


def ratio(times: dict[str, list[float]], name: str, to: str) -> tuple[float, float, float]:
    """Return the lower quartile, median and upper quartile of one function's time over another's.

    The ratio is taken round by round, between readings that lie next to each other.

    Args:
        times: the readings of each function, as `paired_times` returns them.
        name: the function whose time is divided.
        to: the function whose time it is divided by.

    Raises:
        ValueError: there are no readings of that name, not as many of both, or fewer than two.

    >>> ratio({"a": [2.0, 4.0, 6.0], "b": [1.0, 2.0, 2.0]}, "a", to="b")
    (2.0, 2.0, 2.5)
    """
    for one in (name, to):
        if one not in times:
            raise ValueError(f"there are no times of {one!r}, but of {sorted(times)}")
    if len(times[name]) != len(times[to]) or len(times[name]) < 2:
        raise ValueError(
            f"{name!r} has {len(times[name])} readings and {to!r} has {len(times[to])}: "
            "both need one of each round, and at least 2"
        )
    ratios = [ours / theirs for ours, theirs in zip(times[name], times[to], strict=True)]
    lower, _, upper = quantiles(ratios, n=4, method="inclusive")
    return lower, median(ratios), upper
