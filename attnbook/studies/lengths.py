"""Does a translator with one vector lose long texts that one with attention still translates?"""

from __future__ import annotations

import random
from functools import cache
from statistics import fmean
from typing import Any

import torch
from einops import einsum, rearrange, reduce
from torch import Tensor, nn

from attnbook.datasets import Characters, on_cpu
from attnbook.studies import main
from attnbook.studies.influence import ARMS, OneVector, Translator, last_of, loss
from attnbook.studies.protocol import chosen, compare, holm, mean_of, repeat_all, tune
from attnbook.studies.runner import Each
from attnbook.training import fit

READ, WRITTEN = "〇一二三四五六七八九", "0123456789"
LONGEST, BINS = 16, {"1 to 4": (0, 4), "5 to 8": (4, 8), "9 to 12": (8, 12), "13 to 16": (12, 16)}
POOLED, ONE_WAY = "one vector, pooled", "one vector, one way"
LEARNED, EACH = 6000, 100  # texts to learn from; of each length, to choose a rate or to measure


class Pooled(Translator):
    """One vector without recurrence: a matrix for each place writes into it, another reads.

    The vector is the sum of what is written, and the decoder is that of the other arms.
    """

    def __init__(self, source: Characters, target: Characters, dim: int = 32) -> None:
        super().__init__(source, target, dim)
        writers, readers = dim**-0.5 * torch.randn(2, LONGEST + 2, dim, dim)
        self.writers, self.readers = nn.Parameter(writers), nn.Parameter(readers)

    def attend(
        self, source: Tensor, written: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of the next characters, and the text that is pooled."""
        if mask is not None:
            raise ValueError(f"mask has shape {tuple(mask.shape)}, but no place is looked at here")
        text = rearrange((source != Characters.padding).float(), "b j -> b 1 j")
        value = self.source_embedding(source) * text.mT
        vector = einsum(value, self.writers[: source.shape[1]], "b j d, j d e -> b e")
        context = einsum(vector, self.readers[: written.shape[1]], "b d, i d e -> b i e")
        query, _ = self.decoder(self.target_embedding(written))
        return self.logits(torch.cat([query, context], dim=-1)), text


class OneWay(OneVector):
    """One vector from an encoder that reads in one direction, so the order of reading matters.

    Reading the text from its end only exchanges the two directions of the other arms.
    """

    def __init__(self, source: Characters, target: Characters, dim: int = 32) -> None:
        super().__init__(source, target, dim)
        self.encoder = nn.GRU(dim, dim, batch_first=True)

    def whole(self, source: Tensor, text: Tensor) -> Tensor:
        """Return the last state, all of it from one direction."""
        return last_of(self.encoder(self.source_embedding(source))[0], text)


NETWORKS = {**ARMS, POOLED: Pooled, ONE_WAY: OneWay}


def numerals(lengths: list[int], *, seed: int) -> tuple[list[str], list[str]]:
    """Return texts of Chinese numerals of these lengths, and the same in digits."""
    draw = random.Random(seed)
    digits = ["".join(draw.choices(WRITTEN, k=length)) for length in lengths]
    return [text.translate(str.maketrans(WRITTEN, READ)) for text in digits], digits


@cache
@on_cpu
def data(texts: int = LEARNED) -> tuple[list[Characters], list[tuple[Tensor, Tensor]]]:
    """Return the characters of both sides, and the texts to learn from, to choose and to measure.

    To learn from, each length is as likely; the others have as many of each, sorted by length.
    """
    draw = random.Random(0)
    drawn = [draw.randint(1, LONGEST) for _ in range(texts)]
    each = [length for length in range(1, LONGEST + 1) for _ in range(EACH)]
    sides = [numerals(lengths, seed=n) for n, lengths in enumerate((drawn, each, each))]
    read, written = characters = [Characters([READ]), Characters([WRITTEN])]
    return characters, [(read.encode(ours), written.encode(theirs)) for ours, theirs in sides]


@on_cpu
def learn(
    *,
    arm: str,
    dim: int,
    lr: float,
    steps: int,
    seed: int,
    texts: int = LEARNED,
    backwards: bool = False,
    measured_on: str = "test",
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one translator; return the share of texts of each length that it writes without error.

    `texts`: how many it learns from. `backwards`: it reads the text from its end, as Sutskever et
    al. had it.
    """
    characters, parts = data(texts)
    parts = [(source.to(device), target.to(device)) for source, target in parts]
    if backwards:
        parts = [(turned(source), target) for source, target in parts]
    known, tried, tested = parts
    torch.manual_seed(seed)
    model = NETWORKS[arm](*characters, dim=dim).to(device)
    losses = fit(model, loss, known, steps=steps, batch_size=32, lr=lr, seed=seed)
    source, target = tried if measured_on == "validation" else tested
    with torch.no_grad():
        best, value = model(source, target[:, :-1]).argmax(-1), loss(model, source, target).item()
    right = ((best == target[:, 1:]) | (target[:, 1:] == Characters.padding)).all(-1).float()
    bins = max(1, steps // 20)
    return {
        "by length": reduce(right, "(length text) -> length", "mean", text=EACH).tolist(),
        "loss": value,
        "curve": [round(fmean(losses[n : n + bins]), 4) for n in range(0, steps, bins)],
        "parameters": sum(p.numel() for p in model.parameters() if p.grad is not None),
    }


def turned(source: Tensor) -> Tensor:
    """Return texts that begin with their last character; the signs of start and end stay."""
    place = torch.arange(source.shape[1], device=source.device)
    last = rearrange((source != Characters.padding).sum(-1) - 1, "text -> text 1")
    return source.gather(1, torch.where((place > 0) & (place < last), last - place, place))


def run(
    each: Each,
    *,
    seeds: int,
    dim: int,
    wide: int,
    steps: int,
    longer: int,
    rates: list[float],
    tuning_seeds: int,
    attack_seeds: int,
    many: dict[str, int],
) -> dict[str, Any]:
    """Tune and train the translators, measure by length, then attack what came.

    The learning rate of an arm is the one with the least loss on texts for validation.
    """
    cells = {
        f"attention, {dim} features": {"arm": "attention", "dim": dim, "steps": steps},
        f"one vector, {dim} features": {"arm": "one vector", "dim": dim, "steps": steps},
        f"one vector, {wide} features": {"arm": "one vector", "dim": wide, "steps": steps},
        f"{POOLED}, {dim} features": {"arm": POOLED, "dim": dim, "steps": steps},
    }
    tuning = tune(
        each,
        learn,
        {name: {**cell, "measured_on": "validation"} for name, cell in cells.items()},
        setting="lr",
        values=dict.fromkeys(cells, rates),
        seeds=tuning_seeds,
        score=lambda found: -found["loss"],
    )
    best = chosen(tuning)
    cells = {name: {**cell, "lr": best[name]} for name, cell in cells.items()}
    runs = repeat_all(each, learn, cells, range(seeds), "results")
    exact = {name: [by_bin(found) for found in rows] for name, rows in runs.items()}

    def of(name: str, lengths: str) -> list[float]:
        return [found[lengths] for found in exact[name]]

    attention, narrow, broad, pooled = cells
    short, *_, long = BINS
    comparisons = {
        f"{lengths}: {first} - {second}": compare(of(first, lengths), of(second, lengths))
        for lengths in BINS
        for first, second in (
            *((attention, one) for one in (narrow, broad, pooled)),
            *((one, narrow) for one in (broad, pooled)),
        )
    }
    comparisons |= {
        f"{name}: {short} - {long}": compare(of(name, short), of(name, long)) for name in cells
    }
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning,
        "chosen": best,
        "seeds": list(range(seeds)),
        "results": {
            "exact": exact,
            "by length": {name: mean_of(rows, "by length") for name, rows in runs.items()},
            "parameters": {name: rows[0]["parameters"] for name, rows in runs.items()},
        },
        "curve": {name: mean_of(rows, "curve") for name, rows in runs.items()},
        "comparisons": holm(comparisons),
        "attacks": attacks(each, cells, seeds=attack_seeds, longer=longer, many=many),
    }


QUESTION = "Does a translator with one vector lose long texts that one with attention still writes?"
REFUTED_IF = (
    "With 13 to 16 characters one vector, of as many numbers as attention has features or of four "
    "times as many, writes as many texts without an error as attention, or attention loses as much "
    "from the short texts to the long ones."
)


def by_bin(found: dict[str, Any]) -> dict[str, float]:
    """Return the mean share of each range of lengths."""
    return {name: round(fmean(found["by length"][a:b]), 4) for name, (a, b) in BINS.items()}


def attacks(
    each: Each,
    cells: dict[str, dict[str, Any]],
    *,
    seeds: int,
    longer: int,
    many: dict[str, int],
) -> list[dict[str, Any]]:
    """Return what was tried to overturn what the study says, and what came."""
    vectors = {name: cell for name, cell in cells.items() if cell["arm"] == "one vector"}
    attention, narrow, *_ = cells
    plan = {
        f"{longer} steps": {name: {**cell, "steps": longer} for name, cell in cells.items()},
        "a third of the learning rate": {
            name: {**cell, "lr": round(cell["lr"] / 3, 6)} for name, cell in cells.items()
        },
        "another block of seeds": cells,
        "the text read backwards": {
            name: {**cell, "backwards": True} for name, cell in vectors.items()
        },
        "an encoder of one direction, forwards and backwards": {
            f"{ONE_WAY}, {cells[narrow]['dim']} features, {order}{at}": {
                **cells[narrow],
                "arm": ONE_WAY,
                "lr": round(cells[narrow]["lr"] * factor, 6),
                "backwards": order == "backwards",
            }
            for at, factor in (("", 1), (", a third of the rate", 1 / 3))
            for order in ("forwards", "backwards")
        },
        f"{many['texts']:,} texts to learn from, {many['steps']:,} steps": {
            name: {**cells[name], **many} for name in (attention, narrow)
        },
    }
    found = []
    for what, arms in plan.items() if seeds else ():
        block = range(500, 500 + seeds) if "block" in what else range(seeds)
        rows = repeat_all(each, learn, arms, block, f"attack: {what}")
        came = {name: [by_bin(row) for row in runs] for name, runs in rows.items()}
        found.append({"tried": what, "came": came})
    return found


FULL: dict[str, Any] = {
    "seeds": 10,
    "dim": 32,
    "wide": 128,
    "steps": 1000,
    "longer": 3000,
    "rates": [0.001, 0.0032, 0.01, 0.032, 0.1],
    "tuning_seeds": 2,
    "attack_seeds": 2,
    "many": {"texts": 100_000, "steps": 12_000},
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "dim": 4,
    "wide": 8,
    "steps": 6,
    "longer": 7,
    "rates": [0.01],
    "tuning_seeds": 1,
    "attack_seeds": 1,
    "many": {"texts": 6001, "steps": 7},
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
