"""Right and typical wrong answers to the exercises of the chapter on self-attention."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attnbook.exercises import Checker, self_attention

Answer = Callable[..., object]


def sdpa(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor) -> Tensor:
    query, key, value = (rows[None] for rows in (x @ w_q, x @ w_k, x @ w_v))
    return F.scaled_dot_product_attention(query, key, value)[0]


def by_loop(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor) -> Tensor:
    rows = []
    for a in x:
        scores = torch.stack([(a @ w_q) @ (b @ w_k) for b in x]) / math.sqrt(w_q.shape[1])
        rows.append(sum(w * (b @ w_v) for w, b in zip(scores.softmax(0), x, strict=True)))
    return torch.stack(rows)


def scores(x: Tensor, w_q: Tensor, w_k: Tensor, d: float) -> Tensor:
    return (x @ w_q) @ (x @ w_k).T / math.sqrt(d)


def scattered(shuffled: Tensor, order: Tensor) -> Tensor:
    rows = torch.zeros_like(shuffled)
    rows[order] = shuffled
    return rows


def distances(n: int, offset: float) -> Tensor:
    return torch.arange(float(n))[:, None] + offset - torch.arange(n)


def expanded(n: int, offset: float, beta: float) -> Tensor:
    place = torch.arange(float(n))
    return 2 * beta * torch.outer(place + offset, place) - beta * place**2


RIGHT: dict[Checker, list[Answer]] = {
    self_attention.check_self_attention: [
        sdpa,
        by_loop,
        lambda x, q, k, v: (x @ (q @ k.T) @ x.T / q.shape[1] ** 0.5).softmax(1) @ x @ v,
    ],
    self_attention.check_put_back: [
        scattered,
        lambda s, o: torch.stack([s[o.tolist().index(i)] for i in range(len(s))]),
        lambda s, o: F.one_hot(o).float().T @ s,
    ],
    self_attention.check_neighbour_scores: [
        lambda n, o, b: -b * distances(n, o) ** 2,
        expanded,
        lambda n, o, b: torch.tensor([[-b * (i + o - j) ** 2 for j in range(n)] for i in range(n)]),
    ],
    self_attention.check_layer_multiply_adds: [
        lambda n, x, d, c: 3 * n * x * d + 2 * d * (n * (n + 1) // 2 if c else n**2),
        lambda n, x, d, c: n * d * (3 * x + (n + 1 if c else 2 * n)),
        lambda n, x, d, c: sum(3 * x * d + 2 * d * (i + 1 if c else n) for i in range(n)),
    ],
}

WRONG: dict[Checker, list[tuple[Answer, str]]] = {
    self_attention.check_self_attention: [
        (lambda x, q, k, v: scores(x, q, k, 1).softmax(-1) @ x @ v, "not divided by sqrt"),
        (lambda x, q, k, v: scores(x, q, k, len(q)).softmax(-1) @ x @ v, "not of a token"),
        (lambda x, q, k, v: scores(x, q, k, 9).softmax(0) @ x @ v, "over the keys"),
        (lambda x, q, k, v: sdpa(x, k, q, v), "changed places"),
        (lambda x, q, k, v: sdpa(x, q, q, v), "same matrix"),
        (lambda x, q, k, v: sdpa(x, k, k, v), "same matrix"),
        (lambda x, q, k, v: scores(x, q, k, 9).softmax(-1), "These are the weights"),
        (lambda x, q, k, v: scores(x, q, k, 9).softmax(-1) @ x, "project them"),
        (lambda x, q, k, v: scores(x, q, k, 9) @ x @ v, "is not softmax"),
        (lambda x, q, k, v: (x @ v).T, "shape"),
        (
            lambda x, q, k, v: scores(x, q, k, 9).softmax(-1) @ x @ v,
            "with other inputs it went well",
        ),
        (lambda x, q, k, v: sdpa(x.reshape(5, 4), q, k, v), "raised RuntimeError"),
    ],
    self_attention.check_put_back: [
        (lambda s, o: s, "still in the shuffled order"),
        (lambda s, o: s[o], "once more"),
        (lambda s, o: s.flip(0), "elsewhere"),
        (lambda s, o: s[o.argsort()].T, "shape"),
        (lambda s, o: o.argsort(), "shape"),
        (lambda s, o: s[[1, 4, 0, 2, 3]], "raised IndexError"),
    ],
    self_attention.check_neighbour_scores: [
        (lambda n, o, b: -b * distances(n, -o) ** 2, "sign of the offset"),
        (lambda n, o, b: b * distances(n, o) ** 2, "minus sign"),
        (lambda n, o, b: -b * distances(n, 0) ** 2, "own position"),
        (lambda n, o, b: -(distances(n, o) ** 2), "beta has no effect"),
        (lambda n, o, b: -b * distances(n, o).abs(), "these are not the weights"),
        (lambda n, o, b: -b * distances(n, o)[0] ** 2, "shape"),
        (lambda n, o, b: -b * distances(6, o) ** 2, "shape"),
        (lambda n, o, b: -0.3 * distances(n, o) ** 2, "these are not the weights"),
        (lambda n, o, b: -b * distances(n, 2) ** 2, "these are not the weights"),
    ],
    self_attention.check_layer_multiply_adds: [
        (lambda n, x, d, c: 2 * n * n * d, "leaves out the three projections"),
        (lambda n, x, d, c: 3 * n * x * d + n * n * d, "scores or average"),
        (lambda n, x, d, c: n * x * d + 2 * n * n * d, "one projection"),
        (lambda n, x, d, c: 3 * n * x * d + 2 * n * n * d, "pairs that are not seen"),
        (lambda n, x, d, c: 3 * n * x * d + (n * (n - 1) if c else 2 * n * n) * d, "sees itself"),
        (lambda n, x, d, c: 1, "but should be"),
        (lambda n, x, d, c: 3 * n * x * d + 2 * d * (55 if c else n * n), "but should be"),
    ],
}
