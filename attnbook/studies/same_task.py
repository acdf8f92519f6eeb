"""One task, one small network, and each mechanism in its place: who reads tilted digits best?"""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnbook.cbam import CBAM
from attnbook.datasets import on_cpu
from attnbook.eca import EfficientChannelAttention
from attnbook.multi_head_attention import MultiHeadAttention
from attnbook.resnet import BasicBlock
from attnbook.spatial_transformer import SpatialTransformer, init_identity
from attnbook.squeeze_excitation import SqueezeExcitation
from attnbook.studies import difference, main
from attnbook.studies.warps import Task, draw, poses, split
from attnbook.training import fit

# MNIST's digits turned by up to 45 degrees, at half to nine tenths of their size, off the centre.
SMALL = Task(size=28, turn=45.0, scale=(0.5, 0.9), shift=0.2)


class SelfAttentionOverPlaces(nn.Module):
    """Every place of a feature map reads from all places; what it reads is added to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(channels, num_heads=4)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x plus what its places read from one another."""
        places = rearrange(x, "b c h w -> b (h w) c")
        read = self.attention(places)
        return x + rearrange(read, "b (h w) c -> b c h w", h=x.shape[2])


def front_warp() -> SpatialTransformer:
    """Return a spatial transformer for 28 x 28 images, from its identity start."""
    localisation = nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3), nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 3 * 3, 32), nn.ReLU(),
        init_identity(nn.Linear(32, 6)),
    )  # fmt: skip
    return SpatialTransformer(localisation)


class Network(nn.Module):
    """Five convolutions, four of them in two residual blocks, and a linear layer.

    `attention(channels)` makes what each block holds; `front` is what the image goes through first.
    """

    def __init__(
        self,
        attention: Callable[[int], nn.Module] | None = None,
        *,
        front: nn.Module | None = None,
        width: int = 16,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Identity() if front is None else front,
            nn.Conv2d(1, width, 5, stride=2, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            BasicBlock(width, width, 2, attention),
            BasicBlock(width, 2 * width, 2, attention),
        )  # fmt: skip
        self.logits = nn.Linear(2 * width, 10)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 10"]:
        """Return one logit per digit."""
        return self.logits(reduce(self.layers(x), "b c h w -> b c", "mean"))


NETWORKS: dict[str, Callable[[], Network]] = {
    "nothing": Network,
    "nothing, wider": lambda: Network(width=18),
    "squeeze-and-excitation": lambda: Network(lambda channels: SqueezeExcitation(channels, 4)),
    "ECA": lambda: Network(lambda channels: EfficientChannelAttention(kernel_size=3)),
    "CBAM": lambda: Network(lambda channels: CBAM(channels, 4)),
    "self-attention": lambda: Network(SelfAttentionOverPlaces),
    "spatial transformer": lambda: Network(front=front_warp()),
}


@on_cpu
def train(
    network: Callable[[], Network],
    data: tuple[Tensor, Tensor],
    *,
    seed: int,
    steps: int,
    lr: float = 0.02,
    device: torch.device | str = "cpu",
) -> Network:
    """Return the network trained on (digits, labels); every batch of 64 draws new poses.

    The seed draws weights, the order of the digits, and poses, all on the CPU.
    """
    torch.manual_seed(seed)
    model, generator = network().to(device), torch.Generator().manual_seed(seed)

    def loss(model: nn.Module, digits: Tensor, labels: Tensor) -> Tensor:
        pose = poses(SMALL, len(digits), generator).to(digits.device)
        return F.cross_entropy(model(draw(digits, pose, SMALL.size)), labels)

    data = data[0].to(device), data[1].to(device)
    fit(model, loss, data, steps=steps, batch_size=64, lr=lr, seed=seed)
    return model


@torch.no_grad()
def right(model: Network, data: tuple[Tensor, Tensor]) -> float:
    """Return the share of digits that are named, each in one pose, always the same."""
    digits, labels = data
    pose = poses(SMALL, len(digits), torch.Generator().manual_seed(1000))
    images = draw(digits, pose.to(digits.device), SMALL.size)
    return (model(images).argmax(-1) == labels).float().mean().item()


def by_rate(
    network: Callable[[], Network], rates: list[float], *, seeds: int, steps: int
) -> dict[str, float]:
    """Return for each learning rate the mean accuracy on 1,000 digits held back from training."""
    (digits, labels), _ = split()
    learned, held_back = (digits[1000:], labels[1000:]), (digits[:1000], labels[:1000])
    found = {}
    for lr in rates:
        models = [
            train(network, learned, seed=100 + seed, steps=steps, lr=lr) for seed in range(seeds)
        ]
        found[str(lr)] = round(mean(right(model, held_back) for model in models), 4)
    return found


def run(*, seeds: int, steps: int, rates: list[float], tuning_seeds: int) -> dict[str, Any]:
    """Choose each network's learning rate, then train it with each seed; return accuracies.

    The rate is the best of `rates` on a part of the training digits, with seeds of its own; the
    test digits play no part in it.
    """
    learned, test = split()
    results: dict[str, Any] = {"validation": {}, "right": {}}
    for name, network in NETWORKS.items():
        found = by_rate(network, rates, seeds=tuning_seeds, steps=steps)
        lr = float(max(found, key=found.__getitem__))
        results["validation"][name] = found
        results["right"][name] = [
            round(right(train(network, learned, seed=seed, steps=steps, lr=lr), test), 4)
            for seed in range(seeds)
        ]
    return results


def against(baseline: str, runs: dict[str, list[float]]) -> dict[str, tuple[float, float]]:
    """Return for each other network how many points better it is, and half of the 95 % interval.

    `runs` has the accuracies of each network, one number per seed, and is compared seed by seed.

    >>> runs = {"a": [0.5, 0.6, 0.7], "b": [0.6, 0.7, 0.8]}
    >>> [round(abs(number), 2) for number in against("a", runs)["b"]]
    [10.0, 0.0]
    """
    percent = {name: [100 * share for share in shares] for name, shares in runs.items()}
    without = percent.pop(baseline)
    return {name: difference(shares, without) for name, shares in percent.items()}


FULL: dict[str, Any] = {
    "seeds": 10,
    "steps": 320,
    "rates": [0.005, 0.01, 0.02, 0.04, 0.08],
    "tuning_seeds": 3,
}
QUICK: dict[str, Any] = {"seeds": 1, "steps": 6, "rates": [0.02], "tuning_seeds": 1}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
