"""Checkers for the exercises of the chapter "Multi-head attention, several lookups at once"."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from einops import rearrange, repeat
from torch import Tensor

from attnbook.attention import attend
from attnbook.costs import parameters
from attnbook.exercises import Case, checker
from attnbook.multi_head_attention import MultiHeadAttention


@checker
def check_split_heads() -> Iterator[Case]:
    """Check split_heads(x, heads): (batch, n, features) to (batch, heads, n, d)."""
    for batch, n, heads, d in ((2, 3, 4, 3), (1, 5, 2, 4)):
        x = torch.randn(batch, n, heads * d)
        expected = rearrange(x, "b n (heads d) -> b heads n d", heads=heads)
        yield Case(
            (x, heads),
            expected,
            mistakes=[
                (
                    rearrange(x, "b n (d heads) -> b heads n d", heads=heads),
                    f"Head 0 gets features 0, {heads} and {2 * heads}. "
                    f"It should get the first {d}: (heads d).",
                ),
                (
                    x.reshape(expected.shape),
                    "A head holds features of several positions: move the axis of heads, do not "
                    "reshape.",
                ),
                (
                    expected.mT,
                    "Within a head, positions should be the rows and features the columns.",
                ),
            ],
            otherwise="The numbers are not those of x, in the order (heads d).",
        )


@checker
def check_multi_head() -> Iterator[Case]:
    """Check multi_head(x, w_q, w_k, w_v, w_o, heads): self-attention of x with several heads."""
    for n, heads, d in ((5, 3, 4), (4, 5, 2), (1, 1, 6)):
        model = heads * d
        x, matrices = torch.randn(n, model), torch.randn(4, model, model) / model**0.5
        *projections, w_o = matrices
        q, k, v = (rearrange(x @ w, "n (heads d) -> heads n d", heads=heads) for w in projections)

        def joined(read: Tensor, order: str = "(heads d)", heads: int = heads) -> Tensor:
            return rearrange(read, f"heads n d -> n {order}", heads=heads)

        read = attend(q, k, v)[0]
        over_heads = (q @ k.mT / d**0.5).softmax(0) @ v
        yield Case(
            (x, *matrices, heads),
            joined(read) @ w_o,
            mistakes=[
                (joined(read), "The heads are joined, but not mixed: multiply by W^O."),
                (
                    joined(attend(q * d**0.5, k, v)[0]) @ w_o,
                    "The scores are not divided by sqrt(d).",
                ),
                (
                    joined(attend(q / heads**0.5, k, v)[0]) @ w_o,
                    "The scores are divided by the root of the model's width. A head is only d "
                    "wide.",
                ),
                (
                    attend(*(x @ w for w in projections))[0] @ w_o,
                    "This is one wide head: split queries, keys and values before the scores.",
                ),
                (
                    joined(read, "(d heads)") @ w_o,
                    "The heads are joined as (d heads): the first d features should be those of "
                    "head 0.",
                ),
                (joined(attend(k, q, v)[0]) @ w_o, "Queries and keys have changed places."),
                (
                    joined(over_heads) @ w_o,
                    "The softmax runs over the heads. It should run over the keys.",
                ),
            ],
            otherwise="The output is not [head_1, ..., head_H] W^O.",
        )


@checker
def check_share_keys() -> Iterator[Case]:
    """Check share_keys(k, heads): (kv, n, d) to (heads, n, d), neighbours sharing one."""
    for kv, n, d, heads in ((2, 3, 4, 6), (3, 2, 5, 12), (1, 4, 2, 3)):
        k = torch.randn(kv, n, d)
        yield Case(
            (k, heads),
            repeat(k, "kv n d -> (kv group) n d", group=heads // kv),
            mistakes=[
                (
                    repeat(k, "kv n d -> (group kv) n d", group=heads // kv),
                    f"Heads 0 and {kv} share; it should be heads 0 and 1: neighbours, (kv group).",
                )
            ],
            otherwise="Each head of queries should get an unchanged copy of one head of keys.",
        )


@checker
def check_count() -> Iterator[Case]:
    """Check count(model, heads, kv_heads): the parameters of a layer, with its biases."""
    for model, heads, kv_heads in ((512, 8, 8), (512, 8, 2), (96, 6, 1)):
        keys = kv_heads * model // heads
        yield Case(
            (model, heads, kv_heads),
            parameters(MultiHeadAttention(model, heads, num_kv_heads=kv_heads, device="meta")),
            mistakes=[
                (
                    2 * model * model + 2 * model * keys,
                    "{call} leaves out the biases: each projection has one number for each output.",
                ),
                (
                    4 * model * (model + 1),
                    "{call} gives every head of queries keys of its own; "
                    f"here {kv_heads} are shared.",
                ),
                ((model + 2 * keys) * (model + 1), "{call} leaves out W^O."),
            ],
        )
