"""Right and typical wrong answers to the exercises of the chapter on several heads."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from attnbook import MultiHeadAttention
from attnbook.exercises import Checker, multi_head_attention

Answer = Callable[..., object]


def by_einops(
    x: Tensor,
    w_q: Tensor,
    w_k: Tensor,
    w_v: Tensor,
    w_o: Tensor,
    heads: int,
    *,
    split: str = "n (h d) -> h n d",
    join: str = "h n d -> n (h d)",
    scale: float | None = None,
    axis: int = -1,
) -> Tensor:
    q, k, v = (rearrange(x @ w, split, h=heads) for w in (w_q, w_k, w_v))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return rearrange((q @ k.mT * scale).softmax(axis) @ v, join) @ w_o


def by_loop(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, heads: int) -> Tensor:
    d, output = x.shape[1] // heads, torch.zeros(len(x), w_o.shape[1])
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        scores = (x @ w_q[:, part]) @ (x @ w_k[:, part]).T / d**0.5
        output += scores.softmax(-1) @ (x @ w_v[:, part]) @ w_o[part]
    return output


def by_module(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, heads: int) -> Tensor:
    module = MultiHeadAttention(x.shape[1], heads, bias=False)
    projections = (module.q_proj, module.k_proj, module.v_proj, module.out_proj)
    for projection, matrix in zip(projections, (w_q, w_k, w_v, w_o), strict=True):
        projection.weight = torch.nn.Parameter(matrix.T)
    return module(x).detach()


def by_pytorch(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, w_o: Tensor, heads: int) -> Tensor:
    q, k, v = (rearrange(x @ w, "n (h d) -> 1 h n d", h=heads) for w in (w_q, w_k, w_v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "1 h n d -> n (h d)") @ w_o


def count(model: int, heads: int, kv_heads: int) -> int:
    keys = model // heads * kv_heads
    return 2 * (model * model + model) + 2 * (model * keys + keys)


RIGHT: dict[Checker, list[Answer]] = {
    multi_head_attention.check_split_heads: [
        lambda x, h: rearrange(x, "b n (h d) -> b h n d", h=h),
        lambda x, h: x.unflatten(-1, (h, -1)).transpose(1, 2),
        lambda x, h: torch.stack(x.chunk(h, dim=-1), dim=1),
    ],
    multi_head_attention.check_multi_head: [by_einops, by_loop, by_module, by_pytorch],
    multi_head_attention.check_share_keys: [
        lambda k, h: repeat(k, "kv n d -> (kv group) n d", group=h // len(k)),
        lambda k, h: k.repeat_interleave(h // len(k), dim=0),
        lambda k, h: torch.stack([k[i * len(k) // h] for i in range(h)]),
    ],
    multi_head_attention.check_count: [
        count,
        lambda m, h, kv: (m + 1) * (2 * m + 2 * kv * (m // h)),
        lambda m, h, kv: sum(
            p.numel() for p in MultiHeadAttention(m, h, num_kv_heads=kv).parameters()
        ),
    ],
}

WRONG: dict[Checker, list[tuple[Answer, str]]] = {
    multi_head_attention.check_split_heads: [
        (lambda x, h: rearrange(x, "b n (d h) -> b h n d", h=h), "first 3"),
        (lambda x, h: x.reshape(x.shape[0], h, x.shape[1], -1), "several positions"),
        (lambda x, h: rearrange(x, "b n (h d) -> b h d n", h=h), "rows"),
        (lambda x, h: rearrange(x, "b n (h d) -> b n h d", h=h), "shape"),
        (lambda x, h: rearrange(x, "b n (h d) -> b h n d", h=h).flip(1), "order"),
        (lambda x, h: x.tolist(), "not a tensor"),
        (lambda x, h: rearrange(x, "b n (h d) -> b h n d", h=4), "with other inputs it went well"),
        (lambda x, h: x.reshape(2, 3, h, -1).transpose(1, 2), "raised RuntimeError"),
    ],
    multi_head_attention.check_multi_head: [
        (lambda x, q, k, v, o, h: by_einops(x, q, k, v, torch.eye(len(o)), h), "multiply by W"),
        (lambda *a: by_einops(*a, scale=1.0), "not divided by sqrt"),
        (lambda *a: by_einops(*a, scale=len(a[1]) ** -0.5), "model's width"),
        (lambda x, q, k, v, o, h: by_einops(x, q, k, v, o, 1), "one wide head"),
        (lambda *a: by_einops(*a, join="h n d -> n (d h)"), "(d heads)"),
        (lambda x, q, k, v, o, h: by_einops(x, k, q, v, o, h), "changed places"),
        (lambda *a: by_einops(*a, axis=0), "over the heads"),
        (lambda *a: by_einops(*a, axis=-2), "not [head_1"),
        (lambda *a: by_einops(*a, split="n (d h) -> h n d"), "not [head_1"),
        (lambda *a: by_einops(*a).T, "shape"),
        (lambda *a: by_einops(*a[:-1], 3), "raised|1 other inputs"),
        (lambda *a: by_einops(*a, scale=0.5), "with other inputs it went well"),
    ],
    multi_head_attention.check_share_keys: [
        (lambda k, h: repeat(k, "kv n d -> (group kv) n d", group=h // len(k)), "neighbours"),
        (lambda k, h: k.repeat(h // len(k), 1, 1), "neighbours"),
        (lambda k, h: k, "shape"),
        (lambda k, h: k.repeat_interleave(h // len(k), dim=0).flip(0), "unchanged copy"),
        (lambda k, h: repeat(k.mean(0), "n d -> h n d", h=h), "unchanged copy"),
        (lambda k, h: k.repeat_interleave(3, dim=0), "with other inputs it went well"),
    ],
    multi_head_attention.check_count: [
        (lambda m, h, kv: 2 * m * m + 2 * m * kv * (m // h), "biases"),
        (lambda m, h, kv: 4 * m * (m + 1), "here 2 are shared"),
        (lambda m, h, kv: (m + 1) * (m + 2 * kv * (m // h)), r"W^O"),
        (lambda m, h, kv: h * count(m, h, kv), "but should be"),
        (lambda m, h, kv: float(count(m, h, kv)), "whole number"),
        (lambda m, h, kv: count(m, 8, kv), "but the layer has|but should be"),
    ],
}
