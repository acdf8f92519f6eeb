"""Does a gate need to see all channels, and do a channel's neighbours mean anything? Cue strip.

The network without a gate, with which all of this is compared, is stored by the study `cue_strip`,
from the same seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnbook.datasets import on_cpu
from attnbook.eca import EfficientChannelAttention
from attnbook.studies import main
from attnbook.studies.cue_strip import GatedNetwork, accuracy, train


class Gate(nn.Module):
    """Multiply each channel by sigmoid(y), where y is computed from the means of the channels."""

    def scores(self, z: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        """Return y; here the means themselves, so that nothing is learned."""
        return z

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x times its gate."""
        y = self.scores(reduce(x, "b c h w -> b c", "mean"))
        return x * rearrange(y.sigmoid(), "b c -> b c 1 1")


class FullGate(Gate):
    """y = W z with any W, (c, c): every gate sees every channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels, bias=False)

    def scores(self, z: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        """Return W z."""
        return self.linear(z)


class BandGate(Gate):
    """y = W z with a band of k diagonals: each channel has k weights of its own, none shared.

    With k = 1 the matrix is diagonal. Initial values as PyTorch's: even within 1 / sqrt(k).
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, kernel_size))
        nn.init.uniform_(self.weight, -(kernel_size**-0.5), kernel_size**-0.5)

    def scores(self, z: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        """Return W z, from the k neighbours of each channel."""
        k = self.weight.shape[1]
        neighbours = F.pad(z, (k // 2, k // 2)).unfold(-1, k, 1)
        return einsum(neighbours, self.weight, "b c k, c k -> b c")


class OrderedECA(EfficientChannelAttention):
    """ECA that takes the channels in another order, and gives the gates back in theirs."""

    order: Int[Tensor, " c"]

    def __init__(self, order: Int[Tensor, " c"], kernel_size: int = 3) -> None:
        super().__init__(kernel_size=kernel_size)
        self.register_buffer("order", order)

    def gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        """Return the gates of the reordered channels, each at its own channel again."""
        return super().gate(x[:, self.order])[:, self.order.argsort()]


@on_cpu
def gates(seed: int) -> dict[str, Callable[[int], nn.Module]]:
    """Return what makes each gate from a number of channels; the seed draws the shuffled order."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "no weights": lambda channels: Gate(),
        "diagonal": lambda channels: BandGate(channels, 1),
        "full": FullGate,
        "band, not shared": lambda channels: BandGate(channels, 3),
        "ECA, k = 1": lambda channels: OrderedECA(torch.arange(channels), kernel_size=1),
        "ECA": lambda channels: OrderedECA(torch.arange(channels)),
        "ECA, shuffled": lambda channels: OrderedECA(torch.randperm(channels, generator=generator)),
    }


def shuffled(model: GatedNetwork, places: list[int], *, orders: int, seed: int) -> list[float]:
    """Return the accuracy when trained gates meet the channels in new random orders, one each.

    `places` says which of the network's gates do, counted from the image.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, OrderedECA)]
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(orders):
        for place in places:
            count = len(layers[place].order)
            order = torch.randperm(count, generator=generator, device="cpu")
            layers[place].order = order.to(layers[place].order.device)
        found.append(round(accuracy(model, seed=seed), 4))
    for layer in layers:
        layer.order = torch.arange(len(layer.order), device=layer.order.device)
    return found


def run(*, seeds: int, pairs: int, epochs: int, orders: int) -> dict[str, Any]:
    """Train each network with each seed; then shuffle the channels before the gates of ECA's."""
    results: dict[str, Any] = {"right": {}, "shuffled after training": {}}
    for seed in range(seeds):
        for name, gate in gates(seed).items():
            model = train(gate, seed=seed, pairs=pairs, epochs=epochs)
            results["right"].setdefault(name, []).append(round(accuracy(model, seed=seed), 4))
            if name == "ECA":
                for where, places in (("both", [0, 1]), ("first", [0]), ("second", [1])):
                    found = shuffled(model, places, orders=orders, seed=seed)
                    results["shuffled after training"].setdefault(where, []).append(found)
    return results


FULL: dict[str, Any] = {"seeds": 10, "pairs": 3000, "epochs": 12, "orders": 10}
QUICK: dict[str, Any] = {"seeds": 1, "pairs": 64, "epochs": 6, "orders": 1}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
