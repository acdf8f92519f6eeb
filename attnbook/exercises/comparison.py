"""Checkers for the exercises of the chapter "All mechanisms side by side"."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from attnbook.exercises import Case, checker, same


@checker
def check_gate_parameters() -> Iterator[Case]:
    """Check gate_parameters(channels, reduction): weights of the gates of all blocks, no biases."""
    for channels, reduction in (
        ([64], 16),
        ([64, 128, 128], 8),
        ([256] * 3 + [512] * 4, 16),
        ([100, 60], 16),
    ):
        expected = sum(2 * c * (c // reduction) for c in channels)
        biases = sum(c + c // reduction for c in channels)
        yield Case(
            (channels, reduction),
            expected,
            mistakes=[
                (expected // 2, "{call} counts one of the two layers of each bottleneck."),
                (expected + biases, "{call} counts the biases too."),
                (
                    sum(2 * c * c for c in channels),
                    "{call} counts full layers: the bottleneck has c // reduction channels.",
                ),
                (
                    2 * channels[-1] * (channels[-1] // reduction),
                    "{call} counts the last block only: every block has a gate of its own.",
                ),
            ],
        )


@checker
def check_intensity() -> Iterator[Case]:
    """Check intensity(n, k, m): multiply-adds a byte of (n, k) times (k, m), in float32."""
    for n, k, m in ((1, 64, 64), (784, 256, 784), (2, 3, 5)):
        moved = n * k + k * m + n * m
        expected = n * k * m / (4 * moved)
        yield Case(
            (n, k, m),
            expected,
            mistakes=[
                (4 * expected, "{call} is per number; a float32 number has 4 bytes."),
                (
                    2 * expected,
                    "{call} counts a multiplication and its addition as two: count them as one.",
                ),
                (
                    n * k * m / (4 * (moved - n * m)),
                    "{call} forgets that the result is written.",
                ),
                (
                    1 / expected,
                    "{call} is bytes for each multiply-add: the other way round.",
                ),
            ],
        )


@checker
def check_paired() -> Iterator[Case]:
    """Check paired(runs, baseline): the mean of their differences, and its standard error."""
    for n in (8, 5):
        baseline = torch.rand(n) + torch.arange(n)
        runs = baseline + 0.1 + 0.05 * torch.randn(n)
        differences = (runs - baseline).double()
        mean, spread = differences.mean().item(), differences.std().item()
        error = spread / n**0.5
        yield Case(
            (runs, baseline),
            (mean, error),
            mistakes=[((error, mean), "The two are in the wrong order: first the mean.")],
            signs=[
                (
                    lambda found, _, mean=mean: same(found, -mean),
                    "The sign is the wrong way round: it is runs minus baseline.",
                ),
                (
                    lambda _, found, spread=spread: same(found, spread),
                    "The second number is the spread of single differences; divide by the root "
                    "of n.",
                ),
                (
                    lambda _, found, biased=error * (1 - 1 / n) ** 0.5: same(found, biased),
                    "The standard deviation divides by n; with the mean estimated too it is n - 1.",
                ),
                (
                    lambda _, found, error=error: found > 3 * error,
                    "Too wide: it holds the spread from seed to seed, which pairing takes away.",
                ),
            ],
            otherwise="These are not the mean of the differences and its standard error.",
        )
