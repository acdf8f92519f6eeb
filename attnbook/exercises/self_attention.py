"""Checkers for the exercises of the chapter "Self-attention, a sequence that looks itself up"."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange
from torch import Tensor

from attnbook.attention import attend
from attnbook.exercises import Case, checker


@checker
def check_self_attention() -> Iterator[Case]:
    """Check self_attention(x, w_q, w_k, w_v): the output of one head, from its three matrices."""
    for n, d_x, d, d_v in ((5, 4, 9, 3), (3, 6, 2, 4), (1, 2, 3, 5)):
        x, w_v = torch.randn(n, d_x), torch.randn(d_x, d_v)
        w_q, w_k = torch.randn(2, d_x, d) / d_x**0.5
        query, key, value = x @ w_q, x @ w_k, x @ w_v
        expected, weights = attend(query, key, value)
        yield Case(
            (x, w_q, w_k, w_v),
            expected,
            mistakes=[
                (
                    weights,
                    "These are the weights; the output is the average of the values with these "
                    "weights.",
                ),
                (
                    weights @ x,
                    "What is averaged are the tokens themselves: project them with W^V first.",
                ),
                (
                    attend(query * d**0.5, key, value)[0],
                    f"The scores are not divided by sqrt(d), here sqrt({d}): d is the size of a "
                    "query.",
                ),
                (
                    attend(query * (d / d_x) ** 0.5, key, value)[0],
                    f"The scores are divided by sqrt({d_x}): d is the size of a query, not of a "
                    "token.",
                ),
                (
                    (query @ key.T / d**0.5).softmax(0) @ value,
                    "The weights of a key sum to 1 over the queries: is the softmax over the keys?",
                ),
                (
                    attend(key, query, value)[0],
                    "Queries and keys have changed places: rows belong to the token that asks.",
                ),
                *(
                    (
                        attend(both, both, value)[0],
                        "Queries and keys are made with the same matrix.",
                    )
                    for both in (query, key)
                ),
            ],
            otherwise="The output is not softmax(x W_q (x W_k)^T / sqrt(d)) x W_v.",
        )


@checker
def check_put_back() -> Iterator[Case]:
    """Check put_back(shuffled, order): the output for x, from the output for x[order]."""
    for d, order in ((4, torch.tensor([2, 0, 3, 4, 1])), (6, torch.tensor([1, 2, 3, 0]))):
        output = torch.randn(len(order), d)  # neither order is its own inverse
        shuffled = output[order]
        yield Case(
            (shuffled, order),
            output,
            mistakes=[
                (shuffled, "The rows are still in the shuffled order."),
                (
                    shuffled[order],
                    "The order is applied once more; what undoes it is its inverse.",
                ),
            ],
            otherwise="Row i of `shuffled` belongs to token order[i]; yours ends up elsewhere.",
        )


@checker
def check_neighbour_scores() -> Iterator[Case]:
    """Check neighbour_scores(n, offset, beta): the same softmax as -beta (i + offset - j)^2."""
    for n, offset, beta in ((6, 2, 0.3), (4, -1, 1.5)):
        place = torch.arange(float(n))

        def weights(offset: float, beta: float, place: Tensor = place) -> Tensor:
            distance = rearrange(place, "i -> i 1") + offset - place
            return (-beta * distance.square()).softmax(-1)

        yield Case(
            (n, offset, beta),
            weights(offset, beta),
            of=lambda scores: scores.softmax(-1),
            mistakes=[
                (
                    weights(-offset, beta),
                    "Your query i looks at i - offset: is the sign of the offset right?",
                ),
                (
                    weights(offset, -beta),
                    "The farthest key scores highest: the square needs a minus sign.",
                ),
                (
                    weights(0, beta),
                    "The offset has no effect: every query looks at its own position.",
                ),
                (weights(offset, 1.0), "beta has no effect."),
            ],
            otherwise="In {call}, after a softmax over the keys, these are not the weights of "
            "-beta (i + offset - j)^2.",
        )


@checker
def check_layer_multiply_adds() -> Iterator[Case]:
    """Check layer_multiply_adds(n, d_x, d, is_causal): projections, scores and average."""
    for n, d_x, d in ((10, 7, 3), (4, 5, 6)):
        projections = 3 * n * d_x * d
        for is_causal in (False, True):
            seen = n * (n + 1) // 2 if is_causal else n * n
            half = "{call} counts scores or average, but both take a product for each pair."
            yield Case(
                (n, d_x, d, is_causal),
                projections + 2 * seen * d,
                mistakes=[
                    (2 * seen * d, "{call} leaves out the three projections."),
                    (projections + seen * d, half),
                    (seen * d, half),
                    (
                        projections // 3 + 2 * seen * d,
                        "{call} counts one projection; there are three.",
                    ),
                    (projections + 2 * n * n * d, "{call} counts pairs that are not seen."),
                    (
                        projections + n * (n - 1) * d,
                        "{call} leaves out that every token sees itself.",
                    ),
                ],
            )
