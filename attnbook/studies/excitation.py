"""Which parts of squeeze-and-excitation matter? One at a time is changed, on the cue strip.

What they are compared with, reduction 4, mean and sigmoid, is stored by the study `cue_strip`, from
the same seeds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnbook.squeeze_excitation import SqueezeExcitation
from attnbook.studies import main
from attnbook.studies.cue_strip import FULL, QUICK, by_gate


class Excitation(SqueezeExcitation):
    """Squeeze-and-excitation with another way to pool, or another activation for the sigmoid."""

    def __init__(
        self,
        channels: int,
        *,
        squeeze: str = "mean",
        activation: Callable[[Tensor], Tensor] = torch.sigmoid,
    ) -> None:
        super().__init__(channels, reduction=4)
        self.squeeze, self.activation = squeeze, activation

    def gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        """Return what each channel is multiplied by."""
        squeezed = reduce(x, "b c h w -> b c", self.squeeze)
        return rearrange(self.activation(self.mlp(squeezed)), "b c -> b c 1 1")


class NoSqueeze(SqueezeExcitation):
    """A gate for each channel and each place, computed from that place alone: nothing is pooled."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, reduction=4)

    def gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return what each channel is multiplied by at each place."""
        return self.fc2(self.fc1(x).relu()).sigmoid()


def softmax(y: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
    """Return gates that sum to 1."""
    return y.softmax(-1)


def scaled_softmax(y: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
    """Return gates that sum to the number of channels, so that they are 1 on average."""
    return y.shape[-1] * y.softmax(-1)


VARIANTS: dict[str, Callable[[int], nn.Module]] = {
    "r = 2": lambda channels: SqueezeExcitation(channels, 2),
    "r = 8": lambda channels: SqueezeExcitation(channels, 8),
    "r = 16": lambda channels: SqueezeExcitation(channels, 16),
    "max": lambda channels: Excitation(channels, squeeze="max"),
    "no squeeze": NoSqueeze,
    "tanh": lambda channels: Excitation(channels, activation=torch.tanh),
    "ReLU": lambda channels: Excitation(channels, activation=torch.relu),
    "softmax": lambda channels: Excitation(channels, activation=softmax),
    "softmax times C": lambda channels: Excitation(channels, activation=scaled_softmax),
}


def run(*, seeds: int, pairs: int, epochs: int) -> dict[str, list[float]]:
    """Train the network with each variant."""
    return by_gate(VARIANTS, seeds=seeds, pairs=pairs, epochs=epochs)


if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
