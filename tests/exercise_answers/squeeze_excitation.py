"""Right and typical wrong answers to the exercises of the chapter on squeeze-and-excitation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attnbook import SqueezeExcitation
from attnbook.exercises import Checker
from attnbook.exercises import squeeze_excitation as exercises

Answer = Callable[..., object]


def logits(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    return (x.mean((2, 3)) @ w1.T).relu() @ w2.T


def four(gates: Tensor) -> Tensor:
    return gates[:, :, None, None]


def by_layer(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    layer = SqueezeExcitation(x.shape[1], hidden_channels=len(w1), bias=False)
    layer.load_state_dict({"fc1.weight": four(w1), "fc2.weight": four(w2)})
    return layer(x).detach()


def by_convolution(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    z = F.adaptive_avg_pool2d(x, 1)
    return x * F.conv2d(F.conv2d(z, four(w1)).relu(), four(w2)).sigmoid()


def filled(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(~mask[:, None], 0)


def places(mask: Tensor) -> Tensor:
    return mask.sum((1, 2))[:, None]


def inside_loop(x: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([image[:, m].mean(-1) for image, m in zip(x, mask, strict=True)])


def count(stages: list[tuple[int, int]], reduction: int, bias: bool) -> int:
    weights = sum(2 * n * c * (c // reduction) for n, c in stages)
    return weights + bias * sum(n * (c + c // reduction) for n, c in stages)


def count_layers(stages: list[tuple[int, int]], reduction: int, bias: bool) -> int:
    layers = [SqueezeExcitation(c, reduction, bias=bias) for n, c in stages for _ in range(n)]
    return sum(p.numel() for layer in layers for p in layer.parameters())


RIGHT: dict[Checker, list[Answer]] = {
    exercises.check_squeeze_and_excite: [
        lambda x, w1, w2: x * four(logits(x, w1, w2).sigmoid()),
        by_layer,
        by_convolution,
    ],
    exercises.check_fold_behind: [
        lambda w, b, g: (w * g[:, None, None, None], b * g),
        lambda w, b, g: ((w.flatten(1).mT * g).mT.reshape(w.shape), g * b),
        lambda w, b, g: [torch.einsum("oikl,o->oikl", w, g), torch.diag(g) @ b],
    ],
    exercises.check_squeeze_inside: [
        inside_loop,
        lambda x, m: (filled(x, m).float().sum((2, 3)) / places(m)).to(x.dtype),
        lambda x, m: x.masked_fill(~m[:, None], torch.nan).float().nanmean((2, 3)).to(x.dtype),
    ],
    exercises.check_gate_parameters: [
        count,
        count_layers,
        lambda s, r, b: sum(
            [n * (c * (c // r) * 2 + (c + c // r if b else 0)) for n, c in s],
        ),
    ],
}

WRONG: dict[Checker, list[tuple[Answer, str]]] = {
    exercises.check_squeeze_and_excite: [
        (lambda x, w1, w2: x * logits(x, w1, w2).sigmoid(), "height and width"),
        (lambda x, w1, w2: x * four(logits(x, w1, w2)), "sigmoid is missing"),
        (lambda x, w1, w2: x * four(logits(x, w1, w2).softmax(-1)), "not a softmax"),
        (lambda x, w1, w2: x * four((x.mean((2, 3)) @ w1.T @ w2.T).sigmoid()), "ReLU"),
        (lambda x, w1, w2: x * four(((x.sum((2, 3)) @ w1.T).relu() @ w2.T).sigmoid()), "the sum"),
        (
            lambda x, w1, w2: x * four(((x.mean((1, 2)) @ w1.T).relu() @ w2.T).sigmoid()),
            "channels and rows",
        ),
        (lambda x, w1, w2: x + x * four(logits(x, w1, w2).sigmoid()), "added"),
        (lambda x, w1, w2: x * four(logits(x, w1, w2).sigmoid().mean(0, keepdim=True)), "own"),
        (
            lambda x, w1, w2: (
                x * four(((x.reshape(6, 6, 36).mean(-1) @ w1.T).relu() @ w2.T).sigmoid())
            ),
            "raised RuntimeError",
        ),
        (
            lambda x, w1, w2: x * four(((x.sum((2, 3)) / 36 @ w1.T).relu() @ w2.T).sigmoid()),
            "with other inputs it went well",
        ),
        (lambda x, w1, w2: logits(x, w1, w2).sigmoid(), "shape"),
    ],
    exercises.check_fold_behind: [
        (lambda w, b, g: w * g[:, None, None, None], "a Tensor. Return 2 results"),
        (lambda w, b, g: (w * g[:, None, None], b * g), "in front"),
        (lambda w, b, g: (w / g[:, None, None, None], b * g), "divided"),
        (lambda w, b, g: (w * g[:, None, None, None], b), "bias"),
        (lambda w, b, g: (w * g[:, None, None, None], b * g * g), "does not give"),
        (lambda w, b, g: (w.sum(0), b), "shape"),
        (lambda w, b, g: (w * g.reshape(4, 1, 1, 1), b * g), "raised RuntimeError"),
    ],
    exercises.check_squeeze_inside: [
        (lambda x, m: x.mean((2, 3)), "padding is counted"),
        (lambda x, m: (x * m[:, None]).sum((2, 3)), "divide by how many"),
        (lambda x, m: (x * m[:, None]).sum((2, 3)) / m.sum(), "together"),
        (lambda x, m: x.sum((2, 3)) / m.sum((1, 2))[:, None], "mask x first"),
        (lambda x, m: (x * m[:, None]).sum((2, 3)) / places(m), "0 times NaN"),
        (lambda x, m: filled(x, m).sum((2, 3)) / places(m), "In float16"),
        (lambda x, m: (filled(x, m).sum((2, 3)).float() / places(m)).to(x.dtype), "In float16"),
        (lambda x, m: (filled(x, m) / places(m.to(x.dtype))[..., None, None]).sum((2, 3)), "In fl"),
        (lambda x, m: (x * m[:, None]).amax((2, 3)), "not the mean"),
        (lambda x, m: (x * m[:, None]).mean((0, 2, 3)), "shape"),
        (lambda x, m: (x * m[:, None]).sum((2, 3)) / torch.tensor([[30], [6], [16]]), "shape"),
    ],
    exercises.check_gate_parameters: [
        (lambda s, r, b: count(s, r, False), "leaves the biases out"),
        (lambda s, r, b: count(s, r, True), "should leave"),
        (lambda s, r, b: count(s, r, False) + b * sum(n * c for n, c in s), "bottleneck"),
        (lambda s, r, b: count(s, r, b) // 2, "two"),
        (lambda s, r, b: count([(1, c) for _, c in s], r, b), "every block"),
        (lambda s, r, b: count(s, r, b) + 1, "but should be"),
        (lambda s, r, b: count(s, 16, b), "(2, 104)], 8, False)"),
    ],
}
