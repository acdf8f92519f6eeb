"""Checkers for the exercises of the chapter "All mechanisms side by side"."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from attnbook.exercises import Answer, checker, same, wrong_shape


@checker
def check_gate_parameters(gate_parameters: Answer) -> Iterator[str]:
    """Check gate_parameters(channels, reduction): weights of the gates of all blocks, no biases."""
    for channels, reduction in (([64], 16), ([64, 128, 128], 8), ([256] * 3 + [512] * 4, 16)):
        expected = sum(2 * c * (c // reduction) for c in channels)
        call = f"gate_parameters({channels}, {reduction})"
        answer = gate_parameters(list(channels), reduction)
        if not isinstance(answer, int):
            yield f"{call} is {type(answer).__name__}, but a number of weights is an int."
        if 2 * answer == expected:
            yield f"{call} counts one of the two layers of each bottleneck."
        if answer == sum(2 * c * (c // reduction) + c + c // reduction for c in channels):
            yield f"{call} counts the biases too."
        if answer == sum(2 * c * c for c in channels):
            yield f"{call} counts full layers: the bottleneck has c // reduction channels."
        if len(channels) > 1 and answer == 2 * channels[-1] * (channels[-1] // reduction):
            yield f"{call} counts the last block only: every block has a gate of its own."
        if answer != expected:
            yield f"{call} is {answer}, but should be {expected}."


@checker
def check_intensity(intensity: Answer) -> Iterator[str]:
    """Check intensity(n, k, m): multiply-adds a byte of (n, k) times (k, m), in float32."""
    for n, k, m in ((1, 64, 64), (784, 256, 784), (2, 3, 5)):
        moved = n * k + k * m + n * m
        expected = n * k * m / (4 * moved)
        call, answer = f"intensity({n}, {k}, {m})", torch.tensor(float(intensity(n, k, m)))

        def equal(number: float, answer: torch.Tensor = answer) -> bool:
            return same(answer, torch.tensor(number))

        if equal(4 * expected):
            yield f"{call} is per number; a float32 number has 4 bytes."
        if equal(2 * expected):
            yield f"{call} counts a multiplication and its addition as two: count them as one."
        if equal(n * k * m / (4 * (moved - n * m))):
            yield f"{call} forgets that the result is written."
        if equal(1 / expected):
            yield f"{call} is bytes for each multiply-add: the other way round."
        if not equal(expected):
            yield f"{call} is {answer.item():.4g}, but should be {expected:.4g}."


@checker
def check_paired(paired: Answer) -> Iterator[str]:
    """Check paired(runs, baseline): the mean of their differences, and its standard error."""
    baseline = torch.rand(8) + torch.arange(8)
    runs = baseline + 0.1 + 0.05 * torch.randn(8)
    differences = runs - baseline
    error = differences.std() / 8**0.5
    expected = torch.stack([differences.mean(), error])
    answer = paired(runs.clone(), baseline.clone())
    answer = torch.stack([*answer]) if isinstance(answer, tuple) else answer
    yield from filter(None, [wrong_shape(answer, expected)])
    if torch.allclose(answer[0], -expected[0], atol=1e-5):
        yield "The sign is the wrong way round: it is runs minus baseline."
    if torch.allclose(answer[1], differences.std(), rtol=1e-3):
        yield "The second number is the spread of single differences; divide by the root of n."
    if torch.allclose(answer[1], differences.std(correction=0) / 8**0.5, rtol=1e-3):
        yield "The standard deviation divides by n; with the mean estimated too it is n - 1."
    if answer[1] > 3 * error:
        yield "Too wide: it holds the spread from seed to seed, which pairing takes away."
    if not torch.allclose(answer, expected, rtol=1e-3, atol=1e-5):
        yield "These are not the mean of the differences and its standard error."
