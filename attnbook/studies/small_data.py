"""Convolution or attention, when there are few images? Two networks of one size, on MNIST."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange, Reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnbook.datasets import mnist, on_cpu
from attnbook.self_attention import SelfAttention
from attnbook.studies import main
from attnbook.training import fit

TEST, VALIDATION, SHIFT = 1000, 1000, 3


def convolutional() -> nn.Module:
    """Return three 3 x 3 convolutions, each seeing all places with the same nine weights."""
    return nn.Sequential(
        Rearrange("b y x -> b 1 y x"),
        nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        Reduce("b channel y x -> b channel", "mean"),
        nn.Linear(32, 10),
    )


class Block(nn.Module):
    """Self-attention, then a small network at each position; what goes in is added to both."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(dim), SelfAttention(dim))
        self.network = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, dim)
        )

    def forward(self, x: Float[Tensor, "b i x"]) -> Float[Tensor, "b i x"]:
        """Return one vector for each position."""
        x = x + self.attention(x)
        return x + self.network(x)


class Positions(nn.Module):
    """Adds a learned vector to each position; drawn from N(0, 1/4)."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(length, dim) / 2)

    def forward(self, x: Float[Tensor, "b i x"]) -> Float[Tensor, "b i x"]:
        """Return x with the position's vector added."""
        return x + self.vectors


def attentive() -> nn.Module:
    """Return two layers of self-attention between the 16 patches of 7 x 7 pixels."""
    return nn.Sequential(
        Rearrange("b (row y) (column x) -> b (row column) (y x)", y=7, x=7),
        nn.Linear(49, 32),
        Positions(16, 32),
        Block(32, 40),
        Block(32, 40),
        nn.LayerNorm(32),
        Reduce("b i x -> b x", "mean"),
        nn.Linear(32, 10),
    )


NETWORKS = {"convolution": convolutional, "attention": attentive}


def shifted(images: Float[Tensor, "b y x"], shifts: Int[Tensor, "2 b"]) -> Float[Tensor, "b y x"]:
    """Move each image by its own (down, right), at most SHIFT pixels; what comes in is black."""
    height, width = images.shape[1:]
    padded = F.pad(images, (SHIFT,) * 4, value=float(images.min()))
    down, right = rearrange(SHIFT - shifts, "way b -> way b 1")
    rows = down + torch.arange(height, device=images.device)
    columns = right + torch.arange(width, device=images.device)
    image = rearrange(torch.arange(len(images), device=images.device), "b -> b 1 1")
    return padded[image, rearrange(rows, "b y -> b y 1"), rearrange(columns, "b x -> b 1 x")]


@on_cpu
def random_shifts(count: int) -> Int[Tensor, "2 count"]:
    """Draw a shift for each of `count` images."""
    return torch.randint(-SHIFT, SHIFT + 1, (2, count))


def loss(model: nn.Module, images: Tensor, labels: Tensor, *, shift: bool) -> Tensor:
    """Cross-entropy, of the images as they are or each shifted at random."""
    if shift:
        images = shifted(images, random_shifts(len(images)).to(images.device))
    return F.cross_entropy(model(images), labels)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that are recognised."""
    return (model(images).argmax(-1) == labels).float().mean().item()


@on_cpu
def parts() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return (images, labels) of the training pool and of the test set, in one fixed order."""
    images, labels = mnist()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = (images[order] - 0.13) / 0.31, labels[order]
    return (images[TEST:], labels[TEST:]), (images[:TEST], labels[:TEST])


@on_cpu
def train(
    name: str,
    data: tuple[Tensor, Tensor],
    *,
    steps: int,
    lr: float,
    shift: bool,
    seed: int,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Return a network trained on all of `data`; the seed draws on the CPU."""
    torch.manual_seed(seed)
    model = NETWORKS[name]().to(device)
    data = data[0].to(device), data[1].to(device)
    batch = min(64, len(data[0]))
    fit(model, partial(loss, shift=shift), data, steps=steps, batch_size=batch, lr=lr, seed=seed)
    return model


def best_rate(
    name: str, pool: tuple[Tensor, Tensor], rates: list[float], *, steps: int, shift: bool
) -> dict[str, float]:
    """Train on 1,000 images with each learning rate; return accuracies on the validation part."""
    images, labels = pool[0][-VALIDATION:], pool[1][-VALIDATION:]
    if shift:
        images = shifted(images, random_shifts(len(images)))
    found = {}
    for lr in rates:
        data = pool[0][:1000], pool[1][:1000]
        model = train(name, data, steps=steps, lr=lr, shift=shift, seed=100)
        found[str(lr)] = round(accuracy(model, images, labels), 4)
    return found


@on_cpu
def curves(
    *, shift: bool, seeds: int, plan: list[list[int]], rates: list[float], tuning: int
) -> dict[str, Any]:
    """Choose each network's learning rate, then train it on n images for so many steps.

    `plan` holds the pairs (n, steps). The rate is the best of `rates` after `tuning` steps, on a
    validation part of the pool, which is trained on afterwards; the test images play no part.
    """
    pool, test = parts()
    torch.manual_seed(0)
    moved = shifted(test[0], random_shifts(TEST)), test[1]
    results: dict[str, Any] = {}
    for name in NETWORKS:
        found = best_rate(name, pool, rates, steps=tuning, shift=shift)
        lr = float(max(found, key=found.__getitem__))
        results[name] = {"validation": found, "lr": lr}
        for n, steps in plan:
            measured: dict[str, list[float]] = {"training": [], "test": [], "shifted test": []}
            for seed in range(seeds):
                order = torch.randperm(len(pool[0]), generator=torch.Generator().manual_seed(seed))
                data = pool[0][order[:n]], pool[1][order[:n]]
                model = train(name, data, steps=steps, lr=lr, shift=shift, seed=seed)
                seen = shifted(data[0], random_shifts(n)) if shift else data[0]
                for part, (images, labels) in zip(
                    measured, ((seen, data[1]), test, moved), strict=True
                ):
                    measured[part].append(round(accuracy(model, images, labels), 4))
            results[name][str(n)] = measured
    return results


def run(*, seeds: int, plan: list[list[int]], rates: list[float], tuning: int) -> dict[str, Any]:
    """Train both networks on n images as they are; measure on 1,000 others, straight and moved."""
    return curves(shift=False, seeds=seeds, plan=plan, rates=rates, tuning=tuning)


FULL = {
    "seeds": 5,
    "plan": [[50, 150], [200, 250], [1000, 400], [4000, 800]],
    "rates": [0.003, 0.01, 0.03],
    "tuning": 300,
}
QUICK = {
    "seeds": 1,
    "plan": [[20, 6]],
    "rates": [0.01],
    "tuning": 6,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
