"""Checkers for the exercises of the chapter "Squeeze-and-excitation, a gate for every channel"."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange, reduce

from attnbook.exercises import Answer, checker, same, wrong_shape


@checker
def check_squeeze_and_excite(squeeze_and_excite: Answer) -> Iterator[str]:
    """Check squeeze_and_excite(x, w1, w2): the gated images, without biases."""
    x = torch.rand(6, 6, 6, 6) + rearrange(torch.randn(6, 6), "b c -> b c 1 1")
    w1, w2 = torch.randn(3, 6), torch.randn(6, 3)
    squeezed = reduce(x, "b c h w -> b c", "mean")
    logits = F.relu(squeezed @ w1.T) @ w2.T

    def scaled(gates: torch.Tensor) -> torch.Tensor:
        return x * rearrange(gates, "b c -> b c 1 1")

    answer = squeeze_and_excite(x.clone(), w1, w2)
    yield from filter(None, [wrong_shape(answer, x)])
    if same(answer, x * logits.sigmoid()):
        yield "The gates fall on height and width: give them two axes of size 1 at the end."
    if same(answer, scaled(logits)):
        yield "The sigmoid is missing: a gate can be negative, or larger than 1."
    if same(answer, scaled(logits.softmax(-1))):
        yield "Your gates sum to 1 over the channels: take a sigmoid of each, not a softmax."
    if same(answer, scaled((squeezed @ w1.T @ w2.T).sigmoid())):
        yield "The ReLU between the two matrices is missing."
    total = reduce(x, "b c h w -> b c", "sum")
    if same(answer, scaled((F.relu(total @ w1.T) @ w2.T).sigmoid())):
        yield "The squeeze is the mean over the places, not the sum."
    if same(answer, scaled((F.relu(x.mean((1, 2)) @ w1.T) @ w2.T).sigmoid())):
        yield "The mean is over channels and rows: average over the last two axes."
    if same(answer, scaled(logits.sigmoid()) + x):
        yield "The input is added to the result; here it is only multiplied."
    if not same(answer, scaled(logits.sigmoid())):
        yield "The gates are not sigmoid(W2 ReLU(W1 z)) of each image's own means."


@checker
def check_fold_behind(fold_behind: Answer) -> Iterator[str]:
    """Check fold_behind(weight, bias, gate): a convolution with gates behind it, as one."""
    weight, bias, gate = torch.randn(4, 4, 3, 3), torch.randn(4), torch.rand(4)
    answer = fold_behind(weight.clone(), bias.clone(), gate)
    if not (isinstance(answer, tuple | list) and len(answer) == 2):
        yield "Return two tensors, the new weight and the new bias."
    new_weight, new_bias = answer
    yield from filter(None, [wrong_shape(new_weight, weight), wrong_shape(new_bias, bias)])
    if same(new_weight, weight * rearrange(gate, "c -> 1 c 1 1")):
        yield "That is the gate in front, one for each channel that goes in."
    if same(new_weight, weight / rearrange(gate, "c -> c 1 1 1")):
        yield "The weight is divided by the gate; what comes out should be multiplied by it."
    if same(new_bias, bias):
        yield "The bias comes out of the convolution too, so the gate meets it as well."
    x = torch.randn(2, 4, 6, 6)
    expected = F.conv2d(x, weight, bias) * rearrange(gate, "c -> c 1 1")
    if not torch.allclose(F.conv2d(x, new_weight, new_bias), expected, atol=1e-4):
        yield "The new convolution does not give what the old one gives behind the gates."


@checker
def check_squeeze_inside(squeeze_inside: Answer) -> Iterator[str]:
    """Check squeeze_inside(x, mask): each channel's mean over the places that the mask has."""
    mask = torch.zeros(3, 5, 6, dtype=torch.bool)
    for image, (height, width) in zip(mask, ((5, 6), (3, 2), (4, 4)), strict=True):
        image[:height, :width] = True
    x = torch.rand(3, 4, 5, 6) + 0.5
    inside = rearrange(mask, "b h w -> b 1 h w")
    total = reduce(x * inside, "b c h w -> b c", "sum")
    expected = total / reduce(mask.float(), "b h w -> b 1", "sum")
    padded = squeeze_inside(x * inside, mask)
    yield from filter(None, [wrong_shape(padded, expected)])
    if same(padded, total / 30):
        yield "The padding is counted: divide by the number of places inside, not by H W."
    if same(padded, total):
        yield "That is the sum over the places inside; divide by how many there are."
    if same(padded, total / mask.sum()):
        yield "You divide by the places of all images together; each image has its own number."
    if not same(padded, expected):
        yield "The result is not the mean over the places where the mask is True."
    if not same(squeeze_inside(x, mask), expected):
        yield "With something other than zeros in the padding, your result changes: mask x first."


@checker
def check_gate_parameters(gate_parameters: Answer) -> Iterator[str]:
    """Check gate_parameters(stages, reduction, bias): the parameters that all gates add."""
    stages, reduction = [(3, 64), (2, 96)], 16
    weights = sum(2 * blocks * channels * (channels // reduction) for blocks, channels in stages)
    biases = sum(blocks * (channels + channels // reduction) for blocks, channels in stages)
    for bias, expected in ((False, weights), (True, weights + biases)):
        count = gate_parameters(list(stages), reduction, bias)
        call = f"gate_parameters({stages}, {reduction}, {bias})"
        if bias and count == weights:
            yield f"{call} leaves the biases out: there is one for each row of W1 and of W2."
        if not bias and count == weights + biases:
            yield f"{call} should leave the biases out."
        if bias and count == weights + sum(blocks * channels for blocks, channels in stages):
            yield f"{call} forgets the biases of the bottleneck."
        if count == expected // 2 or 2 * count == weights:
            yield f"{call} counts one matrix of each gate; there are two."
        once = [(1, channels) for _, channels in stages]
        if count == sum(2 * channels * (channels // reduction) for _, channels in once):
            yield f"{call} counts one gate a stage; every block has its own."
        if count != expected:
            yield f"{call} is {count}, but the layers have {expected} parameters."
