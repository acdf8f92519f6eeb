"""Checkers for the exercises of the chapter "CBAM"."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from attnbook.cbam import CBAM
from attnbook.costs import parameters
from attnbook.exercises import Answer, checker, same, wrong_shape


@checker
def check_channel_gates(channel_gates: Answer) -> Iterator[str]:
    """Check channel_gates(x, w1, w2): sigmoid(MLP(mean) + MLP(maximum)) of each channel, (b, c)."""
    x, w1, w2 = torch.randn(2, 6, 4, 5), torch.randn(3, 6), torch.randn(6, 3)
    pooled = [reduce(x, "b c h w -> b c", "mean"), reduce(x, "b c h w -> b c", "max")]

    def logits(z: Tensor) -> Tensor:
        return F.linear(F.relu(F.linear(z, w1)), w2)

    of_mean, of_max = map(logits, pooled)
    answer = channel_gates(x, w1, w2)
    yield from filter(None, [wrong_shape(answer, of_mean)])
    if same(answer, of_mean.sigmoid() + of_max.sigmoid()):
        yield "Each branch has its own sigmoid, so a gate can reach 2: add first."
    if same(answer, logits(pooled[0] + pooled[1]).sigmoid()):
        yield "Mean and maximum are added before the MLP: its ReLU makes that something else."
    if same(answer, of_mean.sigmoid()):
        yield "The maximum is not used: these are the gates of squeeze-and-excitation."
    if same(answer, of_max.sigmoid()):
        yield "The mean is not used."
    if same(answer, (2 * of_mean).sigmoid()):
        yield "The mean is used twice and the maximum not at all."
    if same(answer, ((of_mean + of_max) / 2).sigmoid()):
        yield "The two are averaged; they are added."
    if same(answer, of_mean + of_max):
        yield "The sigmoid is missing."
    if same(answer, F.linear(F.linear(pooled[0] + pooled[1], w1), w2).sigmoid()):
        yield "The ReLU between the two layers is missing."
    if not same(answer, (of_mean + of_max).sigmoid()):
        yield "The gates are not sigmoid(MLP(mean) + MLP(maximum))."


@checker
def check_spatial_mask(spatial_mask: Answer) -> Iterator[str]:
    """Check spatial_mask(x, kernel): sigmoid of a convolution over [mean, maximum], (b, h, w)."""
    x, kernel = torch.randn(2, 6, 8, 9), torch.randn(2, 3, 3)
    planes = rearrange(
        [reduce(x, "b c h w -> b h w", "mean"), reduce(x, "b c h w -> b h w", "max")],
        "pool b h w -> b pool h w",
    )

    def logits(weight: Tensor) -> Tensor:
        return F.conv2d(planes, weight[None], padding=1)[:, 0]

    expected = logits(kernel).sigmoid()
    answer = spatial_mask(x, kernel)
    if isinstance(answer, Tensor) and answer.shape == (2, 6, 7):
        yield "The mask is smaller than the picture: put a border of zeros around the planes."
    yield from filter(None, [wrong_shape(answer, expected)])
    if same(answer, logits(kernel.flip(0)).sigmoid()):
        yield "The planes are stacked as [maximum, mean]; the kernel is made for [mean, maximum]."
    if same(answer, logits(kernel)):
        yield "The sigmoid is missing."
    if same(answer, logits(kernel.flip(1, 2)).sigmoid()):
        yield "The kernel is turned round; networks do not turn it."
    if same(answer, logits(kernel * torch.tensor([1.0, 0.0])[:, None, None]).sigmoid()):
        yield "The maximum over the channels is not used."
    if not same(answer, expected):
        yield "The mask is not the sigmoid of the convolution of the two planes."


@checker
def check_count(count: Answer) -> Iterator[str]:
    """Check count(channels, reduction, kernel_size): the parameters of a CBAM without biases."""
    for channels, reduction, size in ((64, 16, 7), (96, 8, 3)):
        expected = parameters(CBAM(channels, reduction, kernel_size=size))
        answer, call = count(channels, reduction, size), f"count({channels}, {reduction}, {size})"
        mlp = 2 * channels * (channels // reduction)
        if answer == 2 * mlp + 2 * size**2 + 2:
            yield f"{call} counts two MLPs; the mean and the maximum share one."
        if answer == mlp + size**2 + 2:
            yield f"{call} has a kernel of one plane; it reads two, the mean and the maximum."
        if answer == mlp + 2 * size**2:
            yield f"{call} leaves out the two numbers of the batch normalisation."
        if answer == mlp // 2 + 2 * size**2 + 2:
            yield f"{call} has one layer of the bottleneck; there are two."
        if answer != expected:
            yield f"{call} is {expected}; yours is {answer}."


@checker
def check_exceeds(exceeds: Answer) -> Iterator[str]:
    """Check exceeds(high, low): how often a number of one exceeds one of the other, ties half."""
    high, low = torch.tensor([1.0, 2.0, 2.0, 5.0]), torch.tensor([0.0, 2.0, 3.0])
    bigger = (high[:, None] > low).float().mean().item()
    ties = (high[:, None] == low).float().mean().item()
    answer = float(exceeds(high, low))
    expected = bigger + ties / 2
    for wrong, complaint in (
        (bigger, "Ties count nothing; count them half, so that a constant map scores one half."),
        (bigger + ties, "Ties count in full; count them half."),
        (1 - expected, "That is how often `low` exceeds `high`."),
        (bigger * 12, "That is how many pairs there are, not which share of them."),
    ):
        if abs(answer - wrong) < 1e-6:
            yield complaint
    if abs(answer - expected) > 1e-6:
        yield f"Of {high.tolist()} and {low.tolist()} it is {expected:.4f}; yours is {answer:.4f}."
