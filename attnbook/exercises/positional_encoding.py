"""Checkers for the exercises of the chapter on positional encoding."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from attnbook.exercises import Case, checker, same
from attnbook.positional_encoding import alibi_bias, rotary_angles, rotate, sinusoidal_encoding


@checker
def check_clock() -> Iterator[Case]:
    """Check clock(positions, dim): the sinusoidal encoding of any positions, (n, dim)."""
    for places, dim in (([0.0, 1.0, 2.5, 40.0], 6), ([7.0, 0.5], 4), ([3.0], 2)):
        positions = torch.tensor(places)
        angles = rotary_angles(positions, dim)
        twice = positions[:, None] * 10_000.0 ** -(2 * torch.arange(0, dim, 2) / dim)
        yield Case(
            (positions, dim),
            _pairs(angles.sin(), angles.cos()),
            mistakes=[
                (
                    torch.cat([angles.sin(), angles.cos()], dim=-1),
                    "All sines come first, then all cosines: here those of a pair are neighbours.",
                ),
                (
                    _pairs(angles.cos(), angles.sin()),
                    "Sine and cosine have changed places: position 0 is 0, 1, 0, 1, ...",
                ),
                (
                    _pairs(twice.sin(), twice.cos()),
                    "The exponent is 2 i / dim with i the number of the pair, not of the feature.",
                ),
                (
                    sinusoidal_encoding(len(places), dim),
                    f"Use the positions that are given, here {places}, not 0, 1, 2, ...",
                ),
            ],
            otherwise="The numbers are not sin and cos of position / 10000^(2 i / dim).",
        )


def _pairs(first: Tensor, second: Tensor) -> Tensor:
    return rearrange([first, second], "two n pair -> n (pair two)")


@checker
def check_step_matrix() -> Iterator[Case]:
    """Check step_matrix(dim, steps): the matrix R with PE(p + steps) = R PE(p) for every p."""
    for dim, steps in ((2, 1), (6, 5), (4, 3)):
        angles = rotary_angles(torch.tensor([steps]), dim)[0]
        turn = torch.stack([angles.cos(), angles.sin(), -angles.sin(), angles.cos()], dim=-1)
        expected = torch.block_diag(*rearrange(turn, "pair (row column) -> pair row column", row=2))
        start = sinusoidal_encoding(1, dim)[0]
        yield Case(
            (dim, steps),
            expected,
            mistakes=[
                (expected.T, f"{{call}} goes backwards: it takes PE(p + {steps}) to PE(p)."),
            ],
            signs=[
                (
                    lambda matrix, dim=dim: not same(matrix @ matrix.T, torch.eye(dim)),
                    "{call} changes lengths: a rotation times its transpose is the unit matrix.",
                ),
                (
                    lambda matrix, start=start, there=expected @ start: (
                        not same(matrix @ start, there)
                    ),
                    f"{{call}} does not take PE(0) to PE({steps}): does each pair have its own "
                    "angle?",
                ),
            ],
            otherwise="{call} is right at position 0 only: it may not depend on where you start.",
        )


@checker
def check_rotate_at() -> Iterator[Case]:
    """Check rotate_at(x, start): x, (n, d), turned as the positions start, start + 1, ..."""
    for n, d, start in ((5, 6, 7), (3, 4, 2), (1, 8, 40)):
        x, place = torch.randn(n, d), torch.arange(n)
        angles = rotary_angles(place + start, d)
        expected = rotate(x, angles)
        yield Case(
            (x, start),
            expected,
            mistakes=[
                (
                    rotate(x, rotary_angles(place, d)),
                    "The first row is turned as position 0: a decoder's new query does not start "
                    "there.",
                ),
                (
                    rotate(x, -angles),
                    "It turns the other way: (a, b) becomes (a cos - b sin, a sin + b cos).",
                ),
            ],
            signs=[
                (
                    lambda turned, x=x: not same(turned.norm(dim=-1), x.norm(dim=-1)),
                    "It changes the length of a row; a rotation does not.",
                ),
                (
                    lambda turned, expected=expected: not same(turned[:, :2], expected[:, :2]),
                    "The first pair, features 0 and 1, should turn by one radian a position.",
                ),
            ],
            otherwise="The other pairs turn too fast or too slowly: pair i by p / 10000^(2 i / d).",
        )


@checker
def check_penalty() -> Iterator[Case]:
    """Check penalty(slopes, queries, keys): ALiBi's bias, the last query at the last key."""
    for heads, queries, keys in ((2, 3, 3), (4, 2, 5), (1, 3, 4)):
        slopes = torch.rand(heads) + 0.1
        offset = torch.arange(queries)[:, None] + keys - queries - torch.arange(keys)
        yield Case(
            (slopes, queries, keys),
            -slopes[:, None, None] * offset.abs(),
            mistakes=[
                (
                    alibi_bias(heads, queries, keys),
                    "{call} uses slopes of its own instead of those that are given.",
                )
            ],
            signs=[
                (
                    lambda bias: (bias > 0).any(),
                    "{call} has positive entries: a key never gains by its distance.",
                ),
                (
                    lambda bias, own=offset == 0: (bias[:, own] != 0).any(),
                    "{call} is not 0 where a query meets its own key: the last query is at the "
                    "last.",
                ),
            ],
            otherwise="{call} is not minus slope times distance.",
        )
