"""Bad input, everywhere: one table of every public function and constructor, and what is refused.

CALLS holds, for each callable, right arguments and the kind of each. Every wrong value of WRONG is
put in the place of each argument of its kind: the error must be of the right type, name the
argument and show what was given. SWAPPED holds the mistakes that take two arguments to make.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import attnbook as ab
from attnbook import costs, datasets, resnet, timing, training, transformer

SIZE = {0: ValueError, -3: ValueError, 2.0: TypeError, "3": TypeError, None: TypeError}
COUNT = {-3: ValueError, 2.0: TypeError, "3": TypeError, None: TypeError}
WHOLE = torch.ones(2, 5, 8, dtype=torch.int64)
NO_TENSOR = [[[1.0, 2.0]], None, np.ones((2, 5, 8), dtype=np.float32), "x", 1.0]
NO_MASK = [
    (torch.ones(2, 5, 5), TypeError),
    (torch.ones(2, 5, 5, dtype=torch.int64), TypeError),
    ([[True]], TypeError),
    (np.ones((5, 5), dtype=bool), TypeError),
    (torch.ones(2, 9, 9, dtype=torch.bool), ValueError),
]
X, IMAGE = torch.randn(2, 5, 8), torch.randn(2, 8, 6, 7)
# For each kind of argument: values that are refused, and how.
WRONG: dict[str, list[tuple[Any, type[Exception]]]] = {
    "size": [*SIZE.items(), (True, TypeError), ([3], TypeError)],
    "size or none": [(size, how) for size, how in SIZE.items() if size is not None],
    "count": [*COUNT.items(), (True, TypeError)],
    "count or none": [(size, how) for size, how in COUNT.items() if size is not None],
    "positive": [
        (0.0, ValueError),
        (-1.0, ValueError),
        (math.nan, ValueError),
        ("1", TypeError),
        (None, TypeError),
        ([1.0], TypeError),
    ],
    "number": [(math.nan, ValueError), ("1", TypeError), (None, TypeError)],
    "share": [
        (-0.1, ValueError),
        (1.5, ValueError),
        (math.nan, ValueError),
        ("0", TypeError),
        (None, TypeError),
    ],
    "flag": [("yes", TypeError), (None, TypeError), (torch.zeros(3), TypeError)],
    "floating": [
        *((x, TypeError) for x in NO_TENSOR),
        (WHOLE, TypeError),
        (WHOLE + 0j, TypeError),
        (WHOLE > 0, TypeError),
    ],
    "floating or none": [(x, TypeError) for x in [*NO_TENSOR, WHOLE] if x is not None],
    "real": [
        *((x, TypeError) for x in NO_TENSOR),
        (WHOLE + 0j, TypeError),
        (torch.arange(5).half(), TypeError),
    ],
    "whole": [
        *((x, TypeError) for x in NO_TENSOR),
        (torch.ones(2), TypeError),
        (torch.ones(2, dtype=torch.bool), TypeError),
    ],
    "mask": NO_MASK,
    "bias": [
        (torch.ones(2, 5, 5, dtype=torch.bool), TypeError),
        ([[0.0]], TypeError),
        (torch.ones(2, 5, 5, dtype=torch.int64), TypeError),
        (torch.ones(2, 9, 9), ValueError),
    ],
    "module": [(lambda x: x, TypeError), (nn.Linear, TypeError), (None, TypeError), (3, TypeError)],
    "module or none": [(lambda x: x, TypeError), (nn.Linear, TypeError), (3, TypeError)],
    "cache": [(None, TypeError), ([], TypeError), (X, TypeError), (ab.KeyValueCache, TypeError)],
    "function": [(3, TypeError), (None, TypeError), ("dot", TypeError)],
    "function or none": [(3, TypeError), (X, TypeError), ("sigmoid", TypeError)],
}

KEYS = torch.randn(2, 2, 1, 4)  # (batch, heads, tokens, features)
MASK, BIAS = torch.ones(2, 5, 5, dtype=torch.bool), torch.zeros(2, 5, 5)
THETA = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]] * 2)
LOCALISATION = nn.Sequential(nn.Flatten(), nn.Linear(8 * 6 * 7, 6))


def gate(layer):
    return {
        f"{type(layer).__name__}.{name}": (getattr(layer, name), {"x": ("floating", IMAGE)})
        for name in ("forward", "gate")
    }


def paths(layer, **arguments):
    return {
        f"{type(layer).__name__}.{name}": (getattr(layer, name), arguments)
        for name in ("forward", "attend")
    }


def steps(layer):
    """Return the layer's step, but leave the cache of the table as it is."""
    return lambda x, cache, **terms: layer.step(x, copy.deepcopy(cache), **terms)


