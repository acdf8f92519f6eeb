"""How well can a layer with a few heads read several places at once?"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from attnbook.datasets import on_cpu
from attnbook.multi_head_attention import MultiHeadAttention
from attnbook.studies import main
from attnbook.training import fit

VALUE = 2  # numbers in a value


class Reader(nn.Module):
    """One query asks for `places` of `length` positions; the answer is the values that lie there.

    A position is a one-hot of its number and its value. The query is one one-hot of the length for
    each place asked for, in order. All that the readout gets is the output of the attention.
    """

    def __init__(
        self, num_heads: int, *, places: int, length: int, dim: int, values: int, linear: bool
    ) -> None:
        super().__init__()
        self.query = nn.Linear(places * length, dim)
        self.attention = MultiHeadAttention(dim, num_heads, kdim=length, vdim=values)
        answers = places * values
        self.readout = (
            nn.Linear(dim, answers)
            if linear
            else nn.Sequential(nn.Linear(dim, 64), nn.ReLU(), nn.Linear(64, answers))
        )

    def attend(
        self, asked: Float[Tensor, "b places n"], values: Float[Tensor, "b n v"]
    ) -> tuple[Float[Tensor, "b places v"], Float[Tensor, "b head 1 n"]]:
        """Return what is read at each place asked for, and each head's weights."""
        query = self.query(rearrange(asked, "b places n -> b 1 (places n)"))
        names = repeat(
            torch.eye(values.shape[1], device=values.device), "n m -> b n m", b=len(values)
        )
        output, weights = self.attention.attend(query, names, values)
        return rearrange(
            self.readout(output), "b 1 (places v) -> b places v", v=values.shape[-1]
        ), weights

    def forward(
        self, asked: Float[Tensor, "b places n"], values: Float[Tensor, "b n v"]
    ) -> Float[Tensor, "b places v"]:
        """Return what is read at each place asked for."""
        return self.attend(asked, values)[0]


@on_cpu
def questions(
    count: int, generator: torch.Generator, *, places: int, length: int, values: int, one_hot: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw different places to ask for, values for all positions, and the answers.

    Values are standard normal numbers, or one of `values` symbols as a one-hot vector.
    """
    chosen = torch.rand(count, length, generator=generator).argsort(-1)[:, :places]
    if one_hot:
        symbols = torch.randint(values, (count, length), generator=generator)
        content = F.one_hot(symbols, values).float()
    else:
        content = torch.randn(count, length, values, generator=generator)
    answers = content.gather(1, repeat(chosen, "b places -> b places v", v=values))
    return F.one_hot(chosen, length).float(), content, answers


def squared_error(model: nn.Module, asked: Tensor, values: Tensor, answers: Tensor) -> Tensor:
    """Mean squared error: 1 for a reader of normal numbers that always answers 0."""
    return F.mse_loss(model(asked, values), answers)


@on_cpu
def train(
    num_heads: int,
    *,
    places: int,
    length: int,
    dim: int,
    steps: int,
    lr: float,
    seed: int,
    symbols: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[Reader, float, float]:
    """Train one reader; return it, its squared error and its share of places read right.

    With `symbols`, values are one-hot and the readout has a hidden layer. A place is right if the
    largest of its numbers is where it should be. Both are measured on 8,192 fresh questions.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    values = symbols or VALUE
    model = Reader(
        num_heads, places=places, length=length, dim=dim, values=values, linear=not symbols
    ).to(device)
    drawn = questions(
        128 * steps + 8192,
        generator,
        places=places,
        length=length,
        values=values,
        one_hot=symbols > 0,
    )
    drawn = tuple(tensor.to(device) for tensor in drawn)
    training = tuple(tensor[8192:] for tensor in drawn)
    fit(model, squared_error, training, steps=steps, batch_size=128, lr=lr, seed=seed)
    asked, content, answers = (tensor[:8192] for tensor in drawn)
    with torch.no_grad():
        read = model(asked, content)
    right = (read.argmax(-1) == answers.argmax(-1)).float().mean().item()
    return model, F.mse_loss(read, answers).item(), right


def run(*, seeds: int, heads: list[int], steps: int, one_hot_steps: int) -> dict[str, Any]:
    """Four places at once with several numbers of heads; and two places, one head, symbols."""
    results: dict[str, Any] = {"four places, normal values": {}}
    for num_heads in heads:
        runs = [
            train(num_heads, places=4, length=8, dim=32, steps=steps, lr=1e-2, seed=seed)
            for seed in range(seeds)
        ]
        errors = [round(error, 5) for _, error, _ in runs]
        results["four places, normal values"][f"{num_heads}"] = errors
    setting = {"places": 2, "length": 6, "dim": 16, "steps": one_hot_steps, "lr": 2e-2}
    runs = [train(1, **setting, seed=seed) for seed in range(seeds)]
    results["two places, one head, normal values"] = [round(error, 5) for _, error, _ in runs]
    runs = [train(1, **setting, seed=seed, symbols=4) for seed in range(seeds)]
    results["two places, one head, symbols: right"] = [round(right, 5) for _, _, right in runs]
    return results


FULL = {"seeds": 5, "heads": [1, 2, 4, 8], "steps": 600, "one_hot_steps": 400}
QUICK = {"seeds": 1, "heads": [1], "steps": 10, "one_hot_steps": 10}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
