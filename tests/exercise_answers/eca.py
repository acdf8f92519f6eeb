"""Right and typical wrong answers to the exercises on efficient channel attention."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attnbook.exercises import Checker, eca

Answer = Callable[..., object]


def rule(channels: int, gamma: float, beta: float) -> float:
    return (math.log2(channels) + beta) / gamma


def bumped(channels: int, gamma: float, beta: float) -> int:
    size = int(rule(channels, gamma, beta))
    return size if size % 2 else size + 1


def sums(z: Tensor, kernel: Tensor, mode: str = "constant") -> Tensor:
    reach = len(kernel) // 2
    padded = F.pad(z[:, None], (reach, reach), mode=mode)
    return F.conv1d(padded, kernel[None, None])[:, 0, :, None, None]


def gates_by_loop(x: Tensor, kernel: Tensor) -> Tensor:
    gates = torch.zeros(*x.shape[:2], 1, 1)
    for b in range(len(x)):
        for c in range(x.shape[1]):
            for j in range(len(kernel)):
                other = c + j - len(kernel) // 2
                if 0 <= other < x.shape[1]:
                    gates[b, c] += kernel[j] * x[b, other].mean()
    return gates.sigmoid()


def windows(x: Tensor, kernel: Tensor) -> Tensor:
    k = len(kernel)
    z = F.pad(x.mean((2, 3)), (k // 2, k // 2)).unfold(-1, k, 1)
    return (z @ kernel).sigmoid()[..., None, None]


def band(kernel: Tensor, channels: int) -> Tensor:
    matrix = torch.zeros(channels, channels)
    for row in range(channels):
        for j, weight in enumerate(kernel):
            if 0 <= (column := row + j - len(kernel) // 2) < channels:
                matrix[row, column] = weight
    return matrix


def diagonals(kernel: Tensor, channels: int) -> Tensor:
    matrix, reach = torch.zeros(channels, channels), len(kernel) // 2
    for offset in range(-min(reach, channels - 1), min(reach, channels - 1) + 1):
        matrix.diagonal(offset).fill_(kernel[offset + reach])
    return matrix


def reordered(gate: Callable[[Tensor], Tensor], z: Tensor, order: Tensor) -> Tensor:
    gates = torch.empty_like(z)
    gates[:, order] = gate(z[:, order])
    return gates


RIGHT: dict[Checker, list[Answer]] = {
    eca.check_kernel_size: [
        lambda c, g, b: max(3, bumped(c, g, b)),
        lambda c, g, b: max(3, 2 * math.floor(rule(c, g, b) / 2) + 1),
        lambda c, g, b: max(range(3, 41, 2), key=lambda k: (-abs(k - rule(c, g, b)), k)),
    ],
    eca.check_eca_gate: [
        lambda x, w: sums(x.mean((2, 3)), w).sigmoid(),
        gates_by_loop,
        windows,
    ],
    eca.check_band_matrix: [
        band,
        diagonals,
        lambda w, c: F.conv1d(torch.eye(c)[:, None], w[None, None], padding=len(w) // 2)[:, 0].T,
    ],
    eca.check_reordered: [
        reordered,
        lambda gate, z, order: gate(z[:, order])[:, order.argsort()],
        lambda gate, z, order: (
            gate(z @ torch.eye(len(order))[order].T) @ torch.eye(len(order))[order]
        ),
    ],
}

WRONG: dict[Checker, list[tuple[Answer, str]]] = {
    eca.check_kernel_size: [
        (bumped, "Never go below 3"),
        (lambda c, g, b: max(3, int(rule(c, g, b))), "even"),
        (lambda c, g, b: max(3, (n := round(rule(c, g, b))) - (n % 2 == 0)), "nearest"),
        (lambda c, g, b: max(3, 2 * math.ceil(rule(c, g, b) / 2) - 1), "take the larger"),
        (lambda c, g, b: 3, "nearest"),
        (lambda c, g, b: max(3, bumped(c, 2, 1)), "nearest"),
        (lambda c, g, b: float(max(3, bumped(c, g, b))), "an int"),
        (lambda c, g, b: max(3, bumped(c, g, 1)), "nearest"),
    ],
    eca.check_eca_gate: [
        (lambda x, w: sums(x.mean((2, 3)), w), "sigmoid is missing"),
        (lambda x, w: sums(x.mean((2, 3)), w.flip(0)).sigmoid(), "backwards"),
        (lambda x, w: sums(x.sum((2, 3)), w).sigmoid(), "the sum over the places"),
        (lambda x, w: sums(x.amax((2, 3)), w).sigmoid(), "largest"),
        (lambda x, w: sums(x.mean((2, 3)), w, mode="circular").sigmoid(), "see each other"),
        (lambda x, w: x * gates_by_loop(x, w), "not the gated image"),
        (
            lambda x, w: F.conv1d(x.mean((2, 3))[:, None], w[None, None]).sigmoid().mT[..., None],
            "zeros a side",
        ),
        (lambda x, w: gates_by_loop(x, w)[..., 0, 0], "shape"),
        (lambda x, w: sums(x.mean((2, 3)), w).softmax(1), "not the sigmoid"),
        (
            lambda x, w: (
                F.conv1d(F.pad(x.mean((2, 3)), (1, 1))[:, None], w[None, None])
                .sigmoid()
                .mT[..., None]
            ),
            "with other inputs it went well",
        ),
        (lambda x, w: gates_by_loop(x, w).reshape(2, 7, 1, 1), "raised RuntimeError"),
    ],
    eca.check_band_matrix: [
        (lambda w, c: band(w, c).T.contiguous(), "transposed"),
        (lambda w, c: band(w, c) * torch.arange(1.0, c + 1)[:, None], "move with the row"),
        (lambda w, c: w.mean() * torch.ones(c, c), "sees a channel more than"),
        (lambda w, c: w[0] * torch.eye(c), "middle weight"),
        (lambda w, c: band(w, c)[None], "shape"),
        (lambda w, c: band(w, c).tolist(), "not a tensor"),
        (lambda w, c: band(w, 5), "shape"),
        (lambda w, c: band(w[:3], c), "with other inputs it went well"),
    ],
    eca.check_reordered: [
        (lambda gate, z, order: gate(z), "no effect"),
        (lambda gate, z, order: gate(z[:, order]), "new order"),
        (lambda gate, z, order: gate(z[:, order])[:, order], "twice"),
        (lambda gate, z, order: gate(z[:, order.argsort()])[:, order], "inverse order"),
        (lambda gate, z, order: gate(z[order]), "raised"),
        (lambda gate, z, order: z * reordered(gate, z, order), "are not those"),
        (lambda gate, z, order: gate(z[:, order])[:, [1, 2, 0, 4, 5, 3]], "raised IndexError"),
    ],
}
