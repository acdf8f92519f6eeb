"""Do more heads help at the same number of parameters? Two tasks, two lengths of training."""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnbook.attention import causal_mask
from attnbook.datasets import on_cpu
from attnbook.positional_encoding import LearnedEncoding
from attnbook.studies import main
from attnbook.studies.own_position import PatchReader, accuracy, cross_entropy, split
from attnbook.training import fit
from attnbook.transformer import EncoderLayer

CONTEXT = 32  # characters that a prediction may look back on


class CharacterModel(nn.Module):
    """Predicts each next character of a text, with one causal encoder layer."""

    def __init__(self, num_heads: int, characters: int, dim: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, dim)
        self.positions = LearnedEncoding(CONTEXT, dim)
        self.layer = EncoderLayer(dim, num_heads, hidden_dim=2 * dim)
        self.logits = nn.Linear(dim, characters)

    def forward(self, text: Int[Tensor, "b n"]) -> Float[Tensor, "b n characters"]:
        """Return the logits of the character that follows each one."""
        mask = causal_mask(text.shape[1], device=text.device)
        return self.logits(self.layer(self.positions(self.embedding(text)), mask))


def nats(model: nn.Module, text: Int[Tensor, "b n"]) -> Tensor:
    """Return the mean negative log-probability of each next character, in nats."""
    logits = rearrange(model(text[:, :-1]), "b n characters -> (b n) characters")
    return F.cross_entropy(logits, rearrange(text[:, 1:], "b n -> (b n)"))


@on_cpu
def manual() -> tuple[Int[Tensor, "b n"], Int[Tensor, "b n"], int]:
    """Return Python's manual of itself in windows of characters: nine tenths, the rest, alphabet.

    The windows follow each other in the text, so the last tenth is text never seen in training.
    """
    text = "\n".join(topics[name] for name in sorted(topics))
    alphabet = sorted(set(text))
    number = {character: n for n, character in enumerate(alphabet)}
    numbers = torch.tensor([number[character] for character in text])
    windows = numbers.unfold(0, CONTEXT + 1, CONTEXT)
    cut = len(windows) * 9 // 10
    return windows[:cut], windows[cut:], len(alphabet)


@on_cpu
def run(
    *, seeds: int, heads: list[int], digit_steps: list[int], text_steps: list[int]
) -> dict[str, Any]:
    """Train one layer of constant size with several numbers of heads on digits and on text."""
    results: dict[str, Any] = {"digits: right": {}, "text: nats per character": {}}
    for steps in digit_steps:
        found: dict[str, list[float]] = {}
        for num_heads in heads:
            for seed in range(seeds):
                training, testing = split(seed)
                torch.manual_seed(seed)
                model = PatchReader(num_heads)
                fit(model, cross_entropy, training, steps=steps, batch_size=64, lr=5e-3, seed=seed)
                found.setdefault(f"{num_heads}", []).append(round(accuracy(model, *testing), 4))
        results["digits: right"][f"{steps}"] = found
    windows, unseen, characters = manual()
    for steps in text_steps:
        found = {}
        for num_heads in heads:
            for seed in range(seeds):
                torch.manual_seed(seed)
                model = CharacterModel(num_heads, characters)
                fit(model, nats, (windows,), steps=steps, batch_size=32, lr=1e-2, seed=seed)
                with torch.no_grad():
                    loss = nats(model, unseen).item()
                found.setdefault(f"{num_heads}", []).append(round(loss, 4))
        results["text: nats per character"][f"{steps}"] = found
    return results


FULL = {"seeds": 5, "heads": [1, 4, 8, 16, 32], "digit_steps": [150, 600], "text_steps": [150, 450]}
QUICK = {"seeds": 1, "heads": [1], "digit_steps": [6], "text_steps": [6]}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
