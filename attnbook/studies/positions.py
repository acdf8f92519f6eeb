"""Which positional encoding learns which task, and what is left of it beyond the trained length?"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnbook.datasets import on_cpu
from attnbook.multi_head_attention import MultiHeadAttention
from attnbook.positional_encoding import (
    FloaterEncoding,
    LearnedEncoding,
    RotaryEncoding,
    SinusoidalEncoding,
    alibi_bias,
)
from attnbook.studies import main
from attnbook.training import fit

ENCODINGS = ("none", "sinusoidal", "learned", "rotary", "ALiBi", "FLOATER")
TASKS = ("latest marked", "three back")
SYMBOLS, BIN, IGNORED = 16, 16, -100


class Layer(nn.Module):
    """Attention, then a network for each position, each added to what came in."""

    def __init__(self, dim: int, heads: int, rotary: nn.Module | None, *, is_causal: bool) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.norm = nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(dim, heads, rotary=rotary)
        self.network = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim)
        )

    def forward(
        self, x: Tensor, path: tuple[Tensor, ...] | tuple[float, ...], bias: Tensor | None
    ) -> Tensor:
        """Return x after the layer; `path` is added to the inputs of query, key and value."""
        query, key, value = (self.norm(x) + p for p in path)
        x = x + self.attention(query, key, value, bias=bias, is_causal=self.is_causal)
        return x + self.network(x)


class Reader(nn.Module):
    """A small transformer that is told about positions in one of six ways, ENCODINGS.

    Sinusoidal and learned are added to the embeddings, rotary turns queries and keys in every
    layer, ALiBi is added to the scores of every layer, and one FLOATER path, a single step of the
    solver from one position to the next, to the inputs of query, key and value of every layer.
    """

    def __init__(
        self,
        encoding: str,
        symbols: int = 2 * SYMBOLS,
        answers: int = SYMBOLS,
        *,
        layers: int = 2,
        dim: int = 64,
        heads: int = 4,
        max_length: int = 256,
        is_causal: bool = True,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.is_alibi = encoding == "ALiBi"
        self.embedding = nn.Embedding(symbols, dim)
        self.added = nn.Identity()
        if encoding == "sinusoidal":
            self.added = SinusoidalEncoding(dim)
        if encoding == "learned":
            self.added = LearnedEncoding(max_length, dim)
        self.floater = FloaterEncoding(dim, step=0.1, substeps=1) if encoding == "FLOATER" else None
        rotary = RotaryEncoding(dim // heads) if encoding == "rotary" else None
        self.layers = nn.ModuleList(
            Layer(dim, heads, rotary, is_causal=is_causal) for _ in range(layers)
        )
        self.logits = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, answers))

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n answers"]:
        """Return the logits of the answer at each position."""
        length = tokens.shape[1]
        path = (0.0, 0.0, 0.0) if self.floater is None else self.floater(length)
        bias = None
        if self.is_alibi:
            bias = alibi_bias(self.heads, length, device=tokens.device)
            bias = rearrange(bias, "h i j -> 1 h i j")
        x = self.added(self.embedding(tokens))
        for layer in self.layers:
            x = layer(x, path, bias)
        return self.logits(x)


@on_cpu
def sequences(
    task: str, count: int, length: int, generator: torch.Generator
) -> tuple[Int[Tensor, "count length"], Int[Tensor, "count length"]]:
    """Draw sequences of symbols, some of them marked, and what should be answered at each position.

    Token s is symbol s, token SYMBOLS + s the same symbol with a mark; about one in seven has one.
    The answer is the symbol of the latest marked token up to and with this position, or the symbol
    three places before it; it is IGNORED where there is none.
    """
    symbols = torch.randint(SYMBOLS, (count, length), generator=generator)
    marked = torch.rand(count, length, generator=generator) < 0.15
    place = torch.arange(length).expand(count, length)
    if task == "latest marked":
        place = place.masked_fill(~marked, -1).cummax(-1).values
    else:
        place = place - 3
    answer = symbols.gather(-1, place.clamp(min=0)).masked_fill(place < 0, IGNORED)
    return symbols + SYMBOLS * marked, answer


def loss(model: nn.Module, tokens: Tensor, answer: Tensor) -> Tensor:
    """Cross-entropy of the answers, over all positions that have one."""
    logits = rearrange(model(tokens), "b n answers -> (b n) answers")
    return F.cross_entropy(logits, rearrange(answer, "b n -> (b n)"), ignore_index=IGNORED)


@on_cpu
def trained(
    task: str,
    encoding: str,
    *,
    seed: int,
    steps: int,
    length: int,
    device: torch.device | str = "cpu",
) -> Reader:
    """Train a causal reader on sequences of one length, no sequence twice."""
    torch.manual_seed(seed)
    model = Reader(encoding).to(device)
    data = sequences(task, 32 * steps, length, torch.Generator().manual_seed(seed))
    data = tuple(tensor.to(device) for tensor in data)
    fit(model, loss, data, steps=steps, batch_size=32, lr=2e-3, seed=seed)
    return model


@torch.no_grad()
def accuracy(model: Reader, task: str, *, count: int, length: int) -> list[float]:
    """Return the share of right answers on new sequences, for each BIN positions in a row.

    The reader is causal: what it answers at position p it would answer in a sequence that ends
    there. One pass over long sequences measures all shorter ones.
    """
    generator = torch.Generator().manual_seed(10_000)
    device = model.embedding.weight.device
    tokens, answer = (x.to(device) for x in sequences(task, count, length, generator))
    right = (model(tokens).argmax(-1) == answer).float()
    asked = (answer != IGNORED).float()
    right, asked = (reduce(x, "b (bin p) -> bin", "sum", p=BIN) for x in (right, asked))
    return [round(share, 4) for share in (right / asked).tolist()]


def run(*, seeds: int, steps: int, length: int, test_length: int, count: int) -> dict[str, Any]:
    """Train a reader of each kind on each task, and test it far beyond the trained length."""
    return {
        task: {
            encoding: [
                accuracy(
                    trained(task, encoding, seed=seed, steps=steps, length=length),
                    task,
                    count=count,
                    length=test_length,
                )
                for seed in range(seeds)
            ]
            for encoding in ENCODINGS
        }
        for task in TASKS
    }


FULL = {"seeds": 5, "steps": 300, "length": 32, "test_length": 256, "count": 64}
QUICK = {"seeds": 1, "steps": 6, "length": 16, "test_length": 32, "count": 4}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
