"""Checkers for the exercises of the chapter "Self-attention, a sequence that looks itself up"."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange

from attnbook.attention import attend
from attnbook.exercises import Answer, checker, same, wrong_shape
from attnbook.self_attention import SelfAttention


@checker
def check_self_attention(self_attention: Answer) -> Iterator[str]:
    """Check self_attention(x, w_q, w_k, w_v): the output of one head, from its three matrices."""
    x, w_v = torch.randn(5, 4), torch.randn(4, 3)
    w_q, w_k = torch.randn(2, 4, 9)
    query, key, value = x @ w_q, x @ w_k, x @ w_v
    expected, weights = attend(query, key, value)
    answer = self_attention(x, w_q, w_k, w_v)
    if same(answer, weights):
        yield "These are the weights; the output is the average of the values with these weights."
    if same(answer, weights @ x):
        yield "What is averaged are the tokens themselves: project them with W^V first."
    yield from filter(None, [wrong_shape(answer, expected)])
    if same(answer, (query @ key.T).softmax(-1) @ value):
        yield "The scores are not divided by sqrt(d), here sqrt(9): d is the size of a query."
    if same(answer, attend(query * 9**0.5 / 4**0.5, key, value)[0]):
        yield "The scores are divided by sqrt(4): d is the size of a query, not of a token."
    if same(answer, (query @ key.T / 3).softmax(0) @ value):
        yield "The weights of a key sum to 1 over the queries: is the softmax over the keys?"
    if same(answer, attend(key, query, value)[0]):
        yield "Queries and keys have changed places: rows belong to the token that asks."
    if same(answer, attend(query, query, value)[0]) or same(answer, attend(key, key, value)[0]):
        yield "Queries and keys are made with the same matrix."
    if not same(answer, expected):
        yield "The output is not softmax(x W_q (x W_k)^T / sqrt(d)) x W_v."


@checker
def check_put_back(put_back: Answer) -> Iterator[str]:
    """Check put_back(shuffled, order): the output for x, from the output for x[order]."""
    layer, x = SelfAttention(4), torch.randn(5, 4)
    order = torch.tensor([2, 0, 3, 4, 1])  # not its own inverse
    with torch.no_grad():
        expected, shuffled = layer(x), layer(x[order])
    answer = put_back(shuffled.clone(), order)
    yield from filter(None, [wrong_shape(answer, expected)])
    if same(answer, shuffled):
        yield "The rows are still in the shuffled order."
    if same(answer, shuffled[order]):
        yield "The order is applied once more; what undoes it is its inverse."
    if not same(answer, expected):
        yield "Row i of `shuffled` belongs to token order[i]; yours ends up somewhere else."


@checker
def check_neighbour_scores(neighbour_scores: Answer) -> Iterator[str]:
    """Check neighbour_scores(n, offset, beta): the same softmax as -beta (i + offset - j)^2."""
    n, offset, beta = 6, 2, 0.3
    place = torch.arange(float(n))

    def weights(offset: float, beta: float, axis: int = -1) -> torch.Tensor:
        distance = rearrange(place, "i -> i 1") + offset - place
        return (-beta * distance.square()).softmax(axis)

    scores = neighbour_scores(n, offset, beta)
    yield from filter(None, [wrong_shape(scores, weights(offset, beta))])
    answer = scores.softmax(-1)
    if same(answer, weights(-offset, beta)):
        yield "Your query i looks at i - offset: is the sign of the offset right?"
    if same(answer, weights(offset, -beta)):
        yield "The farthest key scores highest: the square needs a minus sign."
    if same(answer, weights(0, beta)):
        yield "The offset has no effect: every query looks at its own position."
    if same(answer, weights(offset, 1.0)):
        yield "beta has no effect."
    if not same(answer, weights(offset, beta)):
        yield "After a softmax over the keys these are not the weights of -beta (i + offset - j)^2."


@checker
def check_layer_multiply_adds(layer_multiply_adds: Answer) -> Iterator[str]:
    """Check layer_multiply_adds(n, d_x, d, is_causal): projections, scores and average."""
    n, d_x, d = 10, 7, 3
    projections, pairs = 3 * n * d_x * d, {False: n * n, True: n * (n + 1) // 2}
    for is_causal, seen in pairs.items():
        count = layer_multiply_adds(n, d_x, d, is_causal)
        call = f"layer_multiply_adds({n}, {d_x}, {d}, {is_causal})"
        if count == 2 * seen * d:
            yield f"{call} leaves out the three projections."
        if count in (projections + seen * d, seen * d):
            yield f"{call} counts scores or average, but both take a product for each pair."
        if count == projections // 3 + 2 * seen * d:
            yield f"{call} counts one projection; there are three."
        if is_causal and count == projections + 2 * pairs[False] * d:
            yield f"{call} counts pairs that are not seen."
        if is_causal and count == projections + n * (n - 1) * d:
            yield f"{call} leaves out that every token sees itself."
        if count != projections + 2 * seen * d:
            yield f"{call} is {count}, but should be {projections + 2 * seen * d}."
