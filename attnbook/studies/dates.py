"""Can a small network learn to write Chinese dates in English, and where does it look?"""

from __future__ import annotations

import re
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attnbook.datasets import Characters, DatePair, date_pairs, on_cpu
from attnbook.studies import main
from attnbook.studies.influence import Translator, loss
from attnbook.training import fit


@torch.no_grad()
def alignment(
    model: Translator, pairs: list[DatePair], source: Tensor, target: Tensor
) -> dict[str, dict[str, float]]:
    """Return, for parts of the English date, how their rows of weights lie on the Chinese source.

    For each part: the share of its characters whose largest weight falls on the source field that
    they have to be read from; the mean weight on that field; and the share of characters that are
    written differently once the place of the largest weight is hidden from them. Row i of the
    weights writes character i; column j + 1 is Chinese character j, column 0 the start sign.
    """
    logits, weights = model.attend(source, target[:, :-1])
    top = weights.argmax(-1)
    hidden, _ = model.attend(source, target[:, :-1], F.one_hot(top, source.shape[1]) == 0)
    changed = (hidden.argmax(-1) != logits.argmax(-1)).tolist()
    top, weights = top.tolist(), weights.cpu()
    found: dict[str, list[tuple[float, float, float]]] = {}
    for n, pair in enumerate(pairs):
        chinese = re.match(r"(\d+)\D(\d+)\D(\d+)", pair.chinese)
        english = re.match(r"(\w+) (\d+), (\d+)", pair.english)
        if chinese is None or english is None:
            raise ValueError(f"{pair.chinese!r} or {pair.english!r} is not a date as expected")
        first_letter = english.start(1) + 1
        parts = {
            "first letter of the month": (2, range(english.start(1), first_letter)),
            "rest of the month": (2, range(first_letter, english.end(1))),
            "day": (3, range(*english.span(2))),
            "year": (1, range(*english.span(3))),
        }
        for part, (field, characters) in parts.items():
            span = range(chinese.start(field) + 1, chinese.end(field) + 1)
            found.setdefault(part, []).extend(
                (top[n][i] in span, weights[n, i, list(span)].sum().item(), changed[n][i])
                for i in characters
            )
    names = "largest weight on the field", "weight on the field", "changed when hidden"
    return {
        part: {
            name: round(mean(column), 4)
            for name, column in zip(names, zip(*rows, strict=True), strict=True)
        }
        for part, rows in found.items()
    }


@on_cpu
def run(*, seeds: int, steps: int, held_out: int) -> dict[str, Any]:
    """Train one translator a seed on 4,000 dates; measure it on dates that it has not seen."""
    pairs = date_pairs(4000 + held_out)
    characters = Characters([p.chinese for p in pairs]), Characters([p.english for p in pairs])
    source = characters[0].encode([pair.chinese for pair in pairs])
    target = characters[1].encode([pair.english for pair in pairs])
    results: dict[str, Any] = {"exact match": [], "alignment": []}
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = Translator(*characters)
        data = source[:4000], target[:4000]
        fit(model, loss, data, steps=steps, batch_size=32, lr=1e-2, seed=seed)
        written = model.translate(source[4000:], target.shape[1] - 1)
        texts = characters[1].decode(written)
        exact = mean(text == pair.english for text, pair in zip(texts, pairs[4000:], strict=True))
        results["exact match"].append(exact)
        results["alignment"].append(alignment(model, pairs[4000:], source[4000:], target[4000:]))
    return results


FULL = {"seeds": 10, "steps": 400, "held_out": 1000}
QUICK = {"seeds": 1, "steps": 10, "held_out": 20}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
