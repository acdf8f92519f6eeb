"""Does attention look too much at its own position? Digits in 16 patches, one head or eight."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnbook.datasets import digits, on_cpu
from attnbook.positional_encoding import LearnedEncoding
from attnbook.studies import main
from attnbook.training import fit
from attnbook.transformer import EncoderLayer

TRAINING = 1297  # digits to learn from; the other 500 are for testing


class PatchReader(nn.Module):
    """Tells a digit from its 16 patches of 2 x 2 pixels, with one encoder layer."""

    def __init__(self, num_heads: int, dim: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Linear(4, dim)
        self.positions = LearnedEncoding(16, dim)
        self.layer = EncoderLayer(dim, num_heads, hidden_dim=dim)
        self.logits = nn.Linear(dim, 10)

    def patches(self, images: Float[Tensor, "b 8 8"]) -> Float[Tensor, "b 16 d"]:
        """Return one vector per patch, position included."""
        cut = rearrange(images, "b (row y) (column x) -> b (row column) (y x)", y=2, x=2)
        return self.positions(self.embedding(cut))

    def forward(self, images: Float[Tensor, "b 8 8"]) -> Float[Tensor, "b 10"]:
        """Return one logit per digit, read from the mean over the patches."""
        return self.logits(reduce(self.layer(self.patches(images)), "b n d -> b d", "mean"))


def cross_entropy(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the mean negative log-probability of the right digit."""
    return F.cross_entropy(model(images), labels)


@on_cpu
def split(seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return digits to learn from and digits to test with, drawn with a seed."""
    images, labels = digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    train, test = order[:TRAINING], order[TRAINING:]
    return (images[train], labels[train]), (images[test], labels[test])


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of digits named correctly."""
    return (model(images).argmax(-1) == labels).float().mean().item()


@torch.no_grad()
def own_weight(model: PatchReader, images: Float[Tensor, "b 8 8"]) -> float:
    """Return the mean weight that a patch gives to itself, over images, heads and patches."""
    _, weights = model.layer.attend(model.patches(images))
    return weights.diagonal(dim1=-2, dim2=-1).mean().item()


def tie(model: PatchReader) -> None:
    """Make queries and keys the same vectors: one projection for both."""
    model.layer.attention.k_proj = model.layer.attention.q_proj


@on_cpu
def of_random_tokens(
    num_heads: int, *, tied: bool, seed: int, length: int = 32, dim: int = 64
) -> Float[Tensor, ""]:
    """Return the mean weight on the own position among random tokens, before any training.

    Projections have variance 1 / dim, so that queries and keys have variance 1 as the tokens have.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(length, dim, generator=generator)
    w_q, w_k = (torch.randn(dim, dim, generator=generator) / dim**0.5 for _ in range(2))
    query, key = (
        rearrange(x @ w, "n (heads d) -> heads n d", heads=num_heads)
        for w in (w_q, w_q if tied else w_k)
    )
    weights = (query @ key.mT / (dim // num_heads) ** 0.5).softmax(-1)
    return weights.diagonal(dim1=-2, dim2=-1).mean()


@on_cpu
def run(*, seeds: int, steps: int) -> dict[str, Any]:
    """Train with one head and with eight, queries and keys projected apart or by one matrix."""
    results: dict[str, Any] = {}
    for tied in (False, True):
        for num_heads in (1, 8):
            found: dict[str, list[float]] = {"at the start": [], "trained": [], "accuracy": []}
            for seed in range(seeds):
                torch.manual_seed(seed)
                model = PatchReader(num_heads)
                if tied:
                    tie(model)
                training, testing = split(seed)
                found["at the start"].append(round(own_weight(model, testing[0]), 4))
                fit(model, cross_entropy, training, steps=steps, batch_size=64, lr=5e-3, seed=seed)
                found["trained"].append(round(own_weight(model, testing[0]), 4))
                found["accuracy"].append(round(accuracy(model, *testing), 4))
            results[f"{'tied' if tied else 'independent'}, {num_heads}"] = found
    return results


FULL = {"seeds": 5, "steps": 300}
QUICK = {"seeds": 1, "steps": 6}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
