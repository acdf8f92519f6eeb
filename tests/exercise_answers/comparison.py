"""Right and typical wrong answers to the exercises of the chapter that compares them all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attnbook import SqueezeExcitation
from attnbook.costs import parameters
from attnbook.exercises import Checker, comparison

Answer = Callable[..., object]


def by_loop(channels: list[int], reduction: int) -> int:
    total = 0
    for c in channels:
        hidden = c // reduction
        total += c * hidden + hidden * c
    return total


def by_counting(channels: list[int], reduction: int) -> int:
    return sum(parameters(SqueezeExcitation(c, reduction, bias=False)) for c in channels)


def traffic(n: int, k: int, m: int) -> int:
    return 4 * (n * k + k * m + n * m)


def error(differences: Tensor) -> Tensor:
    return differences.std() / len(differences) ** 0.5


def by_hand(runs: Tensor, baseline: Tensor) -> Tensor:
    differences = runs - baseline
    mean = differences.sum() / len(runs)
    variance = ((differences - mean) ** 2).sum() / (len(runs) - 1)
    return torch.stack([mean, (variance / len(runs)).sqrt()])


RIGHT: dict[Checker, list[Answer]] = {
    comparison.check_gate_parameters: [
        by_loop,
        by_counting,
        lambda channels, r: sum(2 * c * (c // r) for c in channels),
    ],
    comparison.check_intensity: [
        lambda n, k, m: n * k * m / traffic(n, k, m),
        lambda n, k, m: 0.25 / (1 / n + 1 / k + 1 / m),
        lambda n, k, m: torch.tensor(n * k * m / traffic(n, k, m)),
    ],
    comparison.check_paired: [
        lambda a, b: ((a - b).mean(), error(a - b)),
        by_hand,
        lambda a, b: (a.mean() - b.mean(), ((a - b).var() / len(a)) ** 0.5),
        lambda a, b: by_hand(a, b).tolist(),
        lambda a, b: tuple(by_hand(a, b).double().tolist()),
        lambda a, b: ((a - b).mean(), error(a - b).item()),
    ],
}

WRONG: dict[Checker, list[tuple[Answer, str]]] = {
    comparison.check_gate_parameters: [
        (lambda channels, r: sum(c * (c // r) for c in channels), "one of the two layers"),
        (lambda channels, r: sum(2 * c * (c // r) + c + c // r for c in channels), "biases"),
        (lambda channels, r: sum(2 * c * c for c in channels), "full layers"),
        (lambda channels, r: 2 * channels[-1] * (channels[-1] // r), "last block only"),
        (lambda channels, r: sum(2 * c * c / r for c in channels), "an int"),
        (lambda channels, r: sum(2 * c * r for c in channels), "but should be"),
        (lambda channels, r: sum(2 * c * (c // 16) for c in channels), "128], 8)"),
    ],
    comparison.check_intensity: [
        (lambda n, k, m: 4 * n * k * m / traffic(n, k, m), "4 bytes"),
        (lambda n, k, m: 2 * n * k * m / traffic(n, k, m), "as one"),
        (lambda n, k, m: n * k * m / (4 * (n * k + k * m)), "written"),
        (lambda n, k, m: traffic(n, k, m) / (n * k * m), "other way round"),
        (lambda n, k, m: n * k * m, "but should be"),
        (lambda n, k, m: n * 64 * 64 / traffic(n, 64, 64), "but should be"),
    ],
    comparison.check_paired: [
        (lambda a, b: ((b - a).mean(), error(a - b)), "wrong way round"),
        (lambda a, b: ((a - b).mean(), (a - b).std()), "root of n"),
        (lambda a, b: ((a - b).mean(), (a - b).std(correction=0) / len(a) ** 0.5), "n - 1"),
        (
            lambda a, b: (a.mean() - b.mean(), ((a.var() + b.var()) / len(a)) ** 0.5),
            "pairing takes away",
        ),
        (lambda a, b: (2 * (a - b).mean(), error(a - b)), "not the mean"),
        (lambda a, b: (a - b).mean(), "Return 2"),
        (lambda a, b: [0.1, 0.1], "Too wide|not the mean"),
        (lambda a, b: ((a - b).mean(), (a - b).std() / 8**0.5), "with other inputs it went well"),
        (lambda a, b: (error(a - b), (a - b).mean()), "wrong order"),
    ],
}
