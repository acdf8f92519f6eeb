"""Checkers for the exercises of the chapter "Attention, a soft lookup"."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import einsum, rearrange

from attnbook.attention import AdditiveScore, masked_softmax
from attnbook.exercises import Answer, checker, same, wrong_shape


@checker
def check_masked_weights(masked_weights: Answer) -> Iterator[str]:
    """Check masked_weights(scores, mask): the softmax over the permitted keys, in each row."""
    scores, mask = torch.randn(3, 4), torch.rand(3, 4) < 0.5
    mask[0], mask[1, :2], mask[2] = True, torch.tensor([True, False]), False
    expected = masked_softmax(scores, mask)
    weights = masked_weights(scores.clone(), mask)
    yield from filter(None, [wrong_shape(weights, expected)])
    if same(weights, masked_softmax(scores, ~mask)):
        yield "Forbidden keys get the weight and permitted ones none: True means 'may attend'."
    if weights[2].isnan().any():
        yield "The row in which no key is permitted is NaN: 0/0. Its weights should be 0."
    if not torch.allclose(weights[:2].sum(-1), torch.ones(2)):
        yield "A row does not sum to 1: is the softmax over the keys, and over the permitted only?"
    if (weights[:2][~mask[:2]] != 0).any():
        yield "A forbidden key has weight."
    if (weights[2] != 0).any():
        yield "The row in which no key is permitted should be zero; yours has weight."
    if not same(weights, expected):
        yield "The weights of a row sum to 1, but are not proportional to exp(score)."


@checker
def check_sharpened(sharpened: Answer) -> Iterator[str]:
    """Check sharpened(query, key, value, temperature): scaled scores divided by a temperature."""
    query, key, value = torch.randn(2, 9), torch.randn(5, 9), torch.randn(5, 3)
    scores = einsum(query, key, "i d, j d -> i j")

    def context(scores: torch.Tensor, axis: int = -1) -> torch.Tensor:
        return scores.softmax(axis) @ value

    temperature = 0.4
    answer = sharpened(query, key, value, temperature)
    yield from filter(None, [wrong_shape(answer, context(scores))])
    if same(answer, context(scores / temperature)):
        yield "The scores are not divided by sqrt(d), here sqrt(9)."
    if same(answer, context(scores / 9 / temperature)):
        yield "The scores are divided by d, not by its square root."
    if same(answer, context(scores / 3 * temperature)):
        yield "A low temperature makes yours softer: divide by it."
    if same(answer, context(scores / 3)):
        yield "The temperature has no effect."
    if same(answer, context(scores / 3 / temperature, axis=0)):
        yield "The weights of a key sum to 1 over the queries: is the softmax over the keys?"
    if not same(answer, context(scores / 3 / temperature)):
        yield "The result is not the weighted average of the values that it should be."


@checker
def check_additive_scores(additive_scores: Answer) -> Iterator[str]:
    """Check additive_scores(query, key, w, u, v): v . tanh(W q + U k) for every query and key."""
    module = AdditiveScore(query_dim=4, key_dim=4, hidden_dim=4)
    query, key = torch.randn(3, 4), torch.randn(5, 4)
    w, u, v = (x.detach() for x in (module.w.weight, module.u.weight, module.v.weight[0]))
    expected = module(query, key).detach()
    answer = additive_scores(query, key, w, u, v)
    if isinstance(answer, torch.Tensor) and answer.shape == (5, 3):
        yield "Queries should be the rows, keys the columns; yours are the other way round."
    yield from filter(None, [wrong_shape(answer, expected)])
    left, right = rearrange(query @ w.T, "i h -> i 1 h"), rearrange(key @ u.T, "j h -> 1 j h")
    if same(answer, (left + right) @ v):
        yield "The tanh is missing: without it the query adds the same to every key's score."
    if same(answer, torch.tanh(left * right) @ v):
        yield "Query and key are multiplied; this score adds them."
    if same(answer, torch.tanh((query @ u.T)[:, None] + (key @ w.T)[None]) @ v):
        yield "W belongs to the query and U to the key."
    if same(answer, torch.tanh((query @ w)[:, None] + (key @ u)[None]) @ v):
        yield "W q is sum over the columns of W: use W transposed when q is a row."
    if not same(answer, expected):
        yield "The scores are not v . tanh(W q + U k)."


@checker
def check_window_mask(window_mask: Answer) -> Iterator[str]:
    """Check window_mask(queries, keys, width): the newest `width` keys that a query may see."""
    for queries, keys, width in ((4, 4, 2), (2, 5, 3), (3, 3, 1)):
        offset = torch.arange(queries)[:, None] + keys - queries - torch.arange(keys)
        expected = (offset >= 0) & (offset < width)
        mask = window_mask(queries, keys, width)
        yield from filter(None, [wrong_shape(mask, expected)])
        call = f"window_mask({queries}, {keys}, {width})"
        if torch.equal(mask, ~expected):
            yield f"{call} is inverted: True means 'may attend'."
        if (mask & (offset < 0)).any():
            yield f"In {call} a query sees keys later than its own."
        if mask.sum(-1).max() != expected.sum(-1).max():
            yield (
                f"In {call} a query sees up to {int(mask.sum(-1).max())} keys, "
                f"but should see {int(expected.sum(-1).max())}."
            )
        if not torch.equal(mask, expected):
            yield f"{call} is aligned differently: the last query sees the last key."