reads = {"mask": ("mask", MASK)}
heads = {
    "query": ("floating", X),
    "key": ("floating or none", X),
    "value": ("floating or none", X),
    **reads,
    "bias": ("bias", BIAS),
    "is_causal": ("flag", False),
}
longer = {"interpolation": ("positive", 4.0), "ntk": ("positive", 4.0)}
buckets = {
    "num_buckets": ("size", 16),
    "max_distance": ("size", 64),
    "is_causal": ("flag", False),
}
channels = {
    "channels": ("size", 16),
    "reduction": ("size", 4),
    "hidden_channels": ("size or none", None),
    "bias": ("flag", True),
}
# Each callable, and for each of its arguments the kind and a right value. "free" is refused by
# nobody here: what may be wrong with it stands in SWAPPED.
CALLS: dict[str, tuple[Any, dict[str, tuple[str, Any]]]] = {
    "dot_product_score": (ab.dot_product_score, {"query": ("floating", X), "key": ("floating", X)}),
    "cosine_score": (
        ab.cosine_score,
        {"query": ("floating", X), "key": ("floating", X), "scale": ("number", 1.0)},
    ),
    "masked_softmax": (ab.masked_softmax, {"scores": ("floating", BIAS), **reads}),
    "attend": (
        ab.attend,
        {
            "query": ("floating", X),
            "key": ("floating", X),
            "value": ("floating", X),
            "score": ("function", ab.dot_product_score),
            **reads,
            "bias": ("bias", BIAS),
            "dropout_p": ("share", 0.0),
        },
    ),
    "causal_mask": (ab.causal_mask, {"queries": ("count", 3), "keys": ("count or none", 4)}),
    "padding_mask": (
        ab.padding_mask,
        {"lengths": ("whole", torch.tensor([3, 2])), "keys": ("count", 4)},
    ),
    "CosineScore": (ab.CosineScore, {"init_scale": ("positive", 10.0)}),
    "CosineScore.forward": (ab.CosineScore(), {"query": ("floating", X), "key": ("floating", X)}),
    "AdditiveScore": (
        ab.AdditiveScore,
        {"query_dim": ("size", 8), "key_dim": ("size", 8), "hidden_dim": ("size", 8)},
    ),
    "AdditiveScore.forward": (
        ab.AdditiveScore(8, 8, 4),
        {"query": ("floating", X), "key": ("floating", X)},
    ),
    "CrossAttention": (
        ab.CrossAttention,
        {
            "query_dim": ("size", 8),
            "context_dim": ("size or none", 8),
            "head_dim": ("size or none", 8),
            "bias": ("flag", True),
        },
    ),
    **paths(ab.CrossAttention(8), x=("floating", X), context=("floating", X), **reads),
    "SelfAttention": (
        ab.SelfAttention,
        {
            "dim": ("size", 8),
            "head_dim": ("size or none", 8),
            "bias": ("flag", True),
            "is_causal": ("flag", True),
        },
    ),
    **paths(ab.SelfAttention(8), x=("floating", X), **reads),
    "MultiHeadAttention": (
        ab.MultiHeadAttention,
        {
            "embed_dim": ("size", 8),
            "num_heads": ("size", 2),
            "num_kv_heads": ("size or none", None),
            "kdim": ("size or none", None),
            "vdim": ("size or none", None),
            "bias": ("flag", True),
            "dropout": ("share", 0.0),
            "rotary": ("module or none", None),
        },
    ),
    **paths(ab.MultiHeadAttention(8, 2), **heads),
    "MultiHeadAttention.step": (
        steps(ab.MultiHeadAttention(8, 2)),
        {
            "x": ("floating", X),
            "cache": ("cache", ab.KeyValueCache(7)),
            **reads,
            "bias": ("bias", BIAS),
        },
    ),
    "KeyValueCache": (ab.KeyValueCache, {"max_length": ("size", 7)}),
    "KeyValueCache.extend": (
        ab.KeyValueCache(7).extend,
        {"keys": ("floating", KEYS), "values": ("floating", KEYS)},
    ),
    "sinusoidal_encoding": (
        ab.sinusoidal_encoding,
        {"length": ("count", 3), "dim": ("size", 4), "base": ("positive", 10.0)},
    ),
    "SinusoidalEncoding": (ab.SinusoidalEncoding, {"dim": ("size", 8)}),
    "SinusoidalEncoding.forward": (ab.SinusoidalEncoding(8), {"x": ("floating", X)}),
    "LearnedEncoding": (ab.LearnedEncoding, {"max_length": ("size", 7), "dim": ("size", 8)}),
    "LearnedEncoding.forward": (ab.LearnedEncoding(7, 8), {"x": ("floating", X)}),
    "rotary_angles": (
        ab.rotary_angles,
        {
            "positions": ("real", torch.arange(5)),
            "dim": ("size", 8),
            "base": ("positive", 10.0),
            **longer,
        },
    ),
    "rotate": (ab.rotate, {"x": ("floating", X), "angles": ("floating", torch.zeros(5, 4))}),
    "RotaryEncoding": (
        ab.RotaryEncoding,
        {"dim": ("size", 8), "base": ("positive", 10.0), **longer},
    ),
    "RotaryEncoding.forward": (
        ab.RotaryEncoding(8),
        {"x": ("floating", X), "positions": ("free", None)},
    ),
    "alibi_slopes": (ab.alibi_slopes, {"num_heads": ("size", 3)}),
    "alibi_bias": (
        ab.alibi_bias,
        {"num_heads": ("size", 3), "queries": ("count", 4), "keys": ("count or none", 5)},
    ),
    "relative_buckets": (
        ab.relative_buckets,
        {"queries": ("count", 4), "keys": ("count or none", 5), **buckets},
    ),
    "RelativeBias": (ab.RelativeBias, {"num_heads": ("size", 3), **buckets}),
    "RelativeBias.forward": (
        ab.RelativeBias(3),
        {"queries": ("count", 4), "keys": ("count or none", 5)},
    ),
    "FloaterEncoding": (
        ab.FloaterEncoding,
        {
            "dim": ("size", 8),
            "hidden_dim": ("size or none", 4),
            "step": ("positive", 0.1),
            "substeps": ("size", 2),
        },
    ),
    "FloaterEncoding.forward": (ab.FloaterEncoding(8), {"length": ("count", 3)}),
    "SqueezeExcitation": (
        ab.SqueezeExcitation,
        {
            **channels,
            "activation": ("function or none", torch.tanh),
            "gate_activation": ("function or none", torch.tanh),
        },
    ),
    **gate(ab.SqueezeExcitation(8, 2)),
    "ChannelAttention": (ab.ChannelAttention, channels),
    **gate(ab.ChannelAttention(8, 2)),
    "adaptive_kernel_size": (
        ab.adaptive_kernel_size,
        {"channels": ("size", 64), "gamma": ("positive", 2.0), "beta": ("number", 1.0)},
    ),
    "EfficientChannelAttention": (
        ab.EfficientChannelAttention,
        {
            "channels": ("size or none", 64),
            "kernel_size": ("free", None),
            "gamma": ("positive", 2.0),
            "beta": ("number", 1.0),
        },
    ),
    "EfficientChannelAttention: kernel_size": (
        ab.EfficientChannelAttention,
        {
            "channels": ("free", None),
            "kernel_size": ("size or none", 3),
            "gamma": ("free", 2.0),
            "beta": ("free", 1.0),
        },
    ),
    **gate(ab.EfficientChannelAttention(8)),
    "SpatialAttention": (ab.SpatialAttention, {"kernel_size": ("size", 7)}),
    **gate(ab.SpatialAttention()),
    "CBAM": (ab.CBAM, {**channels, "kernel_size": ("size", 7)}),
    **gate(ab.CBAM(8, 2)),
    "affine_grid": (
        ab.affine_grid,
        {"theta": ("floating", THETA), "height": ("size", 3), "width": ("size", 4)},
    ),
    "bilinear_sample": (
        ab.bilinear_sample,
        {"x": ("floating", IMAGE), "grid": ("floating", torch.zeros(2, 3, 4, 2))},
    ),
    "SpatialTransformer": (
        ab.SpatialTransformer,
        {
            "localisation": ("module", LOCALISATION),
            "size": ("free", None),
            "padding_mode": ("free", "zeros"),
        },
    ),
    "SpatialTransformer.forward": (ab.SpatialTransformer(LOCALISATION), {"x": ("floating", IMAGE)}),
    "SpatialTransformer.theta": (
        ab.SpatialTransformer(LOCALISATION).theta,
        {"x": ("floating", IMAGE)},
    ),
    "init_identity": (
        ab.init_identity,
        {"layer": ("module", nn.Linear(3, 6))},
    ),
    "from_torch": (ab.from_torch, {"module": ("module", nn.MultiheadAttention(8, 2))}),
    "from_timm": (ab.from_timm, {"module": ("unchecked module", None)}),
    "cbam_from_official": (ab.cbam_from_official, {"state_dict": ("free", None)}),
    # What surrounds the mechanisms.
    "Block": (
        transformer.Block,
        {
            "dim": ("size", 8),
            "num_heads": ("size", 2),
            "hidden_dim": ("size or none", 16),
            "num_kv_heads": ("size or none", None),
            "rotary": ("module or none", None),
            "is_causal": ("flag", True),
        },
    ),
    **paths(transformer.Block(8, 2), x=("floating", X), **reads),
    "Block.step": (
        steps(transformer.Block(8, 2, is_causal=True)),
        {"x": ("floating", X), "cache": ("cache", ab.KeyValueCache(7)), **reads},
    ),
    "EncoderLayer": (
        transformer.EncoderLayer,
        {"dim": ("size", 8), "num_heads": ("size", 2), "hidden_dim": ("size", 16)},
    ),
    **paths(transformer.EncoderLayer(8, 2, 16), x=("floating", X), **reads),
    "Encoder": (
        transformer.Encoder,
        {
            "vocabulary_size": ("size", 9),
            "dim": ("size", 8),
            "num_heads": ("size", 2),
            "num_layers": ("size", 2),
            "hidden_dim": ("size", 16),
            "max_length": ("size", 7),
        },
    ),
    **paths(
        transformer.Encoder(9, 8, 2, 1, 16, max_length=7),
        tokens=("whole", torch.ones(2, 5, dtype=torch.int64)),
        **reads,
    ),
    "mean_pool": (
        transformer.mean_pool,
        {"x": ("floating", X), "lengths": ("whole", torch.tensor([5, 2]))},
    ),
    "ResNet": (
        resnet.ResNet,
        {
            "depth": ("free", 18),
            "attention": ("free", None),
            "stride_in_1x1": ("flag", False),
            "classes": ("size", 3),
            "device": ("free", "meta"),
        },
    ),
    "ResNet.forward": (
        resnet.ResNet(18, classes=3),
        {"x": ("floating", torch.randn(2, 3, 32, 32))},
    ),
    "fit": (
        functools.partial(training.fit, nn.Linear(8, 1), lambda model, x: model(x).mean()),
        {
            "data": ("free", (torch.randn(9, 8),)),
            "steps": ("size", 6),
            "batch_size": ("size", 3),
            "lr": ("positive", 0.1),
            "weight_decay": ("number", 0.0),
            "clip": ("positive", 1.0),
            "seed": ("free", 0),
            "progress": ("free", False),
        },
    ),
    "cue_strip": (
        functools.partial(datasets.cue_strip, training=True),
        {"count": ("size", 3), "seed": ("free", 0)},
    ),
    "date_pairs": (datasets.date_pairs, {"count": ("count", 3), "seed": ("free", 0)}),
    "paired_times": (
        functools.partial(timing.paired_times, {"a": int, "b": int}),
        {"rounds": ("size", 2), "seconds": ("positive", 1e-4)},
    ),
}

