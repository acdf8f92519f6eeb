"""Can a gate tell a network what lies beyond its receptive field? Two digits and a cue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from scipy import stats
from torch import Tensor, nn

from attnbook.cbam import CBAM
from attnbook.datasets import cue_strip
from attnbook.eca import EfficientChannelAttention
from attnbook.squeeze_excitation import SqueezeExcitation
from attnbook.studies import main
from attnbook.training import fit


class GatedNetwork(nn.Module):
    """Two convolutions, each with a gate behind it, and a linear layer; no residual connections.

    `gate(channels)` makes the module that stands behind each convolution; nn.Identity is no gate.
    A number that reaches the linear layer depends on 10 x 10 pixels and no further, as long as the
    gates do not look further: on a cue strip, none sees both a digit and the cue.
    """

    def __init__(self, gate: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), gate(16),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), gate(32),
            nn.MaxPool2d(2),
        )  # fmt: skip
        self.logits = nn.Linear(32 * 2 * 7, 10)

    def forward(self, x: Float[Tensor, "b 3 8 28"]) -> Float[Tensor, "b 10"]:
        """Return one logit per digit."""
        return self.logits(rearrange(self.layers(x), "b c h w -> b (c h w)"))


class ConstantGate(nn.Module):
    """A gate that is learned and then the same for every image: sigmoid of one number a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x times its gate."""
        return x * self.logit.sigmoid()


GATES: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "constant": ConstantGate,
    "squeeze-and-excitation": lambda channels: SqueezeExcitation(channels, 4),
    "ECA": lambda channels: EfficientChannelAttention(kernel_size=3),
    "CBAM": lambda channels: CBAM(channels, 4),
}


def train(
    gate: Callable[[int], nn.Module], *, seed: int, pairs: int = 3000, epochs: int = 12
) -> GatedNetwork:
    """Return a network trained on cue strips drawn with the seed, with the gate in it."""
    torch.manual_seed(seed)
    model = GatedNetwork(gate)
    data = cue_strip(pairs, training=True, seed=seed)
    fit(
        model,
        lambda model, x, labels: F.cross_entropy(model(x), labels),
        data,
        steps=epochs * pairs // 64,
        batch_size=64,
        lr=5e-3,
        seed=seed,
    )
    return model


@torch.no_grad()
def accuracy(model: nn.Module, *, seed: int, pairs: int = 2000) -> float:
    """Return the share of right answers on cue strips made of digits it has not met."""
    images, labels = cue_strip(pairs, training=False, seed=seed)
    return (model(images).argmax(-1) == labels).float().mean().item()


def difference(runs: list[float], baseline: list[float]) -> tuple[float, float]:
    """Return the mean of runs - baseline, seed by seed, and half the width of its 95 % interval.

    Student's t: mean +- half covers the true mean in 95 of 100 such studies, if the differences
    are normal.

    >>> mean, half = difference([0.5, 0.7, 0.9], [0.4, 0.5, 0.6])
    >>> round(mean, 2), round(half, 2)
    (0.2, 0.25)
    """
    differences = torch.tensor(runs) - torch.tensor(baseline)
    half = stats.t.ppf(0.975, len(runs) - 1) * differences.std() / len(runs) ** 0.5
    return differences.mean().item(), half.item()


def run(*, seeds: int, pairs: int, epochs: int) -> dict[str, list[float]]:
    """Return the accuracy with each gate, one number per seed; a seed draws pairs and weights."""
    results: dict[str, list[float]] = {}
    for name, gate in GATES.items():
        models = [train(gate, seed=seed, pairs=pairs, epochs=epochs) for seed in range(seeds)]
        results[name] = [round(accuracy(m, seed=seed), 4) for seed, m in enumerate(models)]
    return results


FULL: dict[str, Any] = {"seeds": 10, "pairs": 3000, "epochs": 12}
QUICK: dict[str, Any] = {"seeds": 1, "pairs": 64, "epochs": 6}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
