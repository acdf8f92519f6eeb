"""Right and typical wrong answers to the exercises of the chapter on attention."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from attnbook.exercises import Checker, attention

Answer = Callable[..., object]


def window(queries: int, keys: int, width: int, shift: int | None = None) -> Tensor:
    shift = keys - queries if shift is None else shift
    offset = torch.arange(queries)[:, None] + shift - torch.arange(keys)
    return (offset >= 0) & (offset < width)


def softmax_loop(scores: Tensor, mask: Tensor) -> Tensor:
    rows = []
    for row, permitted in zip(scores.tolist(), mask.tolist(), strict=True):
        exps = [math.exp(s) if p else 0.0 for s, p in zip(row, permitted, strict=True)]
        rows.append([e / (sum(exps) or 1.0) for e in exps])
    return torch.tensor(rows)


def fill(scores: Tensor, mask: Tensor, value: float) -> Tensor:
    return scores.masked_fill(~mask, value).softmax(-1)


def additive(q: Tensor, k: Tensor, w: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return torch.tanh((q @ w.T)[:, None] + (k @ u.T)[None]) @ v


def additive_loop(q: Tensor, k: Tensor, w: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return torch.stack([torch.stack([v @ torch.tanh(w @ a + u @ b) for b in k]) for a in q])


def sdpa(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scale)


RIGHT: dict[Checker, list[Answer]] = {
    attention.check_masked_weights: [
        lambda s, m: fill(s, m, -math.inf).nan_to_num(0.0),
        softmax_loop,
        lambda s, m: (e := s.exp() * m) / e.sum(-1, keepdim=True).clamp_min(1e-30),
    ],
    attention.check_sharpened: [
        lambda q, k, v, t: (q @ k.T / math.sqrt(q.shape[-1]) / t).softmax(-1) @ v,
        lambda q, k, v, t: sdpa(q, k, v, 1 / (q.shape[1] ** 0.5 * t)),
        lambda q, k, v, t: sdpa(q / t, k, v, q.shape[-1] ** -0.5),
    ],
    attention.check_additive_scores: [
        additive,
        additive_loop,
        lambda q, k, w, u, v: ((w @ q.T).T[:, None] + (u @ k.T).T).tanh().matmul(v),
    ],
    attention.check_window_mask: [
        window,
        lambda n, m, w: torch.ones(n, m).tril(m - n).triu(m - n - w + 1).bool(),
        lambda n, m, w: torch.tensor(
            [[0 <= i + m - n - j < w for j in range(m)] for i in range(n)]
        ),
    ],
}

WRONG: dict[Checker, list[tuple[Answer, str]]] = {
    attention.check_masked_weights: [
        (lambda s, m: fill(s, m, -math.inf), "NaN"),
        (lambda s, m: fill(s, ~m, -math.inf).nan_to_num(0.0), "may attend"),
        (lambda s, m: s.masked_fill(~m, -math.inf).softmax(0).nan_to_num(0.0), "sum to 1"),
        (lambda s, m: s.softmax(-1) * m, "after the softmax"),
        (lambda s, m: s.softmax(-1), "forbidden key has weight"),
        (lambda s, m: fill(s, m, -1e9), "should be zero"),
        (lambda s, m: fill(2 * s, m, -math.inf).nan_to_num(0.0), "proportional"),
        (lambda s, m: (s * m).softmax(-1), "sum to 1|forbidden key has weight"),
        (lambda s, m: fill(s, m, -10) * m.any(-1, keepdim=True), "forbidden key has weight"),
        (lambda s, m: torch.where(m.any(-1, True), fill(s, m, -math.inf), 0.25), "has weight"),
        (lambda s, m: torch.zeros(4, 5) + softmax_loop(s, m), "raised RuntimeError"),
        (lambda s, m: s.exp().sum(-1), "shape"),
        (lambda s, m: s.tolist(), "not a tensor"),
        (lambda s, m: m, "dtype"),
    ],
    attention.check_sharpened: [
        (lambda q, k, v, t: (q @ k.T / t).softmax(-1) @ v, "not divided by sqrt"),
        (lambda q, k, v, t: (q @ k.T / q.shape[1] / t).softmax(-1) @ v, "square root"),
        (lambda q, k, v, t: sdpa(q, k, v, t / q.shape[1] ** 0.5), "softer"),
        (lambda q, k, v, t: sdpa(q, k, v, q.shape[1] ** -0.5), "no effect"),
        (lambda q, k, v, t: (q @ k.T / 3 / t).softmax(0) @ v, "over the keys"),
        (lambda q, k, v, t: (q @ k.T / 3 / t).softmax(-1), "shape"),
        (lambda q, k, v, t: (q @ k.T / 3 / t) @ v, "weighted average"),
        (lambda q, k, v, t: (q @ k.T / 3 / t).softmax(-1) @ v, "with other inputs it went well"),
        (
            lambda q, k, v, t: sdpa(q, k, v, q.shape[1] ** -0.5 / 0.4),
            "with other inputs it went well",
        ),
        (lambda q, k, v, t: sdpa(q, k, v, k.shape[0] ** -0.5 / t), "weighted average"),
    ],
    attention.check_additive_scores: [
        (lambda q, k, w, u, v: ((q @ w.T)[:, None] + k @ u.T) @ v, "tanh is missing"),
        (lambda q, k, w, u, v: ((q @ w.T)[:, None] * (k @ u.T)).tanh() @ v, "multiplied"),
        (lambda q, k, w, u, v: additive(q, k, u, w, v), "W belongs"),
        (lambda q, k, w, u, v: additive(q, k, w.T, u.T, v), "transposed"),
        (lambda q, k, w, u, v: additive(k, q, u, w, v), "other way round"),
        (lambda q, k, w, u, v: additive(q, k, w, u, v).relu(), "not v . tanh"),
        (lambda q, k, w, u, v: additive(q, k, w, u, v).reshape(4, 6), "raised RuntimeError"),
    ],
    attention.check_window_mask: [
        (lambda n, m, w: ~window(n, m, w), "inverted"),
        (lambda n, m, w: window(n, m, w + 1), "sees up to"),
        (lambda n, m, w: window(n, m, w, shift=m - n + 1), "later than its own"),
        (lambda n, m, w: window(n, m, w).float(), "dtype"),
        (lambda n, m, w: window(n, m, w, shift=0), "sees up to|aligned"),
        (lambda n, m, w: window(n, m, m), "sees up to"),
        (lambda n, m, w: window(n, m, 2), "sees up to"),
        (lambda n, m, w: window(4, 4, w), "shape"),
    ],
}
