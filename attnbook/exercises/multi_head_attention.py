"""Checkers for the exercises of the chapter "Multi-head attention, several lookups at once"."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange, repeat

from attnbook.attention import attend
from attnbook.costs import parameters
from attnbook.exercises import Answer, checker, same, wrong_shape
from attnbook.multi_head_attention import MultiHeadAttention


@checker
def check_split_heads(split_heads: Answer) -> Iterator[str]:
    """Check split_heads(x, heads): (batch, n, features) to (batch, heads, n, d)."""
    x = torch.randn(2, 3, 12)
    expected = rearrange(x, "b n (heads d) -> b heads n d", heads=4)
    answer = split_heads(x.clone(), 4)
    yield from filter(None, [wrong_shape(answer, expected)])
    if same(answer, rearrange(x, "b n (d heads) -> b heads n d", heads=4)):
        yield "Head 0 gets features 0, 4 and 8. It should get the first three: (heads d)."
    if same(answer, x.reshape(2, 4, 3, 3)):
        yield "A head holds features of several positions: move the axis of heads, do not reshape."
    if same(answer.mT, expected):
        yield "Within a head, positions should be the rows and features the columns."
    if not same(answer, expected):
        yield "The numbers are not those of x, in the order (heads d)."


@checker
def check_multi_head(multi_head: Answer) -> Iterator[str]:
    """Check multi_head(x, w_q, w_k, w_v, w_o, heads): self-attention of x with several heads."""
    x, *matrices = torch.randn(5, 12), *(torch.randn(4, 12, 12) / 12**0.5)  # scores stay small
    q, k, v = (rearrange(x @ w, "n (heads d) -> heads n d", heads=3) for w in matrices[:3])

    def output(q: torch.Tensor, k: torch.Tensor, heads: str = "n (heads d)") -> torch.Tensor:
        return rearrange(attend(q, k, v)[0], f"heads n d -> {heads}") @ matrices[3]

    expected = output(q, k)
    answer = multi_head(x.clone(), *matrices, 3)
    yield from filter(None, [wrong_shape(answer, expected)])
    if same(answer, rearrange(attend(q, k, v)[0], "heads n d -> n (heads d)")):
        yield "The heads are joined, but not mixed: multiply by W^O."
    if same(answer, output(2 * q, k)):
        yield "The scores are not divided by sqrt(d)."
    if same(answer, output(q / 3**0.5, k)):
        yield "The scores are divided by the root of the model's width. A head is only d wide."
    if same(answer, attend(x @ matrices[0], x @ matrices[1], x @ matrices[2])[0] @ matrices[3]):
        yield "This is one wide head: split queries, keys and values before the scores."
    if same(answer, output(q, k, "n (d heads)")):
        yield "The heads are joined as (d heads): the first d features should be those of head 0."
    if same(answer, output(k, q)):
        yield "Queries and keys have changed places."
    scores = q @ k.mT / 2
    mixed = rearrange(scores.softmax(0) @ v, "heads n d -> n (heads d)") @ matrices[3]
    if same(answer, mixed):
        yield "The softmax runs over the heads. It should run over the keys."
    if not same(answer, expected):
        yield "The output is not [head_1, ..., head_H] W^O."


@checker
def check_share_keys(share_keys: Answer) -> Iterator[str]:
    """Check share_keys(k, heads): (kv, n, d) to (heads, n, d), neighbours sharing one."""
    k = torch.randn(2, 3, 4)
    expected = repeat(k, "kv n d -> (kv group) n d", group=3)
    answer = share_keys(k.clone(), 6)
    yield from filter(None, [wrong_shape(answer, expected)])
    if same(answer, repeat(k, "kv n d -> (group kv) n d", group=3)):
        yield "Heads 0, 2 and 4 share; it should be heads 0, 1 and 2: neighbours, (kv group)."
    if not same(answer, expected):
        yield "Each head of queries should get an unchanged copy of one head of keys."


@checker
def check_count(count: Answer) -> Iterator[str]:
    """Check count(model, heads, kv_heads): the parameters of a layer, with its biases."""
    for model, heads, kv_heads in ((512, 8, 8), (512, 8, 2), (96, 6, 1)):
        module = MultiHeadAttention(model, heads, num_kv_heads=kv_heads, device="meta")
        expected, call = parameters(module), f"count({model}, {heads}, {kv_heads})"
        answer = count(model, heads, kv_heads)
        if answer == expected and isinstance(answer, int):
            continue
        if not isinstance(answer, int):
            yield f"{call} returns {type(answer).__name__}, not a whole number."
        keys = kv_heads * model // heads
        if answer == 2 * model * model + 2 * model * keys:
            yield f"{call} leaves out the biases: each projection has one number for each output."
        if answer == 4 * model * (model + 1):
            yield f"{call} gives every head of queries keys of its own; here {kv_heads} are shared."
        if answer == (model + 2 * keys) * (model + 1):
            yield f"{call} leaves out W^O."
        yield f"{call} is {answer}, but the layer has {expected} parameters."
