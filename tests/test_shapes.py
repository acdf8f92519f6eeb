"""Every public function and module takes and returns the shapes that its signature states.

Runs in a process of its own, in which jaxtyping's import hook checks each call:
`pytest --jaxtyping-packages=attnbook,beartype.beartype -m shapes`.
"""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from torch import nn

import attnbook as ab

pytestmark = pytest.mark.shapes

IMAGE = (2, 4, 5, 6)


def see(*shape):
    return torch.rand(shape) > 0.5


# What is called and, behind a colon, with what. r(2, 3) is random and has the batch axes in front
# of (2, 3); what has its own number of axes uses torch.randn.
CALLS = {
    "dot_product_score": lambda r: ab.dot_product_score(r(3, 4), r(5, 4)),
    "cosine_score": lambda r: ab.cosine_score(r(3, 4), r(5, 4), scale=torch.tensor(2.0)),
    "CosineScore": lambda r: ab.CosineScore()(r(3, 4), r(5, 4)),
    "AdditiveScore": lambda r: ab.AdditiveScore(4, 6, 8)(r(3, 4), r(5, 6)),
    "masked_softmax": lambda r: ab.masked_softmax(r(3, 5)),
    "masked_softmax: mask": lambda r: ab.masked_softmax(r(3, 5), r(3, 5) > 0),
    "masked_softmax: shared mask": lambda r: ab.masked_softmax(r(3, 5), see(1, 5)),
    "attend": lambda r: ab.attend(r(3, 4), r(5, 4), r(5, 2)),
    "attend: mask": lambda r: ab.attend(r(3, 4), r(5, 4), r(5, 2), mask=see(1, 5), bias=r(3, 1)),
    "attend: score": lambda r: ab.attend(
        r(3, 4), r(5, 6), r(5, 2), score=ab.AdditiveScore(4, 6, 8)
    ),
    "attend: shared keys": lambda r: ab.attend(r(3, 4), torch.randn(5, 4), torch.randn(5, 2)),
    "causal_mask": lambda r: (ab.causal_mask(3), ab.causal_mask(3, 5)),
    "padding_mask": lambda r: ab.padding_mask(torch.tensor([1, 3]), 3),
    "CrossAttention": lambda r: ab.CrossAttention(4, 6, head_dim=8)(r(3, 4), r(5, 6)),
    "CrossAttention: mask": lambda r: ab.CrossAttention(4)(r(3, 4), r(5, 4), r(3, 5) > 0),
    "CrossAttention.attend": lambda r: ab.CrossAttention(4).attend(r(3, 4), r(5, 4), see(1, 5)),
    "SelfAttention": lambda r: ab.SelfAttention(4, is_causal=True)(r(3, 4)),
    "SelfAttention.attend": lambda r: ab.SelfAttention(4, head_dim=6).attend(r(3, 4), see(1, 3)),
    "sinusoidal_encoding": lambda r: ab.sinusoidal_encoding(3, 4),
    "SinusoidalEncoding": lambda r: ab.SinusoidalEncoding(4)(r(3, 4)),
    "LearnedEncoding": lambda r: ab.LearnedEncoding(5, 4)(r(3, 4)),
    "rotary_angles": lambda r: (ab.rotary_angles(r(3), 4), ab.rotary_angles(torch.arange(3), 4)),
    "rotary_angles: longer": lambda r: ab.rotary_angles(r(3), 4, interpolation=2.0, ntk=4.0),
    "rotate": lambda r: (ab.rotate(r(3, 4), r(3, 2)), ab.rotate(r(3, 4), torch.randn(3, 2))),
    "RotaryEncoding": lambda r: ab.RotaryEncoding(4)(r(3, 4)),
    "RotaryEncoding: positions": lambda r: ab.RotaryEncoding(4)(r(3, 4), torch.arange(3)),
    "alibi_slopes": lambda r: ab.alibi_slopes(6),
    "alibi_bias": lambda r: (ab.alibi_bias(6, 3), ab.alibi_bias(6, 3, 5)),
    "relative_buckets": lambda r: (ab.relative_buckets(3), ab.relative_buckets(3, 5)),
    "RelativeBias": lambda r: (ab.RelativeBias(4)(3), ab.RelativeBias(4, is_causal=True)(3, 5)),
    "FloaterEncoding": lambda r: ab.FloaterEncoding(4)(3),
    "FloaterEncoding.velocity": lambda r: ab.FloaterEncoding(4).velocity(0.5, r(4)),
    "MultiHeadAttention": lambda r: ab.MultiHeadAttention(4, 2)(
        torch.randn(2, 3, 4), mask=see(2, 1, 3), bias=torch.randn(2, 2, 3, 3), is_causal=True
    ),
    "MultiHeadAttention: sizes": lambda r: ab.MultiHeadAttention(4, 2, kdim=6, vdim=8)(
        torch.randn(2, 3, 4), torch.randn(2, 5, 6), torch.randn(2, 5, 8)
    ),
    "MultiHeadAttention: one sequence": lambda r: ab.MultiHeadAttention(4, 2)(
        torch.randn(3, 4), mask=see(1, 3)
    ),
    "MultiHeadAttention.attend": lambda r: ab.MultiHeadAttention(
        8, 4, num_kv_heads=2, rotary=ab.RotaryEncoding(2)
    ).attend(torch.randn(2, 3, 8), torch.randn(2, 5, 8)),
    "MultiHeadAttention.step": lambda r: ab.MultiHeadAttention(8, 4).step(
        torch.randn(2, 3, 8),
        ab.KeyValueCache(7),
        mask=see(2, 1, 3),
        bias=torch.randn(1, 4, 3, 3),
    ),
    "MultiHeadAttention.step: one sequence": lambda r: ab.MultiHeadAttention(4, 2).step(
        torch.randn(3, 4), ab.KeyValueCache(7)
    ),
    "KeyValueCache.extend": lambda r: ab.KeyValueCache(7).extend(
        torch.randn(2, 3, 1, 4), torch.randn(2, 3, 1, 4)
    ),
    "SqueezeExcitation": lambda r: ab.SqueezeExcitation(4, 2)(torch.randn(IMAGE)),
    "SqueezeExcitation.gate": lambda r: ab.SqueezeExcitation(4, 2).gate(torch.randn(IMAGE)),
    "adaptive_kernel_size": lambda r: ab.adaptive_kernel_size(64),
    "EfficientChannelAttention": lambda r: ab.EfficientChannelAttention(4)(torch.randn(IMAGE)),
    "EfficientChannelAttention.gate": lambda r: ab.EfficientChannelAttention(4).gate(
        torch.randn(IMAGE)
    ),
    "ChannelAttention": lambda r: ab.ChannelAttention(4, 2)(torch.randn(IMAGE)),
    "ChannelAttention.gate": lambda r: ab.ChannelAttention(4, 2).gate(torch.randn(IMAGE)),
    "SpatialAttention": lambda r: ab.SpatialAttention()(torch.randn(IMAGE)),
    "SpatialAttention.gate": lambda r: ab.SpatialAttention(3).gate(torch.randn(IMAGE)),
    "CBAM": lambda r: ab.CBAM(4, 2)(torch.randn(IMAGE)),
    "CBAM.gate": lambda r: ab.CBAM(4, 2).gate(torch.randn(IMAGE)),
    "affine_grid": lambda r: ab.affine_grid(r(2, 3), 5, 6),
    "bilinear_sample": lambda r: ab.bilinear_sample(r(4, 5, 6), r(7, 8, 2)),
    "bilinear_sample: shared": lambda r: ab.bilinear_sample(r(4, 5, 6), torch.randn(7, 8, 2)),
    "SpatialTransformer": lambda r: spatial_transformer(size=(7, 8))(torch.randn(IMAGE)),
    "SpatialTransformer.theta": lambda r: spatial_transformer().theta(torch.randn(IMAGE)),
    "init_identity": lambda r: ab.init_identity(nn.Linear(4, 6)),
    "from_torch": lambda r: ab.from_torch(nn.MultiheadAttention(4, 2, batch_first=True)),
}
# These turn one module into another; test_convert.py calls them with modules from other packages.
NOT_CALLED = {"from_timm", "cbam_from_official"}


def spatial_transformer(**kwargs):
    localisation = nn.Sequential(nn.Flatten(), ab.init_identity(nn.Linear(4 * 5 * 6, 6)))
    return ab.SpatialTransformer(localisation, **kwargs)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_shapes_are_those_of_the_signature(device, call, batch):
    with device:
        call(lambda *shape: torch.randn(*batch, *shape))


def test_everything_public_is_called():
    called = {name.partition(":")[0].partition(".")[0] for name in CALLS}
    assert called | NOT_CALLED == set(ab.__all__)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ab.dot_product_score(torch.ones(2, 3, 4), torch.ones(3, 5, 4)),
        lambda: ab.masked_softmax(torch.zeros(3, 5), torch.ones(5, dtype=torch.bool)),
        lambda: ab.padding_mask(torch.tensor([[1, 3]]), 3),
    ],
    ids=["batch axes", "too few axes", "too many axes"],
)
def test_the_hook_is_active(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call()
