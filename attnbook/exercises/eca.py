"""Checkers for the exercises of the chapter "Efficient channel attention"."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from attnbook.eca import adaptive_kernel_size
from attnbook.exercises import Case, checker, same


@checker
def check_kernel_size() -> Iterator[Case]:
    """Check kernel_size(channels, gamma, beta): nearest odd to (log2 c + beta) / gamma."""
    for channels, gamma, beta in (
        *((channels, 2.0, 1.0) for channels in (64, 96, 256, 512, 128, 2048, 2)),
        *((256, 1.0, 0.5), (2048, 1.5, 3.0), (64, 2.0, 3.0)),
    ):
        expected = adaptive_kernel_size(channels, gamma, beta)
        t = (math.log2(channels) + beta) / gamma
        yield Case(
            (channels, gamma, beta),
            expected,
            signs=[
                (lambda size: size % 2 == 0, "{call} is even in yours: its window has no middle."),
                (
                    lambda size: size == 1,
                    "{call} is 1: a gate that sees its own channel alone. Never go below 3.",
                ),
                (
                    lambda _, middle=t % 2 == 0: middle,
                    f"{{call}} should be {expected}: t = {t:g} is in the middle, take the larger.",
                ),
            ],
            otherwise=f"{{call}} should be {expected}, the odd number nearest to {t:.2f}.",
        )


@checker
def check_eca_gate() -> Iterator[Case]:
    """Check eca_gate(x, kernel): the sigmoid of the squeezes, convolved along the channels."""
    for b, c, h, w, k in ((2, 7, 4, 3, 3), (1, 9, 2, 5, 5)):
        x, kernel = torch.randn(b, c, h, w) + torch.randn(b, c, 1, 1), torch.randn(k)
        z = x.mean((2, 3))
        expected = _sums(z, kernel).sigmoid()
        unpadded = F.conv1d(z[:, None], kernel[None, None]).sigmoid()
        yield Case(
            (x, kernel),
            expected,
            mistakes=[
                (
                    x * expected,
                    f"The shape is {tuple(x.shape)}: return the gates, not the gated image.",
                ),
                (
                    rearrange(unpadded, "b 1 c -> b c 1 1"),
                    f"There are {c - k + 1} gates for {c} channels: pad (k - 1) / 2 zeros a side.",
                ),
                (
                    _sums(z, kernel),
                    "The sigmoid is missing: these are the sums, of any size and sign.",
                ),
                (
                    _sums(z, kernel.flip(0)).sigmoid(),
                    "The kernel runs backwards: w[0] belongs to the first channel of the window.",
                ),
                (
                    _sums(x.sum((2, 3)), kernel).sigmoid(),
                    "The squeeze is the sum over the places; it should be their mean.",
                ),
                (
                    _sums(x.amax((2, 3)), kernel).sigmoid(),
                    "The squeeze is the largest value; it should be the mean over the places.",
                ),
                (
                    _sums(z, kernel, mode="circular").sigmoid(),
                    "The first channel and the last see each other; beyond the ends there are "
                    "zeros.",
                ),
            ],
            otherwise="The gates are not the sigmoid of sum_j w[j] z[c + j - (k - 1) / 2].",
        )


def _sums(z: Tensor, kernel: Tensor, mode: str = "constant") -> Tensor:
    reach = len(kernel) // 2
    padded = F.pad(z[:, None], (reach, reach), mode=mode)
    return rearrange(F.conv1d(padded, kernel[None, None]), "b 1 c -> b c 1 1")


@checker
def check_band_matrix() -> Iterator[Case]:
    """Check band_matrix(kernel, channels): what ECA multiplies the squeezes by, as a matrix."""
    for k, c in ((3, 5), (5, 6), (5, 2), (1, 3)):
        kernel = torch.randn(k)
        expected = F.conv1d(torch.eye(c)[:, None], kernel[None, None], padding=k // 2)[:, 0].T
        outside = (torch.arange(c)[:, None] - torch.arange(c)).abs() > k // 2
        yield Case(
            (kernel, c),
            expected,
            mistakes=[
                (
                    expected.T,
                    "It is transposed: row c holds the weights of gate c, w[0] left of the "
                    "diagonal.",
                )
            ],
            signs=[
                (
                    lambda matrix: not same(matrix[1:, 1:], matrix[:-1, :-1]),
                    "Some diagonal holds different numbers: the kernel should move with the row.",
                ),
                (
                    lambda matrix, outside=outside: (matrix[outside] != 0).any(),
                    f"A gate sees a channel more than {k // 2} away, with k = {k}.",
                ),
            ],
            otherwise="The band does not hold w, with its middle weight on the diagonal.",
        )


@checker
def check_reordered() -> Iterator[Case]:
    """Check reordered(gate, z, order): gates computed in another order, back at their channels."""
    for b, order in ((3, torch.tensor([2, 0, 1, 5, 3, 4])), (1, torch.tensor([1, 3, 4, 0, 2]))):
        z, weight = torch.randn(b, len(order)), torch.randn(len(order), len(order))

        def gate(z: Tensor, weight: Tensor = weight) -> Tensor:
            return torch.sigmoid(z @ weight)

        back = order.argsort()
        yield Case(
            (gate, z, order),
            gate(z[:, order])[:, back],
            mistakes=[
                (gate(z), "The order has no effect."),
                (
                    gate(z[:, order]),
                    "The gates are still in the new order: gate 0 belongs to channel order[0].",
                ),
                (
                    gate(z[:, order])[:, order],
                    "Reading with the same order twice does not undo it; its inverse is "
                    "order.argsort().",
                ),
                (
                    gate(z[:, back])[:, order],
                    "The gate reads the channels in the inverse order: the first should be "
                    "order[0].",
                ),
            ],
            otherwise="The gates are not those of z[:, order], each put back at its channel.",
        )
