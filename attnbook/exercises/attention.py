"""Checkers for the exercises of the chapter "Attention, a soft lookup"."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import einsum, rearrange
from torch import Tensor

from attnbook.attention import masked_softmax
from attnbook.exercises import Case, checker


@checker
def check_masked_weights() -> Iterator[Case]:
    """Check masked_weights(scores, mask): the softmax over the permitted keys, in each row."""
    for queries, keys in ((4, 5), (3, 2)):
        scores, mask = torch.randn(queries, keys), torch.rand(queries, keys) < 0.5
        mask[0], mask[1:-1, 0], mask[1:-1, 1], mask[-1] = True, True, False, False
        scores[1] -= 30  # so low that a forbidden key may not get -10 instead of -inf
        yield Case(
            (scores, mask),
            masked_softmax(scores, mask),
            mistakes=[
                (
                    masked_softmax(scores, ~mask),
                    "Forbidden keys get the weight and permitted ones none: True means "
                    "'may attend'.",
                ),
                (
                    scores.softmax(-1) * mask,
                    "Forbidden weights are set to 0 after the softmax, so a row no longer sums to "
                    "1: set their scores to -inf before it.",
                ),
                (
                    scores.masked_fill(~mask, -torch.inf).softmax(-1),
                    "The row in which no key is permitted is NaN: 0/0. Its weights should be 0.",
                ),
            ],
            signs=[
                (
                    lambda weights: not torch.allclose(weights[:-1].sum(-1), torch.ones(1)),
                    "A row does not sum to 1: is the softmax over the keys, and over the permitted "
                    "only?",
                ),
                (
                    lambda weights, mask=mask: (weights[:-1][~mask[:-1]] != 0).any(),
                    "A forbidden key has weight.",
                ),
                (
                    lambda weights: (weights[-1] != 0).any(),
                    "The row in which no key is permitted should be zero; yours has weight.",
                ),
            ],
            otherwise="The weights of a row sum to 1, but are not proportional to exp(score).",
        )


@checker
def check_sharpened() -> Iterator[Case]:
    """Check sharpened(query, key, value, temperature): scaled scores divided by a temperature."""
    for queries, keys, d, features, temperature in ((6, 5, 9, 3, 0.4), (2, 7, 16, 4, 2.5)):
        query, key, value = (
            torch.randn(queries, d),
            torch.randn(keys, d),
            torch.randn(keys, features),
        )
        scores = einsum(query, key, "i d, j d -> i j")
        scaled = scores / d**0.5

        def context(scores: Tensor, axis: int = -1, value: Tensor = value) -> Tensor:
            return scores.softmax(axis) @ value

        yield Case(
            (query, key, value, temperature),
            context(scaled / temperature),
            mistakes=[
                (
                    context(scores / temperature),
                    f"The scores are not divided by sqrt(d), here sqrt({d}).",
                ),
                (
                    context(scores / d / temperature),
                    "The scores are divided by d, not by its square root.",
                ),
                (
                    context(scaled * temperature),
                    "A low temperature makes yours softer: divide by it.",
                ),
                (context(scaled), "The temperature has no effect."),
                (
                    context(scaled / temperature, axis=0),
                    "The weights of a key sum to 1 over the queries: is the softmax over the keys?",
                ),
            ],
            otherwise="The result is not the weighted average of the values that it should be.",
        )


@checker
def check_additive_scores() -> Iterator[Case]:
    """Check additive_scores(query, key, w, u, v): v . tanh(W q + U k) for every query and key."""
    for queries, keys, d, hidden in ((2, 3, 4, 4), (3, 1, 5, 2)):
        # Each query and key with its negative: scores come in both signs.
        query = torch.cat([half := torch.randn(queries, d), -half])
        key = torch.cat([half := torch.randn(keys, d), -half])
        w, u = torch.randn(2, hidden, d) / d**0.5
        v = torch.randn(hidden)

        def added(left: Tensor, right: Tensor) -> Tensor:
            return rearrange(left, "i hidden -> i 1 hidden") + right

        left, right = query @ w.T, key @ u.T
        expected = added(left, right).tanh() @ v
        mistakes = [
            (
                expected.T,
                "Queries should be the rows, keys the columns; yours are the other way round.",
            ),
            (
                added(left, right) @ v,
                "The tanh is missing: without it the query adds the same to every key's score.",
            ),
            (
                (left[:, None] * right).tanh() @ v,
                "Query and key are multiplied; this score adds them.",
            ),
            (
                added(query @ u.T, key @ w.T).tanh() @ v,
                "W belongs to the query and U to the key.",
            ),
        ]
        if d == hidden:
            transposed = "W q is sum over the columns of W: use W transposed when q is a row."
            mistakes.append((added(query @ w, key @ u).tanh() @ v, transposed))
        yield Case(
            (query, key, w, u, v),
            expected,
            mistakes,
            otherwise="The scores are not v . tanh(W q + U k).",
        )


@checker
def check_window_mask() -> Iterator[Case]:
    """Check window_mask(queries, keys, width): the newest `width` keys that a query may see."""
    for queries, keys, width in ((4, 4, 2), (2, 5, 3), (3, 3, 1), (3, 7, 4)):
        offset = torch.arange(queries)[:, None] + keys - queries - torch.arange(keys)
        expected = (offset >= 0) & (offset < width)
        most = expected.sum(-1).max()
        yield Case(
            (queries, keys, width),
            expected,
            mistakes=[(~expected, "{call} is inverted: True means 'may attend'.")],
            signs=[
                (
                    lambda mask, later=offset < 0: (mask & later).any(),
                    "In {call} a query sees keys later than its own.",
                ),
                (
                    lambda mask, most=most: mask.sum(-1).max() != most,
                    f"In {{call}} a query sees up to {most} keys, its own included; yours do not.",
                ),
            ],
            otherwise="{call} is aligned differently: the last query sees the last key.",
        )
