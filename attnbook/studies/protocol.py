"""What every study does alike: tune each arm in the same way, and compare arms seed by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, mean
from typing import Any

import torch

from attnbook.studies.runner import Each, Work

FIRST_TUNING_SEED = 1000  # seeds that choose a setting are not those that measure with it


def tune(
    each: Each,
    work: Work,
    cells: Mapping[str, dict[str, Any]],
    *,
    setting: str,
    values: Mapping[str, Sequence[float]],
    seeds: int,
    score: Callable[[Any], float],
) -> dict[str, dict[str, float]]:
    """Return for each cell the mean validation score of each value of the setting; more is better.

    The values of a cell are a factor of sqrt(10) apart. As long as the best of them is the least or
    the largest, one more is tried beyond it. A single value is taken as it is.

    Args:
        each: the runner.
        work: the job; its result is scored on validation data.
        cells: the arguments of each cell (an arm in one setting), without the tuned one and seed.
        setting: the name of the argument that is tuned.
        values: those of each cell to begin with.
        seeds: how many seeds the mean is over.
        score: takes the job's result.
    """
    found: dict[str, dict[float, float]] = {name: {} for name in cells}
    waiting = [(name, value) for name in cells for value in values[name]]
    while waiting:
        jobs = [
            {**cells[name], setting: value, "seed": FIRST_TUNING_SEED + seed}
            for name, value in waiting
            for seed in range(seeds)
        ]
        scores = [score(result) for result in each(work, jobs, what="tuning")]
        for n, (name, value) in enumerate(waiting):
            found[name][value] = mean(scores[n * seeds : (n + 1) * seeds])
        waiting = [(name, value) for name in cells for value in beyond(found[name])]
    return {
        name: {f"{value:g}": round(by[value], 4) for value in sorted(by)}
        for name, by in found.items()
    }


def beyond(scores: Mapping[float, float]) -> list[float]:
    """Return the value to try next: beyond the best one if that is at an edge, else none.

    >>> beyond({0.1: 0.5, 0.32: 0.7, 1.0: 0.9}), beyond({0.1: 0.5, 0.32: 0.7, 1.0: 0.6})
    ([3.2], [])
    """
    best = max(scores, key=scores.__getitem__)
    if len(scores) == 1 or min(scores) < best < max(scores):
        return []
    return [float(f"{best * 10 ** (0.5 if best == max(scores) else -0.5):.2g}")]


def chosen(tuning: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return for each cell the value with the best score; of several that are as good, the middle.

    >>> chosen({"arm": {"0.01": 0.9, "0.032": 1.0, "0.1": 1.0, "0.32": 1.0, "1": 0.5}})
    {'arm': 0.1}
    """
    found = {}
    for name, by in tuning.items():
        best = sorted(float(value) for value, score in by.items() if score == max(by.values()))
        found[name] = best[len(best) // 2]
    return found


def repeat_one(
    each: Each, work: Work, cell: dict[str, Any], seeds: Sequence[int], what: str
) -> list[Any]:
    """Return the results of one cell, one for each seed."""
    return each(work, [{**cell, "seed": seed} for seed in seeds], what)


def repeat_all(
    each: Each, work: Work, cells: Mapping[str, dict[str, Any]], seeds: Sequence[int], what: str
) -> dict[str, list[Any]]:
    """Return the results of each cell, one for each seed; all cells are one list of jobs."""
    jobs = [{**cell, "seed": seed} for cell in cells.values() for seed in seeds]
    found = iter(each(work, jobs, what))
    return {name: [next(found) for _ in seeds] for name in cells}


def mean_of(rows: Sequence[Mapping[str, Any]], what: str) -> list[float]:
    """Return the mean over the rows of a list of numbers that each has, place by place.

    >>> mean_of([{"curve": [1.0, 0.5]}, {"curve": [2.0, 0.0]}], "curve")
    [1.5, 0.25]
    """
    return [round(fmean(points), 4) for points in zip(*(row[what] for row in rows), strict=True)]


def compare(runs: Sequence[float], baseline: Sequence[float]) -> dict[str, Any]:
    """Return what is known about the mean of runs - baseline, paired seed by seed.

    `mean` +- `half` is its 95 % interval and `p` the two-sided value of Student's t; `smallest` is
    the effect that as many seeds with this spread would have shown in four of five studies. Where
    all differences are the same number t has no value, and `p` is that of the sign test.

    >>> compare([0.5, 0.7, 0.9], [0.4, 0.5, 0.6])
    {'mean': 0.2, 'half': 0.2484, 'p': 0.07418, 'smallest': 0.3264, 'seeds': 3}
    """
    from scipy import optimize, stats  # noqa: PLC0415 (its import takes as long as that of torch)

    from attnbook.studies import difference  # noqa: PLC0415 (it imports this module)

    center, half = difference(runs, baseline)
    n = len(runs)
    first, second = (torch.tensor(x, dtype=torch.double, device="cpu") for x in (runs, baseline))
    gaps = first - second
    error = gaps.std().item() / n**0.5
    if error < 1e-12:
        p, smallest = 2.0 ** (1 - n) if abs(center) > 1e-12 else 1.0, 0.0
    else:
        edge = stats.t.ppf(0.975, n - 1)
        p = 2 * stats.t.sf(abs(gaps.mean().item()) / error, n - 1)
        smallest = (
            optimize.brentq(lambda size: stats.nct.sf(edge, n - 1, size) - 0.8, 0, 100) * error
        )
    numbers = {"mean": center, "half": half, "p": p, "smallest": smallest}
    return {name: float(f"{number:.4g}") for name, number in numbers.items()} | {"seeds": n}


def holm(comparisons: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the comparisons with `p_holm`, which is p corrected for how many there are.

    Holm, 1979: the least of m values is multiplied by m, the next by m - 1 ..., none below one
    before it. Where it is below 0.05, the statement may be made.

    >>> found = holm({"a": {"p": 0.01}, "b": {"p": 0.04}, "c": {"p": 0.03}})
    >>> [round(found[name]["p_holm"], 2) for name in "abc"]
    [0.03, 0.06, 0.06]
    """
    corrected, least = {}, 0.0
    for rank, name in enumerate(sorted(comparisons, key=lambda name: comparisons[name]["p"])):
        least = max(least, min(1.0, (len(comparisons) - rank) * comparisons[name]["p"]))
        corrected[name] = float(f"{least:.4g}")
    return {name: {**found, "p_holm": corrected[name]} for name, found in comparisons.items()}


def _half_of(one: Mapping[str, Any], at_once: int) -> float:
    """Return the half width of `one` where it is an interval of 1 - 0.05 / at_once, not 0.95."""
    from scipy import stats  # noqa: PLC0415 (its import takes as long as that of torch)

    alone, wider = (stats.t.ppf(1 - 0.025 / m, one["seeds"] - 1) for m in (1, at_once))
    return float(f"{one['half'] * wider / alone:.4g}")


def bonferroni(comparisons: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the comparisons with `half_bonferroni`: mean +- it holds for all of them at once.

    Each of m intervals is one of 1 - 0.05 / m, so in 95 % of such studies or more none misses.
    It holds 0 where m times p is above 0.05; `holm` may correct less.

    >>> found = bonferroni({name: {"half": 1.0, "seeds": 10} for name in "ab"})
    >>> round(found["a"]["half_bonferroni"], 3)
    1.187
    """
    return {
        name: {**one, "half_bonferroni": _half_of(one, len(comparisons))}
        for name, one in comparisons.items()
    }


def holm_intervals(comparisons: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the comparisons with `p_holm` and `half_holm`: mean +- it holds 0 where `holm` fails.

    Each interval has the level of its own test: 1 - 0.05 / m for the least of m values p,
    1 - 0.05 / (m - 1) for the next ..., until one fails, whose level all behind it have. So each is
    read beside 0 alone; all of them at once are those of `bonferroni`.

    >>> half = {"half": 1.0, "seeds": 10}
    >>> found = holm_intervals({"a": {"p": 0.01, **half}, "b": {"p": 0.04, **half}})
    >>> [round(found[name]["half_holm"], 3) for name in "ab"]
    [1.187, 1.0]
    """
    found = holm(comparisons)
    shown = sum(one["p_holm"] < 0.05 for one in found.values())
    for rank, name in enumerate(sorted(found, key=lambda name: found[name]["p"])):
        at_once = len(found) - min(rank, shown)
        found[name]["half_holm"] = _half_of(found[name], at_once)
    return found
