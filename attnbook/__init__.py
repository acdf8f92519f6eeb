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
from attnbook.cbam import CBAM, ChannelAttention, SpatialAttention
from attnbook.convert import cbam_from_official, from_timm, from_torch
from attnbook.eca import EfficientChannelAttention, adaptive_kernel_size
from attnbook.multi_head_attention import KeyValueCache, MultiHeadAttention
from attnbook.positional_encoding import (
    FloaterEncoding,
    LearnedEncoding,
    RelativeBias,
    RotaryEncoding,
    SinusoidalEncoding,
    alibi_bias,
    alibi_slopes,
    relative_buckets,
    rotary_angles,
    rotate,
    sinusoidal_encoding,
)
from attnbook.self_attention import SelfAttention
from attnbook.spatial_transformer import (
    SpatialTransformer,
    affine_grid,
    bilinear_sample,
    init_identity,
)
from attnbook.squeeze_excitation import SqueezeExcitation

__all__ = [
    "CBAM",
    "AdditiveScore",
    "ChannelAttention",
    "CosineScore",
    "CrossAttention",
    "EfficientChannelAttention",
    "FloaterEncoding",
    "KeyValueCache",
    "LearnedEncoding",
    "MultiHeadAttention",
    "RelativeBias",
    "RotaryEncoding",
    "SelfAttention",
    "SinusoidalEncoding",
    "SpatialAttention",
    "SpatialTransformer",
    "SqueezeExcitation",
    "adaptive_kernel_size",
    "affine_grid",
    "alibi_bias",
    "alibi_slopes",
    "attend",
    "bilinear_sample",
    "causal_mask",
    "cbam_from_official",
    "cosine_score",
    "dot_product_score",
    "from_timm",
    "from_torch",
    "init_identity",
    "masked_softmax",
    "padding_mask",
    "relative_buckets",
    "rotary_angles",
    "rotate",
    "sinusoidal_encoding",
]

__version__ = "0.2.0.dev0"
