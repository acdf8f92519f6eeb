"""Can a gate tell a network what lies beyond its receptive field? Two digits and a cue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from attnbook.cbam import CBAM
from attnbook.datasets import cue_strip, on_cpu
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


@on_cpu
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


def by_gate(
    gates: dict[str, Callable[[int], nn.Module]], *, seeds: int, pairs: int, epochs: int
) -> dict[str, list[float]]:
    """Return the accuracy with each gate, one number per seed; a seed draws pairs and weights."""
    results: dict[str, list[float]] = {}
    for name, gate in gates.items():
        models = [train(gate, seed=seed, pairs=pairs, epochs=epochs) for seed in range(seeds)]
        results[name] = [round(accuracy(m, seed=seed), 4) for seed, m in enumerate(models)]
    return results


def run(*, seeds: int, pairs: int, epochs: int) -> dict[str, list[float]]:
    """Train the network with each gate, and without one."""
    return by_gate(GATES, seeds=seeds, pairs=pairs, epochs=epochs)


FULL: dict[str, Any] = {"seeds": 10, "pairs": 3000, "epochs": 12}
QUICK: dict[str, Any] = {"seeds": 1, "pairs": 64, "epochs": 6}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