REFUSED = [
    pytest.param(name, argument, value, how, id=f"{name.replace(': ', '-')}-{argument}-{number}")
    for name, (_, arguments) in CALLS.items()
    for argument, (kind, _) in arguments.items()
    for number, (value, how) in enumerate(WRONG.get(kind, []))
]


def test_the_table_is_complete():
    named = {name.partition(":")[0] for name in CALLS}
    for name in ab.__all__:
        thing = getattr(ab, name)
        assert name in named
        arguments = {
            argument
            for key, (_, found) in CALLS.items()
            if key.startswith(name)
            for argument in found
        }
        wanted = set(inspect.signature(thing).parameters) - {"device", "dtype"}
        if inspect.isclass(thing) and issubclass(thing, nn.Module):
            assert f"{name}.forward" in named
        assert wanted <= arguments, name


@pytest.mark.parametrize(
    "name", [name for name in CALLS if name not in ("from_timm", "cbam_from_official")]
)
def test_right_arguments_are_taken(name):
    call, arguments = CALLS[name]
    call(**{argument: value for argument, (_, value) in arguments.items()})


@pytest.mark.parametrize("name, argument, value, how", REFUSED)
def test_a_wrong_argument_is_named(name, argument, value, how):
    call, arguments = CALLS[name]
    right = {argument: value for argument, (_, value) in arguments.items()}
    with pytest.raises(how) as caught:
        call(**{**right, argument: value})
    said = str(caught.value)
    assert type(caught.value) is how  # and not a subclass, such as jaxtyping's
    assert re.search(rf"(?<!\w){argument}(?!\w)", said) or name in said
    shown = [str(value), f"type {type(value).__name__}", f"not a {type(value).__name__}"]
    if isinstance(value, torch.Tensor):
        shown += [str(value.dtype), str(tuple(value.shape))]
    assert value is None or any(word in said for word in shown)
    for kind in re.findall(r"has type (\w+)", said):
        assert kind == type(value).__name__


