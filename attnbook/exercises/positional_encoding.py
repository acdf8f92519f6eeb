"""Checkers for the exercises of the chapter on positional encoding."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange

from attnbook.exercises import Answer, checker, same, wrong_shape
from attnbook.positional_encoding import alibi_bias, rotary_angles, rotate, sinusoidal_encoding


@checker
def check_clock(clock: Answer) -> Iterator[str]:
    """Check clock(positions, dim): the sinusoidal encoding of any positions, (n, dim)."""
    positions = torch.tensor([0.0, 1.0, 2.5, 40.0])
    angles = rotary_angles(positions, 6)
    expected = rearrange([angles.sin(), angles.cos()], "two n pair -> n (pair two)")
    answer = clock(positions, 6)
    yield from filter(None, [wrong_shape(answer, expected)])
    if same(answer, torch.cat([angles.sin(), angles.cos()], dim=-1)):
        yield "All sines come first, then all cosines: here those of a pair are neighbours."
    if same(answer, rearrange([angles.cos(), angles.sin()], "two n pair -> n (pair two)")):
        yield "Sine and cosine have changed places: position 0 is 0, 1, 0, 1, ..."
    twice = positions[:, None] * 10_000.0 ** -(2 * torch.arange(0, 6, 2) / 6)
    if same(answer, rearrange([twice.sin(), twice.cos()], "two n pair -> n (pair two)")):
        yield "The exponent is 2 i / dim with i the number of the pair, not of the feature."
    if same(answer[:2], expected[:2]) and not same(answer[2], expected[2]):
        yield "Position 2.5 is wrong: use the positions that are given, not 0, 1, 2, ..."
    if not same(answer, expected):
        yield "The numbers are not sin and cos of position / 10000^(2 i / dim)."


@checker
def check_step_matrix(step_matrix: Answer) -> Iterator[str]:
    """Check step_matrix(dim, steps): the matrix R with PE(p + steps) = R PE(p) for every p."""
    for dim, steps in ((2, 1), (6, 5)):
        encoding = sinusoidal_encoding(30, dim)
        matrix = step_matrix(dim, steps)
        yield from filter(None, [wrong_shape(matrix, torch.zeros(dim, dim))])
        call = f"step_matrix({dim}, {steps})"
        here, there = encoding[:-steps], encoding[steps:]
        if torch.allclose(there @ matrix.T, here, atol=1e-4):
            yield f"{call} goes backwards: it takes PE(p + {steps}) to PE(p)."
        if not torch.allclose(matrix @ matrix.T, torch.eye(dim), atol=1e-4):
            yield f"{call} changes lengths: a rotation times its transpose is the unit matrix."
        if not torch.allclose(here[0] @ matrix.T, there[0], atol=1e-4):
            yield f"{call} does not take PE(0) to PE({steps}): does each pair have its own angle?"
        if not torch.allclose(here @ matrix.T, there, atol=1e-4):
            yield f"{call} is right at position 0 only: it may not depend on where you start."


@checker
def check_rotate_at(rotate_at: Answer) -> Iterator[str]:
    """Check rotate_at(x, start): x, (n, d), turned as the positions start, start + 1, ..."""
    x = torch.randn(5, 6)
    place = torch.arange(5)
    expected = rotate(x, rotary_angles(place + 7, 6))
    answer = rotate_at(x.clone(), 7)
    yield from filter(None, [wrong_shape(answer, expected)])
    if same(answer, rotate(x, rotary_angles(place, 6))):
        yield "The first row is turned as position 0: a decoder's new query does not start there."
    if same(answer, rotate(x, -rotary_angles(place + 7, 6))):
        yield "It turns the other way: (a, b) becomes (a cos - b sin, a sin + b cos)."
    if not torch.allclose(answer.norm(dim=-1), x.norm(dim=-1), atol=1e-4):
        yield "It changes the length of a row; a rotation does not."
    if not same(answer[:, :2], expected[:, :2]):
        yield "The first pair, features 0 and 1, should turn by one radian a position."
    if not same(answer, expected):
        yield "The other pairs turn too fast or too slowly: pair i by p / 10000^(2 i / d)."


@checker
def check_penalty(penalty: Answer) -> Iterator[str]:
    """Check penalty(slopes, queries, keys): ALiBi's bias, the last query at the last key."""
    for heads, queries, keys in ((2, 3, 3), (4, 2, 5)):
        slopes = 2.0 ** -torch.arange(1, heads + 1)
        offset = torch.arange(queries)[:, None] + keys - queries - torch.arange(keys)
        expected = -slopes[:, None, None] * offset.abs()
        answer = penalty(slopes, queries, keys)
        yield from filter(None, [wrong_shape(answer, expected)])
        call = f"penalty(slopes, {queries}, {keys})"
        if (answer > 0).any():
            yield f"{call} has positive entries: a key never gains by its distance."
        if torch.equal(answer, alibi_bias(heads, queries, keys)):
            yield f"{call} uses slopes of its own instead of those that are given."
        if (answer.diagonal(keys - queries, dim1=1, dim2=2) != 0).any():
            yield f"{call} is not 0 where a query meets its own key: the last query is at the last."
        if not same(answer, expected):
            yield f"{call} is not minus slope times distance."
