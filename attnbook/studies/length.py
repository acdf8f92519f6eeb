"""Does a layer that takes any number of tokens also work at any number? Ways to relate them.

The task: does the first of n symbols occur again? Half of the sequences repeat it once.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnbook.datasets import on_cpu
from attnbook.self_attention import SelfAttention
from attnbook.studies import main

SYMBOLS, DIM, SHORTEST, LONGEST = 32, 32, 4, 128


class Relating(nn.Module):
    """Self-attention between the tokens; the answer is read off the first one.

    A token that sees itself has always found one like itself: unless `sees_itself`, a mask hides
    it.
    """

    def __init__(self, *, sees_itself: bool) -> None:
        super().__init__()
        self.sees_itself = sees_itself
        self.embedding = nn.Embedding(SYMBOLS, DIM)
        self.attention = SelfAttention(DIM)
        self.answer = nn.Sequential(nn.Linear(2 * DIM, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b 2"]:
        """Return logits of "no" and "yes"."""
        x = self.embedding(tokens)
        itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        context = self.attention(x, mask=~itself | self.sees_itself)
        return self.answer(torch.cat([x, context], dim=-1)[:, 0])


class Concatenated(nn.Module):
    """All tokens side by side, as one long vector: each place has weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, DIM)
        self.answer = nn.Sequential(nn.Linear(LONGEST * DIM, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b 2"]:
        """Return logits of "no" and "yes"; places beyond the last token are zero."""
        x = rearrange(self.embedding(tokens), "b n x -> b (n x)")
        return self.answer(F.pad(x, (0, LONGEST * DIM - x.shape[-1])))


class Tokenwise(nn.Module):
    """The same network at each token, and then the mean of what it says."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, DIM)
        self.network = nn.Sequential(nn.Linear(DIM, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.answer = nn.Linear(64, 2)

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b 2"]:
        """Return logits of "no" and "yes"."""
        return self.answer(self.network(self.embedding(tokens)).mean(1))


NETWORKS = {
    "attention": partial(Relating, sees_itself=False),
    "attention, sees itself": partial(Relating, sees_itself=True),
    "concatenated": Concatenated,
    "token-wise": Tokenwise,
}


@on_cpu
def sequences(
    count: int, length: int, generator: torch.Generator
) -> tuple[Int[Tensor, "count length"], Int[Tensor, " count"]]:
    """Draw sequences, and whether the first symbol of each occurs again (once, in half of them)."""
    first = torch.randint(SYMBOLS, (count, 1), generator=generator)
    others = torch.randint(1, SYMBOLS, (count, length - 1), generator=generator)
    tokens = torch.cat([first, (first + others) % SYMBOLS], dim=1)
    repeats = torch.rand(count, generator=generator) < 0.5
    place = torch.randint(1, length, (count, 1), generator=generator)
    again = tokens.scatter(1, place, first)
    return torch.where(rearrange(repeats, "b -> b 1"), again, tokens), repeats.long()


@on_cpu
def train(name: str, *, steps: int, seed: int, device: torch.device | str = "cpu") -> nn.Module:
    """Return a network trained on sequences of 4 to 16 symbols, each batch of one length."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    model = NETWORKS[name]().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        length = int(torch.randint(SHORTEST, 17, (1,), generator=generator))
        tokens, repeats = (x.to(device) for x in sequences(128, length, generator))
        optimizer.zero_grad()
        F.cross_entropy(model(tokens), repeats).backward()
        optimizer.step()
    return model


@torch.no_grad()
def accuracy(model: nn.Module, length: int, *, device: torch.device | str = "cpu") -> float:
    """Return the share of 2,000 new sequences of one length that are answered correctly."""
    tokens, repeats = sequences(2000, length, torch.Generator().manual_seed(length))
    return (model(tokens.to(device)).argmax(-1).cpu() == repeats).float().mean().item()


def run(*, seeds: int, steps: int, lengths: list[int]) -> dict[str, Any]:
    """Train each network from each seed; return its accuracies at each length."""
    return {
        name: [
            [round(accuracy(model, length), 4) for length in lengths]
            for model in (train(name, steps=steps, seed=seed) for seed in range(seeds))
        ]
        for name in NETWORKS
    }


FULL = {"seeds": 5, "steps": 600, "lengths": [8, 16, 32, 64, 128]}
QUICK = {"seeds": 1, "steps": 5, "lengths": [8]}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
