"""Checkers for the exercises of the chapter "CBAM"."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from attnbook.cbam import CBAM
from attnbook.costs import parameters
from attnbook.exercises import Case, checker


@checker
def check_channel_gates() -> Iterator[Case]:
    """Check channel_gates(x, w1, w2): sigmoid(MLP(mean) + MLP(maximum)) of each channel, (b, c)."""
    for b, c, h, w in ((3, 6, 4, 5), (1, 4, 7, 3)):
        x = torch.randn(b, c, h, w) + torch.randn(b, c, 1, 1)
        # In one picture the mean is minus the maximum: added before the MLP, they leave nothing.
        x[0] -= rearrange((x[0].mean((1, 2)) + x[0].amax((1, 2))) / 2, "c -> c 1 1")
        # Each row with its negative: of two hidden units one is alive, so no branch is all zeros.
        w1 = torch.cat([half := torch.randn(c // 2 + 1, c) / c**0.5, -half])
        w2 = torch.randn(c, len(w1)) / len(w1) ** 0.5
        mean, maximum = reduce(x, "b c h w -> b c", "mean"), reduce(x, "b c h w -> b c", "max")

        def logits(z: Tensor, w1: Tensor = w1, w2: Tensor = w2) -> Tensor:
            return F.relu(z @ w1.T) @ w2.T

        of_mean, of_max = logits(mean), logits(maximum)
        yield Case(
            (x, w1, w2),
            (of_mean + of_max).sigmoid(),
            mistakes=[
                (
                    of_mean.sigmoid() + of_max.sigmoid(),
                    "Each branch has its own sigmoid, so a gate can reach 2: add first.",
                ),
                (
                    logits(mean + maximum).sigmoid(),
                    "Mean and maximum are added before the MLP: its ReLU makes that something "
                    "else.",
                ),
                (
                    of_mean.sigmoid(),
                    "The maximum is not used: these are the gates of squeeze-and-excitation.",
                ),
                (of_max.sigmoid(), "The mean is not used."),
                ((2 * of_mean).sigmoid(), "The mean is used twice and the maximum not at all."),
                ((2 * of_max).sigmoid(), "The maximum is used twice and the mean not at all."),
                (((of_mean + of_max) / 2).sigmoid(), "The two are averaged; they are added."),
                (of_mean + of_max, "The sigmoid is missing."),
                (
                    ((mean + maximum) @ w1.T @ w2.T).sigmoid(),
                    "The ReLU between the two layers is missing.",
                ),
            ],
            otherwise="The gates are not sigmoid(MLP(mean) + MLP(maximum)).",
        )


@checker
def check_spatial_mask() -> Iterator[Case]:
    """Check spatial_mask(x, kernel): sigmoid of a convolution over [mean, maximum], (b, h, w)."""
    for b, c, h, w, k in ((2, 6, 8, 9, 3), (1, 4, 7, 6, 5)):
        x, kernel = torch.randn(b, c, h, w), torch.randn(2, k, k) / k
        planes = rearrange(
            [reduce(x, "b c h w -> b h w", "mean"), reduce(x, "b c h w -> b h w", "max")],
            "pool b h w -> b pool h w",
        )

        def logits(weight: Tensor, planes: Tensor = planes, padding: int | str = "same") -> Tensor:
            return F.conv2d(planes, weight[None], padding=padding)[:, 0]

        first_plane = torch.tensor([1.0, 0.0])[:, None, None]
        yield Case(
            (x, kernel),
            logits(kernel).sigmoid(),
            mistakes=[
                (
                    logits(kernel, padding=0).sigmoid(),
                    "The mask is smaller than the picture: put a border of zeros around the "
                    "planes, k // 2 wide.",
                ),
                (
                    logits(kernel.flip(0)).sigmoid(),
                    "The planes are stacked as [maximum, mean]; the kernel is made for "
                    "[mean, maximum].",
                ),
                (logits(kernel), "The sigmoid is missing."),
                (
                    logits(kernel.flip(1, 2)).sigmoid(),
                    "The kernel is turned round; networks do not turn it.",
                ),
                (
                    logits(kernel * first_plane).sigmoid(),
                    "The maximum over the channels is not used.",
                ),
            ],
            otherwise="The mask is not the sigmoid of the convolution of the two planes.",
        )


@checker
def check_count() -> Iterator[Case]:
    """Check count(channels, reduction, kernel_size): the parameters of a CBAM without biases."""
    for channels, reduction, size in ((64, 16, 7), (96, 8, 3), (48, 4, 5)):
        mlp = 2 * channels * (channels // reduction)
        yield Case(
            (channels, reduction, size),
            parameters(CBAM(channels, reduction, kernel_size=size)),
            mistakes=[
                (
                    2 * mlp + 2 * size**2 + 2,
                    "{call} counts two MLPs; the mean and the maximum share one.",
                ),
                (
                    mlp + size**2 + 2,
                    "{call} has a kernel of one plane; it reads two, the mean and the maximum.",
                ),
                (
                    mlp + 2 * size**2,
                    "{call} leaves out the two numbers of the batch normalisation.",
                ),
                (
                    mlp // 2 + 2 * size**2 + 2,
                    "{call} has one layer of the bottleneck; there are two.",
                ),
            ],
        )


@checker
def check_exceeds() -> Iterator[Case]:
    """Check exceeds(high, low): how often a number of one exceeds one of the other, ties half."""
    for high, low in (
        ([1.0, 2.0, 2.0, 5.0], [0.0, 2.0, 3.0]),
        ([3.0, 1.0, 2.0], [1.0, 1.0, 4.0, 2.0, 0.5]),
        ([1.0], [1.0]),
    ):
        pairs = len(high) * len(low)
        bigger = sum(x > y for x in high for y in low) / pairs
        ties = sum(x == y for x in high for y in low) / pairs
        expected = bigger + ties / 2
        yield Case(
            (torch.tensor(high), torch.tensor(low)),
            expected,
            mistakes=[
                (
                    bigger,
                    "Ties count nothing; count them half, so that a constant map scores one half.",
                ),
                (bigger + ties, "Ties count in full; count them half."),
                (1 - expected, "That is how often `low` exceeds `high`."),
                (bigger * pairs, "That is how many pairs there are, not which share of them."),
                (expected * pairs, "That is how many pairs there are, not which share of them."),
            ],
            otherwise=f"Of {high} and {low} it should be {expected:.4f}.",
        )
