"""What do the 72 heads of a published sentence encoder look at, in sentences of Python's manual?"""

from __future__ import annotations

import random
import re
from pydoc_data.topics import topics
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnbook.studies import main
from attnbook.transformer import Encoder, SentenceEncoder

MEASURES = ("itself", "previous", "next", "[CLS]", "[SEP]", "itself, words only",
            "previous, words only", "next, words only")  # fmt: skip


def sentences(count: int) -> list[str]:
    """Return `count` different sentences of 8 to 30 plain words, drawn with a fixed seed."""
    found = set()
    for text in topics.values():
        for paragraph in re.split(r"\n\s*\n", text):
            if not paragraph.startswith((" ", "*", "[")):  # neither code nor lists
                found.update(re.split(r"(?<=\.) +", " ".join(paragraph.split())))
    plain = [s for s in found if re.fullmatch(r"[A-Z][a-z]*[A-Za-z ,;:()'-]+\.", s)]
    right = sorted(s for s in plain if 8 <= len(s.split()) <= 30)
    return random.Random(0).sample(right, count)


def looks(weights: Float[Tensor, "layer head i j"]) -> Float[Tensor, "measure layer head"]:
    """Return the mean weight that the words of one sentence give to each of MEASURES.

    The first token is [CLS] and the last is [SEP]; only the rows of the words between are
    counted. Previous and next are those words; the first word has no previous one, the last no
    next. "Words only" leaves [CLS] and [SEP] out and makes the rows sum to 1 again.
    """
    among = weights[..., 1:-1, 1:-1]
    words = among / among.sum(-1, keepdim=True)

    def diagonal(matrix: Tensor, offset: int) -> Tensor:
        return matrix.diagonal(offset, dim1=-2, dim2=-1).mean(-1)

    neighbours = [(diagonal(m, 0), diagonal(m, -1), diagonal(m, 1)) for m in (among, words)]
    ends = weights[..., 1:-1, 0].mean(-1), weights[..., 1:-1, -1].mean(-1)
    return torch.stack([*neighbours[0], *ends, *neighbours[1]])


@torch.no_grad()
def run(*, count: int) -> dict[str, Any]:
    """Count, sentence by sentence, with the published weights and with random ones."""
    published = SentenceEncoder()
    torch.manual_seed(0)
    control = Encoder(30_522, 384, 12, 6, 1_536, max_length=512).eval()
    found: dict[str, list[Tensor]] = {"published": [], "random": []}
    even, even_words, words = [], [], 0
    for sentence in sentences(count):
        tokens, _ = published.tokenize([sentence])
        length = tokens.shape[1]
        even.append(1 / length)
        even_words.append(1 / (length - 2))
        words += length - 2
        for name, encoder in (("published", published.encoder), ("random", control)):
            found[name].append(looks(encoder.attend(tokens)[1][0]))
    published_looks, random_looks = (torch.stack(found[name]) for name in ("published", "random"))
    halves = published_looks[::2].mean(0) - published_looks[1::2].mean(0)

    def numbers(x: Tensor) -> Any:
        return [[round(v, 4) for v in row] for row in x.tolist()]

    return {
        "sentences": count,
        "pieces of words": words,
        "even share": round(sum(even) / count, 4),
        "even share, words only": round(sum(even_words) / count, 4),
        "published": {
            name: numbers(x) for name, x in zip(MEASURES, published_looks.mean(0), strict=True)
        },
        "random weights, mean of all heads": {
            name: round(x.mean().item(), 4)
            for name, x in zip(MEASURES, random_looks.mean(0), strict=True)
        },
        "largest difference between two halves of the sentences": round(
            halves.abs().max().item(), 4
        ),
    }


FULL = {"count": 300}
QUICK = {"count": 2}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
