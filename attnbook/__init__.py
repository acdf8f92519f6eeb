"""Attention mechanisms, one module each, every one the subject of a chapter of the book."""

from attnbook.attention import (
    AdditiveScore,
    CosineScore,
    CrossAttention,
    attend,
    causal_mask,
    cosine_score,
    dot_product_score,
    masked_softmax,
    padding_mask,
)

__all__ = [
    "AdditiveScore",
    "CosineScore",
    "CrossAttention",
    "attend",
    "causal_mask",
    "cosine_score",
    "dot_product_score",
    "masked_softmax",
    "padding_mask",
]
