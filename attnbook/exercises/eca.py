"""Checkers for the exercises of the chapter "Efficient channel attention"."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from attnbook.eca import EfficientChannelAttention, adaptive_kernel_size
from attnbook.exercises import Answer, checker, same, wrong_shape


@checker
def check_kernel_size(kernel_size: Answer) -> Iterator[str]:
    """Check kernel_size(channels, gamma, beta): nearest odd to (log2 c + beta) / gamma."""
    for channels, gamma, beta in (
        *((channels, 2.0, 1.0) for channels in (64, 96, 256, 512, 128, 2048, 2)),
        *((256, 1.0, 0.5), (2048, 1.5, 3.0)),
    ):
        expected = adaptive_kernel_size(channels, gamma, beta)
        answer = kernel_size(channels, gamma, beta)
        call = f"kernel_size({channels}, gamma={gamma:g}, beta={beta:g})"
        t = (math.log2(channels) + beta) / gamma
        if not isinstance(answer, int):
            yield f"{call} is {answer!r}, not an int."
        if answer % 2 == 0:
            yield f"{call} is {answer}, an even number: its window has no middle."
        if answer == 1:
            yield f"{call} is 1: a gate that sees its own channel alone. Never go below 3."
        if answer != expected and t % 2 == 0:
            yield f"{call} is {answer}. t = {t:g} lies in the middle: take the larger, {expected}."
        if answer != expected:
            yield f"{call} is {answer}, but the odd number nearest to {t:.2f} is {expected}."


@checker
def check_eca_gate(eca_gate: Answer) -> Iterator[str]:
    """Check eca_gate(x, kernel): the sigmoid of the squeezes, convolved along the channels."""
    for k, c in ((3, 7), (5, 9)):
        x, kernel = torch.randn(2, c, 4, 3) + torch.randn(2, c, 1, 1), torch.randn(k)
        layer = EfficientChannelAttention(kernel_size=k).requires_grad_(False)
        layer.conv.weight.copy_(kernel[None, None])
        expected = layer.gate(x)
        answer = eca_gate(x.clone(), kernel)
        if isinstance(answer, Tensor) and answer.shape == x.shape:
            yield f"The shape is {tuple(x.shape)}: return the gates, not the gated image."
        if isinstance(answer, Tensor) and answer.shape == (2, c - k + 1, 1, 1):
            yield f"There are {c - k + 1} gates for {c} channels: pad (k - 1) / 2 zeros a side."
        yield from filter(None, [wrong_shape(answer, expected)])
        z = x.mean((2, 3))
        if same(answer, _sums(z, kernel)):
            yield "The sigmoid is missing: these are the sums, of any size and sign."
        if same(answer, _sums(z, kernel.flip(0)).sigmoid()):
            yield "The kernel runs backwards: w[0] belongs to the first channel of the window."
        if same(answer, _sums(x.sum((2, 3)), kernel).sigmoid()):
            yield "The squeeze is the sum over the places; it should be their mean."
        if same(answer, _sums(x.amax((2, 3)), kernel).sigmoid()):
            yield "The squeeze is the largest value; it should be the mean over the places."
        if same(answer, _sums(z, kernel, mode="circular").sigmoid()):
            yield "The first channel and the last see each other; beyond the ends there are zeros."
        if not same(answer, expected):
            yield "The gates are not the sigmoid of sum_j w[j] z[c + j - (k - 1) / 2]."


def _sums(z: Tensor, kernel: Tensor, mode: str = "constant") -> Tensor:
    reach = len(kernel) // 2
    padded = F.pad(z[:, None], (reach, reach), mode=mode)
    return rearrange(F.conv1d(padded, kernel[None, None]), "b 1 c -> b c 1 1")


@checker
def check_band_matrix(band_matrix: Answer) -> Iterator[str]:
    """Check band_matrix(kernel, channels): what ECA multiplies the squeezes by, as a matrix."""
    for k, c in ((3, 5), (5, 6), (5, 2)):
        kernel = torch.randn(k)
        identity = torch.eye(c)[:, None]
        expected = F.conv1d(identity, kernel[None, None], padding=k // 2)[:, 0].T.contiguous()
        answer = band_matrix(kernel.clone(), c)
        yield from filter(None, [wrong_shape(answer, expected)])
        if same(answer, expected.T):
            yield "It is transposed: row c holds the weights of gate c, w[0] left of the diagonal."
        if not same(answer[1:, 1:], answer[:-1, :-1]):
            yield "Some diagonal holds different numbers: the kernel should move with the row."
        outside = (torch.arange(c)[:, None] - torch.arange(c)).abs() > k // 2
        if (answer[outside] != 0).any():
            yield f"A gate sees a channel more than {k // 2} away, with k = {k}."
        if not same(answer, expected):
            yield "The band does not hold w, with its middle weight on the diagonal."


@checker
def check_reordered(reordered: Answer) -> Iterator[str]:
    """Check reordered(gate, z, order): gates computed in another order, back at their channels."""
    z, order = torch.randn(3, 6), torch.tensor([2, 0, 1, 5, 3, 4])
    weight = torch.randn(6, 6)

    def gate(z: Tensor) -> Tensor:
        return torch.sigmoid(z @ weight)

    expected = gate(z[:, order])[:, order.argsort()]
    answer = reordered(gate, z.clone(), order)
    yield from filter(None, [wrong_shape(answer, expected)])
    if same(answer, gate(z)):
        yield "The order has no effect."
    if same(answer, gate(z[:, order])):
        yield "The gates are still in the new order: gate 0 belongs to channel order[0]."
    if same(answer, gate(z[:, order])[:, order]):
        yield "Reading with the same order twice does not undo it; its inverse is order.argsort()."
    if same(answer, gate(z[:, order.argsort()])[:, order]):
        yield "The gate reads the channels in the inverse order: the first should be order[0]."
    if not same(answer, expected):
        yield "The gates are not those of z[:, order], each put back at its channel."
