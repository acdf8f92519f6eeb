"""Right and typical wrong answers to the exercises of the chapter on positional encoding."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from attnbook import alibi_bias, rotary_angles, rotate, sinusoidal_encoding
from attnbook.exercises import Checker, positional_encoding

Answer = Callable[..., object]


def interleaved(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack([first, second], dim=-1).flatten(-2)


def clock(p: Tensor, dim: int, *, power: int = 1) -> Tensor:
    angles = p[:, None] * 10_000.0 ** (-power * torch.arange(0, dim, 2) / dim)
    return interleaved(angles.sin(), angles.cos())


def clock_loop(p: Tensor, dim: int) -> Tensor:
    rows = []
    for place in p.tolist():
        angles = [place / 10_000 ** (2 * i / dim) for i in range(dim // 2)]
        rows.append([f(angle) for angle in angles for f in (math.sin, math.cos)])
    return torch.tensor(rows)


def step(dim: int, steps: float) -> Tensor:
    matrix = torch.zeros(dim, dim)
    for i in range(0, dim, 2):
        a = steps / 10_000 ** (i / dim)
        matrix[i, i] = matrix[i + 1, i + 1] = math.cos(a)
        matrix[i, i + 1], matrix[i + 1, i] = math.sin(a), -math.sin(a)
    return matrix


def step_by_exponential(dim: int, steps: int) -> Tensor:
    rates = torch.zeros(dim, dim)
    for i in range(0, dim, 2):
        rates[i, i + 1], rates[i + 1, i] = 10_000 ** (-i / dim), -(10_000 ** (-i / dim))
    return torch.matrix_exp(steps * rates)


def one_angle(dim: int, steps: int) -> Tensor:
    return torch.block_diag(*[step(2, steps)] * (dim // 2))


def from_zero(dim: int, steps: int) -> Tensor:
    """A reflection that takes PE(0) to PE(steps), and no other position to where it should go."""
    encoding = sinusoidal_encoding(steps + 1, dim)
    normal = encoding[steps] - encoding[0]
    return torch.eye(dim) - 2 * torch.outer(normal, normal) / (normal @ normal)


def turn(x: Tensor, start: int) -> Tensor:
    return rotate(x, rotary_angles(torch.arange(start, start + len(x)), x.shape[-1]))


def turn_complex(x: Tensor, start: int) -> Tensor:
    angles = rotary_angles(torch.arange(start, start + len(x)), x.shape[-1])
    pairs = torch.view_as_complex(x.reshape(len(x), -1, 2)) * torch.polar(angles * 0 + 1, angles)
    return torch.view_as_real(pairs).flatten(1)


def turn_by_matrix(x: Tensor, start: int) -> Tensor:
    return torch.stack([row @ step(x.shape[1], start + p) for p, row in enumerate(x)])


def penalty(m: Tensor, queries: int, keys: int, shift: int | None = None) -> Tensor:
    shift = keys - queries if shift is None else shift
    place = torch.arange(queries)[:, None] + shift
    return -m[:, None, None] * (place - torch.arange(keys)).abs()


def penalty_loop(m: Tensor, queries: int, keys: int) -> Tensor:
    rows = [[-abs(i + keys - queries - j) for j in range(keys)] for i in range(queries)]
    return torch.stack([slope * torch.tensor(rows) for slope in m])


RIGHT: dict[Checker, list[Answer]] = {
    positional_encoding.check_clock: [
        clock,
        clock_loop,
        lambda p, d: interleaved(rotary_angles(p, d).sin(), rotary_angles(p, d).cos()),
    ],
    positional_encoding.check_step_matrix: [
        step,
        step_by_exponential,
        lambda d, r: torch.linalg.matrix_power(step(d, 1), r),
    ],
    positional_encoding.check_rotate_at: [turn, turn_complex, turn_by_matrix],
    positional_encoding.check_penalty: [
        penalty,
        penalty_loop,
        lambda m, n, k: torch.einsum("h,ij->hij", m, penalty(torch.ones(1), k, k)[0, k - n :]),
    ],
}

WRONG: dict[Checker, list[tuple[Answer, str]]] = {
    positional_encoding.check_clock: [
        (lambda p, d: torch.cat([(a := rotary_angles(p, d)).sin(), a.cos()], -1), "sines come"),
        (lambda p, d: interleaved((a := rotary_angles(p, d)).cos(), a.sin()), "changed places"),
        (lambda p, d: clock(p, d, power=2), "number of the pair"),
        (lambda p, d: sinusoidal_encoding(len(p), d), "2.5"),
        (lambda p, d: clock(p, d, power=-1), "not sin and cos"),
        (rotary_angles, "shape"),
        (lambda p, d: clock(p, 6), "shape"),
        (lambda p, d: clock(p[:, None].expand(-1, 4)[:, 0], d).reshape(4, 6), "raised"),
    ],
    positional_encoding.check_step_matrix: [
        (lambda d, r: step(d, -r), "backwards"),
        (lambda d, r: 2 * step(d, r), "changes lengths"),
        (one_angle, "its own angle"),
        (lambda d, r: torch.eye(d), "does not take"),
        (from_zero, "right at position 0 only"),
        (lambda d, r: step(d, r)[0], "shape"),
        (lambda d, r: step(d, 1), "does not take"),
        (lambda d, r: step(2, r), "shape"),
    ],
    positional_encoding.check_rotate_at: [
        (lambda x, s: turn(x, 0), "position 0"),
        (
            lambda x, s: rotate(x, -rotary_angles(torch.arange(s, s + len(x)), x.shape[-1])),
            "other way",
        ),
        (lambda x, s: 2 * turn(x, s), "length of a row"),
        (lambda x, s: x, "one radian"),
        (
            lambda x, s: rotate(
                x, rotary_angles(torch.arange(s, s + len(x)), x.shape[1], base=100.0)
            ),
            "other pairs",
        ),
        (lambda x, s: turn(x, s)[:1], "shape"),
        (lambda x, s: turn(x, 7), "with other inputs it went well"),
        (lambda x, s: rotate(x, rotary_angles(torch.arange(s, s + 5), 6)), "raised"),
    ],
    positional_encoding.check_penalty: [
        (lambda m, n, k: -penalty(m, n, k), "never gains"),
        (lambda m, n, k: alibi_bias(len(m), n, k), "slopes of its own"),
        (lambda m, n, k: penalty(m, n, k, shift=0), "own key"),
        (lambda m, n, k: 2 * penalty(m, n, k), "minus slope times distance"),
        (lambda m, n, k: penalty(m, n, k)[0], "shape"),
        (lambda m, n, k: penalty(m, 3, 3), "shape"),
        (lambda m, n, k: penalty(m[:2], n, k), "shape"),
    ],
}
