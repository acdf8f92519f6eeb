"""Right and typical wrong answers to the exercises of the chapter on CBAM."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attnbook.cbam import ChannelAttention, SpatialAttention
from attnbook.exercises import Checker, cbam

Answer = Callable[..., object]


def mlp(z: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    return (z @ w1.T).relu() @ w2.T


def gates_of_module(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    layer = ChannelAttention(x.shape[1], hidden_channels=len(w1))
    layer.load_state_dict({"fc1.weight": w1[:, :, None, None], "fc2.weight": w2[:, :, None, None]})
    return layer.gate(x)[:, :, 0, 0].detach()


def gates_one_by_one(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    rows = []
    for picture in x:
        both = [picture.mean((1, 2)), picture.flatten(1).max(1).values]
        logits = [w2 @ (w1 @ z).clamp_min(0) for z in both]
        rows.append(torch.sigmoid(logits[0] + logits[1]))
    return torch.stack(rows)


def planes(x: Tensor) -> Tensor:
    return torch.stack([x.mean(1), x.amax(1)], 1)


def mask_by_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(planes(x), kernel[None], padding="same").sigmoid()[:, 0]


def mask_of_module(x: Tensor, kernel: Tensor) -> Tensor:
    layer = SpatialAttention(kernel.shape[-1])
    layer.load_state_dict({"conv.conv.weight": kernel[None]}, strict=False)
    return layer.eval().gate(x)[:, 0].detach()


def mask_by_windows(x: Tensor, kernel: Tensor) -> Tensor:
    windows = F.unfold(planes(x), k := kernel.shape[-1], padding=k // 2)
    return (kernel.flatten() @ windows).sigmoid().unflatten(-1, x.shape[2:])


def pooled(x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
    return torch.stack([mlp(x.mean((2, 3)), w1, w2), mlp(x.amax((2, 3)), w1, w2)])


def share(high: Tensor, low: Tensor, tie: float) -> float:
    pairs = [1.0 if h > k else tie if h == k else 0.0 for h in high for k in low]
    return sum(pairs) / len(pairs)


RIGHT: dict[Checker, list[Answer]] = {
    cbam.check_channel_gates: [
        lambda x, w1, w2: pooled(x, w1, w2).sum(0).sigmoid(),
        gates_of_module,
        gates_one_by_one,
    ],
    cbam.check_spatial_mask: [mask_by_convolution, mask_of_module, mask_by_windows],
    cbam.check_count: [
        lambda c, r, k: 2 * c * (c // r) + 2 * k * k + 2,
        lambda c, r, k: c**2 // r * 2 + (k**2 + 1) * 2,
        lambda c, r, k: sum([c * c // r, c * c // r, k * k, k * k, 1, 1]),
    ],
    cbam.check_exceeds: [
        lambda high, low: share(high, low, 0.5),
        lambda high, low: ((high[:, None] - low).sign().mean() + 1) / 2,
        lambda high, low: 1 - share(low, high, 0.5),
    ],
}

WRONG: dict[Checker, list[tuple[Answer, str]]] = {
    cbam.check_channel_gates: [
        (lambda x, w1, w2: pooled(x, w1, w2).sigmoid().sum(0), "own sigmoid"),
        (
            lambda x, w1, w2: mlp(x.mean((2, 3)) + x.amax((2, 3)), w1, w2).sigmoid(),
            "before the MLP",
        ),
        (lambda x, w1, w2: pooled(x, w1, w2)[0].sigmoid(), "maximum is not used"),
        (lambda x, w1, w2: pooled(x, w1, w2)[1].sigmoid(), "mean is not used"),
        (lambda x, w1, w2: (2 * pooled(x, w1, w2)[0]).sigmoid(), "used twice"),
        (lambda x, w1, w2: pooled(x, w1, w2).mean(0).sigmoid(), "averaged"),
        (lambda x, w1, w2: pooled(x, w1, w2).sum(0), "sigmoid is missing"),
        (
            lambda x, w1, w2: ((x.mean((2, 3)) + x.amax((2, 3))) @ w1.T @ w2.T).sigmoid(),
            "ReLU",
        ),
        (lambda x, w1, w2: (2 * pooled(x, w1, w2)[1]).sigmoid(), "used twice"),
        (lambda x, w1, w2: pooled(x, w1, w2).sum(0).softmax(-1), "are not sigmoid"),
        (lambda x, w1, w2: pooled(x.reshape(3, 6, 4, 5), w1, w2).sum(0).sigmoid(), "raised"),
        (lambda x, w1, w2: gates_of_module(x, w1, w2)[:, :, None, None], "shape"),
    ],
    cbam.check_spatial_mask: [
        (lambda x, k: mask_by_convolution(x, k.flip(0)), "stacked as"),
        (
            lambda x, k: F.conv2d(planes(x), k[None], padding="same")[:, 0],
            "sigmoid is missing",
        ),
        (
            lambda x, k: F.conv2d(planes(x), k[None], padding=1).sigmoid()[:, 0],
            "with other inputs it went well",
        ),
        (lambda x, k: F.conv2d(planes(x), k[None]).sigmoid()[:, 0], "smaller"),
        (lambda x, k: mask_by_convolution(x, k.flip(1, 2)), "turned round"),
        (
            lambda x, k: F.conv2d(x.mean(1, True), k[None, :1], padding="same").sigmoid()[:, 0],
            "not used",
        ),
        (lambda x, k: mask_by_convolution(x, k)[:, None], "shape"),
        (lambda x, k: mask_by_convolution(2 * x, k), "not the sigmoid"),
    ],
    cbam.check_count: [
        (lambda c, r, k: 4 * c * (c // r) + 2 * k * k + 2, "two MLPs"),
        (lambda c, r, k: 2 * c * (c // r) + k * k + 2, "one plane"),
        (lambda c, r, k: 2 * c * (c // r) + 2 * k * k, "batch normalisation"),
        (lambda c, r, k: c * (c // r) + 2 * k * k + 2, "one layer"),
        (lambda c, r, k: 2 * c * c + 2 * k * k + 2, "but should be"),
        (lambda c, r, k: 2 * c * (c // 16) + 2 * k * k + 2, "count(96, 8, 3)"),
        (lambda c, r, k: 2 * c * c / r + 2 * k * k + 2, "whole number"),
    ],
    cbam.check_exceeds: [
        (lambda high, low: share(high, low, 0.0), "count nothing"),
        (lambda high, low: share(high, low, 1.0), "in full"),
        (lambda high, low: share(low, high, 0.5), "`low` exceeds `high`"),
        (lambda high, low: (high[:, None] > low).sum(), "how many pairs"),
        (lambda high, low: float(high.mean() > low.mean()), "should be"),
        (lambda high, low: 12 * share(high, low, 0.5), "how many pairs"),
        (lambda high, low: share(high, low, 0.5) * high.numel() * low.numel() / 12, "should be"),
    ],
}