def lambda_module(output):
    """Return a module that returns the same for everything."""
    module = nn.Identity()
    module.forward = lambda x: output
    return module


MHA, CROSS = ab.MultiHeadAttention(8, 2), ab.CrossAttention(8, 6)
PADDING = torch.ones(2, 5, dtype=torch.bool)  # (batch, keys)
C = torch.randn(2, 4, 6)
NAMES = ("zeros", "border", "reflection")
# Each mistake, and words of what is said of it: what was given, what is needed, what to do.
SWAPPED: dict[str, tuple[Any, type[Exception], list[str]]] = {
    "CosineScore: no scale": (
        lambda: ab.CosineScore(0.0),
        ValueError,
        ["init_scale=0.0", "its logarithm is learned"],
    ),
    "adaptive_kernel_size: gamma": (
        lambda: ab.adaptive_kernel_size(64, 0.0),
        ValueError,
        ["gamma=0.0", ": the kernel size is divided by it"],
    ),
    "adaptive_kernel_size: beta too large": (
        lambda: ab.adaptive_kernel_size(64, 2.0, 1.1e6),
        ValueError,
        ["beta=1100000.0", "1e+06"],
    ),
    "adaptive_kernel_size: beta too small": (
        lambda: ab.adaptive_kernel_size(64, 2.0, -1.1e6),
        ValueError,
        ["beta=-1100000.0", "-1e+06"],
    ),
    "SpatialTransformer: what the network returns is whole": (
        lambda: ab.SpatialTransformer(lambda_module(torch.ones(2, 6).long()))(IMAGE),
        TypeError,
        ["what localisation returned has dtype torch.int64"],
    ),
    "SpatialTransformer: half a height": (
        lambda: ab.SpatialTransformer(LOCALISATION, size=(2.5, 28)),
        TypeError,
        ["size=(2.5, 28): height=2.5"],
    ),
    "SpatialTransformer: half a width": (
        lambda: ab.SpatialTransformer(LOCALISATION, size=(28, 2.5)),
        TypeError,
        ["size=(28, 2.5): width=2.5"],
    ),
    "affine_grid: rows that want to be theta": (
        lambda: ab.affine_grid(torch.zeros(2, 6), 3, 4),
        ValueError,
        ['; rearrange(theta, "... (xy three) -> ... xy three", xy=2) makes it so'],
    ),
    "SpatialTransformer: a class": (
        lambda: ab.SpatialTransformer(nn.Linear),
        TypeError,
        ["is a class,", " and ready to be called"],
    ),
    "SpatialTransformer: a function": (
        lambda: ab.SpatialTransformer(lambda x: x),
        TypeError,
        ["is a function,", "nn.Module"],
    ),
    "init_identity: not the whole network": (
        lambda: ab.init_identity(LOCALISATION),
        TypeError,
        ["Sequential", "the last layer of the localisation network, not the network"],
    ),
    "attend: padding mask without queries": (
        lambda: ab.attend(X, X, X, mask=PADDING),
        ValueError,
        ["(2, 5)", "(2, 5, 5)", "(batch, 1, keys)"],
    ),
    "MHA: padding mask without queries": (
        lambda: MHA(X, mask=PADDING),
        ValueError,
        ["(2, 5)", "(batch, 1, keys)"],
    ),
    "MHA: padding mask with a place for heads": (
        lambda: MHA(X, mask=PADDING[:, None, :, None, None]),
        ValueError,
        ["5 axes", "(batch, queries, keys)"],
    ),
    "MHA: a mask for each head with three axes": (
        lambda: ab.MultiHeadAttention(8, 4)(X, mask=torch.ones(4, 5, 5, dtype=torch.bool)),
        ValueError,
        ["(4, 5, 5)", "(batch, heads, queries, keys)"],
    ),
    "SelfAttention: padding mask without queries": (
        lambda: ab.SelfAttention(8)(X, PADDING),
        ValueError,
        ["(2, 5)", "(batch, 1, keys)"],
    ),
    "CrossAttention: queries and context exchanged": (
        lambda: CROSS(C, X),
        ValueError,
        ["x has 6 features", "expects 8"],
    ),
    "CrossAttention: mask transposed": (
        lambda: CROSS(X, C, torch.ones(2, 4, 5, dtype=torch.bool)),
        ValueError,
        ["(2, 4, 5)", "(2, 5, 4)"],
    ),
    "attend: key and value of different length": (
        lambda: ab.attend(X, X, X[:, 1:]),
        ValueError,
        ["5 keys", "4 values"],
    ),
    "attend: one axis": (
        lambda: ab.attend(X[0, 0], X, X),
        ValueError,
        ["query has 1 axes", "at least 2"],
    ),
    "attend: a score that returns something else": (
        lambda: ab.attend(X, X, X, score=lambda q, k: q),
        ValueError,
        ["score", "(2, 5, 8)", "(2, 5, 5)"],
    ),
    "attend: dtypes differ": (
        lambda: ab.attend(X, X.double(), X),
        TypeError,
        ["key", "float64", "float32"],
    ),
    "MHA: heads that do not divide": (
        lambda: ab.MultiHeadAttention(10, 3),
        ValueError,
        ["embed_dim=10", "num_heads=3"],
    ),
    "MHA: length and batch in two axes too many": (
        lambda: MHA(X[None]),
        ValueError,
        ["4", "(batch, length, features)"],
    ),
    "MHA: (length, batch, features) in all but the mask": (
        lambda: MHA(X.transpose(0, 1), mask=torch.ones(2, 1, 5, dtype=torch.bool)),
        ValueError,
        ["(2, 1, 5)", "batch of 5"],
    ),
    "MHA: more than a cache holds": (
        lambda: MHA.step(X, ab.KeyValueCache(3)),
        ValueError,
        ["holds 0 of max_length=3", "5 more do not fit"],
    ),
    "KeyValueCache: values without heads": (
        lambda: ab.KeyValueCache(3).extend(KEYS, KEYS[:, 0]),
        ValueError,
        ["(2, 2, 1, 4)", "(2, 1, 4)", "(batch, heads, tokens, features)"],
    ),
    "padding_mask: a mask in place of lengths": (
        lambda: ab.padding_mask(PADDING, 5),
        TypeError,
        ["lengths", "torch.bool"],
    ),
    "padding_mask: a column of lengths": (
        lambda: ab.padding_mask(torch.tensor([[3], [2]]), 5),
        ValueError,
        ["lengths", "(2, 1)"],
    ),
    "padding_mask: a length above keys": (
        lambda: ab.padding_mask(torch.tensor([3, 9]), 5),
        ValueError,
        ["9", "keys=5"],
    ),
    "padding_mask: a negative length": (
        lambda: ab.padding_mask(torch.tensor([3, -1]), 5),
        ValueError,
        ["-1", "keys=5"],
    ),
    "mean_pool: a length above n": (
        lambda: transformer.mean_pool(X, torch.tensor([5, 9])),
        ValueError,
        ["9", "5"],
    ),
    "mean_pool: another batch": (
        lambda: transformer.mean_pool(X, torch.tensor([5, 1, 2])),
        ValueError,
        ["lengths", "3", "2"],
    ),
    "LearnedEncoding: longer than its table": (
        lambda: ab.LearnedEncoding(3, 8)(X),
        ValueError,
        ["5 positions", "max_length=3"],
    ),
    "rotate: angles of another length": (
        lambda: ab.rotate(X, torch.zeros(4, 4)),
        ValueError,
        ["(4, 4)", "(2, 5, 8)"],
    ),
    "sinusoidal_encoding: odd": (
        lambda: ab.sinusoidal_encoding(3, 5),
        ValueError,
        ["dim=5", "even"],
    ),
    "SqueezeExcitation: torchvision's second argument": (
        lambda: ab.SqueezeExcitation(8, 16),
        ValueError,
        ["channels=8", "reduction=16", "hidden_channels"],
    ),
    "ECA: both": (
        lambda: ab.EfficientChannelAttention(64, kernel_size=3),
        ValueError,
        ["channels=64", "kernel_size=3"],
    ),
    "SpatialAttention: even": (
        lambda: ab.SpatialAttention(4),
        ValueError,
        ["kernel_size=4", "odd"],
    ),
    "SE: channels last": (
        lambda: ab.SqueezeExcitation(8, 2)(IMAGE.permute(0, 2, 3, 1)),
        ValueError,
        ["6 channels", "expects 8"],
    ),
    "SE: one image": (
        lambda: ab.SqueezeExcitation(8, 2)(IMAGE[0]),
        ValueError,
        ["3 axes", "(batch, channels, height, width)"],
    ),
    "affine_grid: six numbers": (
        lambda: ab.affine_grid(torch.zeros(2, 6), 3, 4),
        ValueError,
        ["(2, 6)", "(2, 3)"],
    ),
    "bilinear_sample: planes instead of pairs": (
        lambda: ab.bilinear_sample(IMAGE, torch.zeros(2, 2, 3, 4)),
        ValueError,
        ["(2, 2, 3, 4)", "2: x and y"],
    ),
    "bilinear_sample: no channels": (
        lambda: ab.bilinear_sample(IMAGE[0, 0], torch.zeros(3, 4, 2)),
        ValueError,
        ["x has 2 axes", "(channels, height, width)"],
    ),
    "SpatialTransformer: one side": (
        lambda: ab.SpatialTransformer(LOCALISATION, size=28),
        TypeError,
        ["size=28", "(height, width)"],
    ),
    "SpatialTransformer: three sides": (
        lambda: ab.SpatialTransformer(LOCALISATION, size=(3, 28, 28)),
        ValueError,
        ["(3, 28, 28)", "height"],
    ),
    "SpatialTransformer: an empty side": (
        lambda: ab.SpatialTransformer(LOCALISATION, size=(0, 28)),
        ValueError,
        ["(0, 28)", "at least 1"],
    ),
    "SpatialTransformer: half a pixel": (
        lambda: ab.SpatialTransformer(LOCALISATION, size=(2.5, 28)),
        TypeError,
        ["2.5", "whole"],
    ),
    "SpatialTransformer: a mode that is none": (
        lambda: ab.SpatialTransformer(LOCALISATION, padding_mode="constant"),
        ValueError,
        ["'constant'", *NAMES],
    ),
    "SpatialTransformer: a number for a mode": (
        lambda: ab.SpatialTransformer(LOCALISATION, padding_mode=3),
        TypeError,
        ["padding_mode=3 has type int, but must be one of ("],
    ),
    "SpatialTransformer: a side": (
        lambda: ab.SpatialTransformer(LOCALISATION, size=28),
        TypeError,
        ["size=28 has type int, but must be a pair: (height, width)"],
    ),
    "SpatialTransformer: no mode": (
        lambda: ab.SpatialTransformer(LOCALISATION, padding_mode=None),
        TypeError,
        ["None", *NAMES],
    ),
    "SpatialTransformer: five numbers": (
        lambda: ab.SpatialTransformer(nn.Sequential(nn.Flatten(), nn.Linear(336, 5)))(IMAGE),
        ValueError,
        ["(2, 5)", "(2, 6)"],
    ),
    "init_identity: a convolution": (
        lambda: ab.init_identity(nn.Conv2d(3, 6, 1)),
        TypeError,
        ["Conv2d", "nn.Linear"],
    ),
    "init_identity: a network": (
        lambda: ab.init_identity(nn.Sequential(nn.Linear(3, 6))),
        TypeError,
        ["Sequential", "nn.Linear"],
    ),
    "init_identity: five outputs": (
        lambda: ab.init_identity(nn.Linear(3, 5)),
        ValueError,
        ["5", "6"],
    ),
    "ResNet: a module for all blocks": (
        lambda: resnet.resnet18(ab.SqueezeExcitation(64)),
        TypeError,
        ["SqueezeExcitation", "every block"],
    ),
    "ResNet: no depth": (lambda: resnet.ResNet(20), ValueError, ["depth=20", "18"]),
    "from_torch: an attention of ours": (
        lambda: ab.from_torch(MHA),
        TypeError,
        ["MultiHeadAttention", "nn.MultiheadAttention"],
    ),
    "from_timm: none of timm's": (
        lambda: ab.from_timm(nn.Linear(3, 3)),
        TypeError,
        ["SEModule", "Linear"],
    ),
    "from_timm: a class": (lambda: ab.from_timm(nn.Linear), TypeError, ["SEModule"]),
    "cbam_from_official: a module": (
        lambda: ab.cbam_from_official(ab.CBAM(16)),
        TypeError,
        ["state_dict", "CBAM"],
    ),
    "cbam_from_official: of something else": (
        lambda: ab.cbam_from_official({"a": X}),
        ValueError,
        ["ChannelGate.mlp.1.weight", "'a'"],
    ),
    "fit: one tensor": (
        lambda: training.fit(
            nn.Linear(8, 1), lambda m, x: m(x).mean(), X, steps=6, batch_size=1, lr=0.1
        ),
        TypeError,
        ["data", "tuple", "(x,)"],
    ),
    "photograph: a function that is no picture": (
        lambda: datasets.photograph("data_dir"),
        ValueError,
        ["'data_dir'"],
    ),
    "photograph: grey": (
        lambda: datasets.photograph("camera"),
        ValueError,
        ["'camera'", "(height, width, 3)"],
    ),
    "parameters: a class": (
        lambda: costs.parameters(nn.Linear),
        TypeError,
        ["module", "torch.nn.Module"],
    ),
    "peak_bytes: a result": (lambda: costs.peak_bytes(X), TypeError, ["function", "Tensor"]),
    "multiply_adds: a result": (lambda: costs.multiply_adds(X), TypeError, ["function", "Tensor"]),
}


@pytest.mark.parametrize("mistake", SWAPPED)
def test_a_common_mistake_is_told_what_to_do(mistake):
    call, how, words = SWAPPED[mistake]
    with pytest.raises(how) as caught:
        call()
    for part in words:
        assert part in str(caught.value)
