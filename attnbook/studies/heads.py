"""What do the 72 heads of a published sentence encoder look at, in sentences of Python's manual?"""

from __future__ import annotations

import random
import re
from pydoc_data.topics import topics
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from attnbook.datasets import on_cpu
from attnbook.studies import main
from attnbook.transformer import Encoder, SentenceEncoder

MEASURES = ("itself", "previous", "next", "[CLS]", "[SEP]", "itself, words only",
            "previous, words only", "next, words only")  # fmt: skip

EXAMPLES = (
    "The dog bites the man.",
    "The man bites the dog.",
    "The dog often bites the man.",
)
FROST = "The frost bites the man."  # where "bites" says something else

# "The WORD VERB the man.": how much of its weight does the verb give to the word before it?
ANIMALS = ("dog", "snake", "cat", "horse", "wolf", "fox", "bear", "shark", "rat", "wasp", "tiger",
           "lion", "fly", "bird", "fish", "ant", "cow", "mouse", "spider", "duck", "crab",
           "turtle")  # fmt: skip
OTHERS = ("frost", "wind", "cold", "acid", "law", "tax", "screw", "saw", "wheel", "cost", "crisis",
          "heat", "boy", "queen", "doctor", "baby", "apple", "stone", "tree", "car", "table",
          "cake", "door", "pencil")  # fmt: skip
VERBS = ("sees", "likes", "hits", "finds", "eats", "hears")  # each with the four words below
WITH_VERBS = ("dog", "frost", "snake", "wind")


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
def count_looks(encoder: Encoder, texts: list[Tensor]) -> Float[Tensor, "text measure layer head"]:
    """Return `looks` for each text, a row of the numbers of its pieces."""
    return torch.stack([looks(encoder.attend(text)[1][0]) for text in texts])


@torch.no_grad()
def example(published: SentenceEncoder, sentence: str) -> tuple[list[str], Tensor]:
    """Return the tokens of a sentence, and the weights, (layer, head, query, key)."""
    weights = published.encoder.attend(published.tokenize([sentence])[0])[1][0]
    return published.tokenizer.encode(sentence).tokens, weights


def to_word_before(published: SentenceEncoder, word: str, verb: str) -> Tensor:
    """Return the weight that `verb` gives to `word`, (layer, head), in "The WORD VERB the man.".

    Of a word in pieces, the weights are added up; of a verb in pieces, the first one asks.
    """
    tokens, weights = example(published, f"The {word} {verb} the man.")
    before = len(published.tokenizer.encode(word).tokens)  # [CLS], its pieces, [SEP]
    assert tokens[before] == published.tokenizer.encode(verb).tokens[1]
    return weights[:, :, before, 2:before].sum(-1)


@on_cpu
def run(*, count: int) -> dict[str, Any]:
    """Count, sentence by sentence, with the published weights and with random ones."""
    published = SentenceEncoder()
    torch.manual_seed(0)
    control = Encoder(30_522, 384, 12, 6, 1_536, max_length=512)
    texts = [published.tokenize([sentence])[0] for sentence in sentences(count)]
    lengths = torch.tensor([text.shape[1] for text in texts])
    found = count_looks(published.encoder, texts)
    halves = found[::2].mean(0) - found[1::2].mean(0)
    looked = [example(published, sentence) for sentence in (*EXAMPLES, FROST)]
    tokens, weights = looked[0]
    asked = {"bites": (*ANIMALS, *OTHERS), **dict.fromkeys(VERBS, WITH_VERBS)}
    return {
        "words and parts of words": int((lengths - 2).sum()),
        "even": round((1 / lengths).mean().item(), 4),
        "even, words only": round((1 / (lengths - 2)).mean().item(), 4),
        "example": {
            "tokens": tokens,
            "weights, thousandths": thousandths(weights),
        },
        "the row of bites, thousandths": [
            [tokens, thousandths(weights[:, :, tokens.index("bites")])]
            for tokens, weights in looked
        ],
        "to the word before the verb, thousandths": {
            verb: {word: thousandths(to_word_before(published, word, verb)) for word in words}
            for verb, words in asked.items()
        },
        "published": rounded(found.mean(0)),
        "random weights": rounded(count_looks(control, texts).mean(0)),
        "largest difference between halves": round(halves.abs().max().item(), 4),
    }


def thousandths(weights: Tensor) -> list[Any]:
    """Return weights as whole thousandths, which are short to store."""
    return (1000 * weights).round().int().tolist()


def rounded(means: Float[Tensor, "measure layer head"]) -> dict[str, list[list[float]]]:
    """Return, by measure, a row of numbers for each layer."""
    return {
        name: [[round(share, 4) for share in layer] for layer in measure]
        for name, measure in zip(MEASURES, means.tolist(), strict=True)
    }


FULL = {"count": 300}
QUICK = {"count": 2}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
