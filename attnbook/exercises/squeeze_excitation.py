"""Checkers for the exercises of the chapter "Squeeze-and-excitation, a gate for every channel"."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from attnbook.exercises import Case, checker, same


@checker
def check_squeeze_and_excite() -> Iterator[Case]:
    """Check squeeze_and_excite(x, w1, w2): the gated images, without biases."""
    # As many rows as images and columns as channels: gates on the wrong axes fit as well.
    for b, c, h, w in ((6, 6, 6, 6), (3, 4, 3, 4), (1, 3, 1, 3)):
        x = torch.rand(b, c, h, w) + torch.randn(b, c, 1, 1)
        # Each row with its negative: of two hidden units one is alive, so the ReLU is seen.
        w1 = torch.cat([half := torch.randn(c // 2, c) / c**0.5, -half])
        w2 = torch.randn(c, len(w1))

        def logits(z: Tensor, w1: Tensor = w1, w2: Tensor = w2) -> Tensor:
            return F.relu(z @ w1.T) @ w2.T

        def scaled(gates: Tensor, x: Tensor = x) -> Tensor:
            return x * rearrange(gates, "b c -> b c 1 1")

        z = reduce(x, "b c h w -> b c", "mean")
        expected = scaled(logits(z).sigmoid())
        yield Case(
            (x, w1, w2),
            expected,
            mistakes=[
                (
                    x * logits(z).sigmoid(),
                    "The gates fall on height and width: give them two axes of size 1 at the end.",
                ),
                (
                    scaled(logits(z)),
                    "The sigmoid is missing: a gate can be negative, or larger than 1.",
                ),
                (
                    scaled(logits(z).softmax(-1)),
                    "Your gates sum to 1 over the channels: take a sigmoid of each, not a softmax.",
                ),
                (
                    scaled((z @ w1.T @ w2.T).sigmoid()),
                    "The ReLU between the two matrices is missing.",
                ),
                (
                    scaled(logits(x.sum((2, 3))).sigmoid()),
                    "The squeeze is the mean over the places, not the sum.",
                ),
                (
                    scaled(logits(x.mean((1, 2))).sigmoid()),
                    "The mean is over channels and rows: average over the last two axes.",
                ),
                (
                    expected + x,
                    "The input is added to the result; here it is only multiplied.",
                ),
            ],
            otherwise="The gates are not sigmoid(W2 ReLU(W1 z)) of each image's own means.",
        )


@checker
def check_fold_behind() -> Iterator[Case]:
    """Check fold_behind(weight, bias, gate): a convolution with gates behind it, as one."""
    for out, into, k in ((4, 4, 3), (3, 5, 1)):
        weight, bias, gate = torch.randn(out, into, k, k), torch.randn(out), torch.rand(out) + 0.1
        each = rearrange(gate, "out -> out 1 1 1")
        signs = [
            (
                lambda new, _, wrong=weight / each: same(new, wrong),
                "The weight is divided by the gate; what comes out should be multiplied by it.",
            ),
            (
                lambda _, new, bias=bias: same(new, bias),
                "The bias comes out of the convolution too, so the gate meets it as well.",
            ),
        ]
        if out == into:
            front = weight * rearrange(gate, "into -> 1 into 1 1")
            said = "That is the gate in front, one for each channel that goes in."
            signs.insert(0, (lambda new, _, wrong=front: same(new, wrong), said))
        yield Case(
            (weight, bias, gate),
            (weight * each, bias * gate),
            signs=signs,
            otherwise="The new convolution does not give what the old one gives behind the gates.",
        )


@checker
def check_squeeze_inside() -> Iterator[Case]:
    """Check squeeze_inside(x, mask): each channel's mean over the places that the mask has."""
    for channels, sizes, h, w in ((4, [(5, 6), (3, 2), (4, 4)], 5, 6), (2, [(1, 2)], 4, 3)):
        mask = torch.zeros(len(sizes), h, w, dtype=torch.bool)
        for image, (height, width) in zip(mask, sizes, strict=True):
            image[:height, :width] = True
        x = torch.rand(len(sizes), channels, h, w) + 0.5
        inside = x * rearrange(mask, "b h w -> b 1 h w")
        total = reduce(inside, "b c h w -> b c", "sum")
        expected = total / reduce(mask.float(), "b h w -> b 1", "sum")
        yield Case(
            (inside, mask),
            expected,
            mistakes=[
                (
                    total / (h * w),
                    "The padding is counted: divide by the number of places inside, not by H W.",
                ),
                (total, "That is the sum over the places inside; divide by how many there are."),
                (
                    total / mask.sum(),
                    "You divide by the places of all images together; each image has its own "
                    "number.",
                ),
            ],
            otherwise="The result is not the mean over the places where the mask is True.",
        )
        yield Case(
            (x, mask),
            expected,
            otherwise="With something other than zeros in the padding, your result changes: mask x "
            "first.",
        )
    mask = torch.tensor([[[True, True, False], [True, True, False]]])
    outside = rearrange(~mask, "b h w -> b 1 h w")
    x = torch.rand(1, 4, 2, 3).masked_fill(outside, math.nan)
    yield Case(
        (x, mask),
        x[..., :2].mean((2, 3)),
        mistakes=[
            (
                reduce(x * ~outside, "b c h w -> b c", "mean"),
                "NaN in the padding is in your result, since 0 times NaN is NaN: masked_fill puts "
                "zeros in its place.",
            )
        ],
    )
    for value, side in ((20.0, 64), (0.5, 300)):  # a sum and a number of places beyond 65,504
        mask = torch.ones(1, side, side, dtype=torch.bool)
        yield Case(
            (torch.full((1, 1, side, side), value, dtype=torch.float16), mask),
            value,
            otherwise="In float16 the result is wrong: the sum, or the number of places, is larger "
            "than 65,504. Compute both in float32.",
        )


@checker
def check_gate_parameters() -> Iterator[Case]:
    """Check gate_parameters(stages, reduction, bias): the parameters that all gates add."""
    for stages, reduction in (([(3, 64), (2, 96)], 16), ([(1, 32), (4, 128), (2, 104)], 8)):
        hidden = [channels // reduction for _, channels in stages]
        weights = sum(2 * n * c * r for (n, c), r in zip(stages, hidden, strict=True))
        of_w1 = sum(n * r for (n, _), r in zip(stages, hidden, strict=True))
        of_w2 = sum(n * c for n, c in stages)
        once = sum(2 * c * r for (_, c), r in zip(stages, hidden, strict=True))
        once_bias = sum(c + r for (_, c), r in zip(stages, hidden, strict=True))
        for bias in (False, True):
            expected = weights + bias * (of_w1 + of_w2)
            one = "{call} counts one matrix of each gate; there are two."
            yield Case(
                (stages, reduction, bias),
                expected,
                mistakes=[
                    (
                        weights,
                        "{call} leaves the biases out: there is one for each row of W1 and of W2.",
                    ),
                    (weights + of_w1 + of_w2, "{call} should leave the biases out."),
                    (weights + of_w2, "{call} forgets the biases of the bottleneck."),
                    (expected // 2, one),
                    (weights // 2, one),
                    (
                        once + bias * once_bias,
                        "{call} counts one gate a stage; every block has its own.",
                    ),
                ],
            )
