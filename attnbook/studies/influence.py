"""Does a translator write what its largest weight looks at, and what does looking back buy?"""

from __future__ import annotations

import calendar
import re
from collections import Counter
from functools import cache
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnbook.attention import AdditiveScore, Score, attend, dot_product_score
from attnbook.datasets import Characters, DatePair, date_pairs, on_cpu
from attnbook.studies import main
from attnbook.studies.protocol import chosen, compare, holm, mean_of, repeat_all, repeat_one, tune
from attnbook.studies.runner import Each
from attnbook.training import fit


class Translator(nn.Module):
    """Reads a text forwards and backwards, then writes another, looking back before each character.

    Keys are the states of the encoder, values the bare embeddings of the characters read; the query
    is the state of the decoder, which has seen what was written so far.
    """

    def __init__(self, source: Characters, target: Characters, dim: int = 32) -> None:
        super().__init__()
        self.source_embedding = nn.Embedding(len(source), dim)
        self.encoder = nn.GRU(dim, dim // 2, bidirectional=True, batch_first=True)
        self.target_embedding = nn.Embedding(len(target), dim)
        self.decoder = nn.GRU(dim, dim, batch_first=True)
        self.score: Score = dot_product_score
        self.logits = nn.Sequential(
            nn.Linear(2 * dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, len(target))
        )

    def read(self, source: Int[Tensor, "b j"]) -> tuple[Tensor, Tensor]:
        """Return a key and a value for each character of the source."""
        value = self.source_embedding(source)
        key, _ = self.encoder(value)
        return key, value

    def attend(
        self,
        source: Int[Tensor, "b j"],
        written: Int[Tensor, "b i"],
        mask: Bool[Tensor, "#b #i #j"] | None = None,
    ) -> tuple[Float[Tensor, "b i characters"], Float[Tensor, "b i j"]]:
        """Return logits of the character that follows each of those written, and the weights.

        Padding is never attended to; `mask` may forbid more.
        """
        key, value = self.read(source)
        query, _ = self.decoder(self.target_embedding(written))
        text = rearrange(source != Characters.padding, "b j -> b 1 j")
        mask = text if mask is None else text & mask
        context, weights = attend(query, key, value, score=self.score, mask=mask)
        return self.logits(torch.cat([query, context], dim=-1)), weights

    def forward(
        self, source: Int[Tensor, "b j"], written: Int[Tensor, "b i"]
    ) -> Float[Tensor, "b i characters"]:
        """Return the logits alone."""
        return self.attend(source, written)[0]

    @torch.no_grad()
    def translate(self, source: Int[Tensor, "b j"], length: int) -> Int[Tensor, "b i"]:
        """Write `length` characters, each the likeliest after those before it."""
        written = torch.full_like(source[:, :1], Characters.start)
        for _ in range(length):
            following = self(source, written)[:, -1:].argmax(-1)
            written = torch.cat([written, following], dim=1)
        return written


def loss(model: nn.Module, source: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of each next character, given the source and the true characters before it."""
    logits = rearrange(model(source, target[:, :-1]), "b i characters -> (b i) characters")
    return F.cross_entropy(
        logits, rearrange(target[:, 1:], "b i -> (b i)"), ignore_index=Characters.padding
    )


class AdditiveTranslator(Translator):
    """The same with the score of the first translator that looked back, a small network."""

    def __init__(self, source: Characters, target: Characters, dim: int = 32) -> None:
        super().__init__(source, target, dim)
        self.score = AdditiveScore(dim, dim, dim)


class OneVector(Translator):
    """The same with the whole text in one vector: the last states of the encoder, both ways.

    That is what translators had before attention. The decoder starts from the vector, and sees it
    again for each character.
    """

    def __init__(self, source: Characters, target: Characters, dim: int = 32) -> None:
        super().__init__(source, target, dim)
        self.between: nn.Module = nn.Identity()

    def whole(self, source: Int[Tensor, "b j"], text: Bool[Tensor, "b j"]) -> Tensor:
        """Return the last states, both ways, each half of the vector."""
        states, _ = self.encoder(self.source_embedding(source))
        forwards, backwards = states.chunk(2, dim=-1)
        return torch.cat([last_of(forwards, text), backwards[:, :1]], dim=-1)

    def attend(
        self,
        source: Int[Tensor, "b j"],
        written: Int[Tensor, "b i"],
        mask: Bool[Tensor, "#b #i #j"] | None = None,
    ) -> tuple[Float[Tensor, "b i characters"], Float[Tensor, "b i j"]]:
        """Return the logits of the next characters, and equal weights, since none are made."""
        if mask is not None:
            raise ValueError(f"mask has shape {tuple(mask.shape)}, but no place is looked at here")
        text = source != Characters.padding
        vector = self.between(self.whole(source, text))
        query, _ = self.decoder(self.target_embedding(written), vector.mT.movedim(-1, 0))
        context = repeat(vector, "b 1 d -> b i d", i=written.shape[1])
        weights = repeat(text / text.sum(-1, keepdim=True), "b j -> b i j", i=written.shape[1])
        return self.logits(torch.cat([query, context], dim=-1)), weights


def last_of(states: Float[Tensor, "b j d"], text: Bool[Tensor, "b j"]) -> Float[Tensor, "b 1 d"]:
    """Return the state at the last character of each text."""
    last = rearrange(text.sum(-1) - 1, "b -> b 1 1").expand(-1, 1, states.shape[-1])
    return states.gather(1, last)


class FixedPlaces(Translator):
    """The same with weights that are learned for each pair of places, whatever stands there."""

    def __init__(self, source: Characters, target: Characters, dim: int = 32) -> None:
        super().__init__(source, target, dim)
        self.places = nn.Parameter(torch.zeros(24, 24))

    def attend(
        self,
        source: Int[Tensor, "b j"],
        written: Int[Tensor, "b i"],
        mask: Bool[Tensor, "#b #i #j"] | None = None,
    ) -> tuple[Float[Tensor, "b i characters"], Float[Tensor, "b i j"]]:
        """Return the logits of the next characters, and the weights."""
        value = self.source_embedding(source)
        query, _ = self.decoder(self.target_embedding(written))
        text = rearrange(source != Characters.padding, "b j -> b 1 j")
        mask = text if mask is None else text & mask
        scores = self.places[: written.shape[1], : source.shape[1]]
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        return self.logits(torch.cat([query, weights @ value], dim=-1)), weights


class EqualWeights(Translator):
    """The same, trained with equal weights: it sees which characters there are, and no place.

    That is the first test of Wiegreffe and Pinter, 2019.
    """

    def attend(
        self,
        source: Int[Tensor, "b j"],
        written: Int[Tensor, "b i"],
        mask: Bool[Tensor, "#b #i #j"] | None = None,
    ) -> tuple[Float[Tensor, "b i characters"], Float[Tensor, "b i j"]]:
        """Return the logits of the next characters, and the equal weights."""
        value = self.source_embedding(source)
        query, _ = self.decoder(self.target_embedding(written))
        text = rearrange(source != Characters.padding, "b j -> b 1 j")
        mask = (text if mask is None else text & mask).expand(-1, written.shape[1], -1)
        weights = mask / mask.sum(-1, keepdim=True)
        return self.logits(torch.cat([query, weights @ value], dim=-1)), weights


def narrow(dim: int) -> nn.Module:
    """Return a layer from `dim` features to `dim` that lets eight numbers pass."""
    return nn.Sequential(nn.Linear(dim, BETWEEN), nn.Linear(BETWEEN, dim))


class NarrowOneVector(OneVector):
    """One vector of eight numbers, between halves that may be wide."""

    def __init__(self, source: Characters, target: Characters, dim: int = 32) -> None:
        super().__init__(source, target, dim)
        self.between = narrow(dim)


class NarrowAttention(Translator):
    """The translator with keys and values of eight numbers, between halves that may be wide."""

    def __init__(self, source: Characters, target: Characters, dim: int = 32) -> None:
        super().__init__(source, target, dim)
        self.keys, self.values = narrow(dim), narrow(dim)

    def read(self, source: Int[Tensor, "b j"]) -> tuple[Tensor, Tensor]:
        """Return a key and a value of eight numbers' worth for each character of the source."""
        key, value = super().read(source)
        return self.keys(key), self.values(value)


BETWEEN = 8  # numbers that pass between the halves of the narrow arms
ARMS = {
    "attention": Translator,
    "attention, additive score": AdditiveTranslator,
    "one vector": OneVector,
    "fixed places": FixedPlaces,
    "equal weights": EqualWeights,
    f"attention, {BETWEEN} between": NarrowAttention,
    f"one vector, {BETWEEN} between": NarrowOneVector,
}
LEARNED, TRIED, TESTED = 4000, 500, 500  # dates to learn from, to choose a rate, to measure with


@cache
@on_cpu
def data() -> tuple[list[DatePair], list[Characters], list[Tensor]]:
    """Return all dates, the characters of both sides, and both sides encoded."""
    pairs = date_pairs(LEARNED + TRIED + TESTED)
    sides = [pair.chinese for pair in pairs], [pair.english for pair in pairs]
    characters = [Characters(texts) for texts in sides]
    return pairs, characters, [c.encode(t) for c, t in zip(characters, sides, strict=True)]


def places(pair: DatePair) -> list[tuple[int, str, range]]:
    """Return for letters and digits of the English date: number, kind, and where its answer stands.

    A later letter of the month is open if two months begin with the letters before it and go on
    differently, and decided if not. The place is a range of columns; column 0 is the start sign.
    """
    chinese = re.match(r"(\d+)\D(\d+)\D(\d+)", pair.chinese)
    english = re.match(r"(\w+) (\d+), (\d+)", pair.english)
    if chinese is None or english is None:
        raise ValueError(f"{pair.chinese!r} or {pair.english!r} is not a date as expected")
    year, month, day = (range(chinese.start(n) + 1, chinese.end(n) + 1) for n in (1, 2, 3))
    found = []
    for i, _ in enumerate(name := english[1]):
        following = {m[i : i + 1] for m in calendar.month_name[1:] if m.startswith(name[:i])}
        later = "later letter, open" if len(following) > 1 else "later letter, decided"
        found.append((i, later if i else "first letter", month))
    found += [(i, "day", day) for i in range(*english.span(2))]
    kinds = "year, first digit", "year, second digit", "year, last digits", "year, last digits"
    return found + [(i, k, year) for i, k in zip(range(*english.span(3)), kinds, strict=True)]


def another_month(pair: DatePair) -> str:
    """Return the Chinese date with another month that is written with as many digits."""
    month = pair.date.month
    other = month % 9 + 1 if month < 10 else month % 3 + 10
    return re.sub(rf"(\D){month}(\D)", rf"\g<1>{other}\g<2>", pair.chinese, count=1)


@torch.no_grad()
def influence(
    model: Translator, pairs: list[DatePair], source: Tensor, target: Tensor, other: Tensor
) -> dict[str, dict[str, float]]:
    """Return for each kind of character what its row of weights says, and what hiding does.

    `looks`: the largest weight is on the field with the answer. `weight`: that on the field.
    `changed, largest hidden`: another character is written once that place may not be looked at;
    `changed, one other hidden`: once another place, drawn, may not; `changed, field hidden`: once
    the whole field may not. `changed, another month`: once the source, `other`, names another one.
    `changed, equal weights`, `changed, shuffled weights`: once the weights of each date are
    replaced by equal ones, or exchanged among its places.
    `heavy` is the share of characters whose largest weight is above 0.9, and `changed, largest
    hidden, heavy` is for these alone, null if there are none.
    """
    written = target[:, :-1]
    logits, weights = model.attend(source, written)
    best, width = logits.argmax(-1), source.shape[1]
    top = weights.argmax(-1)
    field = torch.zeros_like(weights, dtype=torch.bool)
    kinds = [places(pair) for pair in pairs]
    for n, found in enumerate(kinds):
        for i, _, span in found:
            field[n, i, span] = True
    drawn = torch.rand(weights.shape, generator=torch.Generator().manual_seed(0), device="cpu")
    drawn = drawn.to(weights.device).masked_fill(weights == 0, 0)
    drawn = drawn.scatter(-1, top[..., None], -1).argmax(-1)

    def changed(mask: Tensor) -> Tensor:
        return model.attend(source, written, mask)[0].argmax(-1) != best

    query, _ = model.decoder(model.target_embedding(written))
    value = model.source_embedding(source)

    def changed_by(other: Tensor) -> Tensor:
        return model.logits(torch.cat([query, other @ value], dim=-1)).argmax(-1) != best

    read = (source != Characters.padding)[:, None].expand_as(weights)
    shuffled = weights.clone()
    for n, length in enumerate(read[:, 0].sum(-1).tolist()):
        order = torch.randperm(length, generator=torch.Generator().manual_seed(n), device="cpu")
        shuffled[n, :, :length] = weights[n, :, order.to(weights.device)]

    largest = changed(F.one_hot(top, width) == 0)
    columns = {
        "looks": field.gather(-1, top[..., None])[..., 0],
        "weight": (weights * field).sum(-1),
        "changed, largest hidden": largest,
        "changed, one other hidden": changed(F.one_hot(drawn, width) == 0),
        "changed, field hidden": changed(~field),
        "changed, another month": model.attend(other, written)[0].argmax(-1) != best,
        "changed, equal weights": changed_by(read / read.sum(-1, keepdim=True)),
        "changed, shuffled weights": changed_by(shuffled),
    }
    measured = {name: column.float().tolist() for name, column in columns.items()}
    heavy = (weights.amax(-1) > 0.9).tolist()
    split: dict[str, list[tuple[int, int]]] = {}
    for n, found in enumerate(kinds):
        for i, kind, _ in found:
            split.setdefault(kind, []).append((n, i))
            if kind.startswith("later"):
                ambiguous = pairs[n].english[0] in "JMA" and i < 3
                split.setdefault(
                    f"of {'J, M, A, 2 and 3' if ambiguous else 'the others'}", []
                ).append((n, i))
    result = {}
    for kind, where in split.items():
        result[kind] = {
            name: fmean(rows[n][i] for n, i in where) for name, rows in measured.items()
        }
        sure = [measured["changed, largest hidden"][n][i] for n, i in where if heavy[n][i]]
        result[kind] |= {
            "heavy": len(sure) / len(where),
            "changed, largest hidden, heavy": fmean(sure) if sure else None,
            "characters": len(where),
        }
    return result


def guesses() -> dict[str, float]:
    """Return for each kind of character how often a guess from the field's letters so far is wrong.

    The guess is the character that follows them most often in the dates to learn from. That is what
    somebody can do who may not see the source: the ceiling of what hiding can change.
    """
    pairs, _, _ = data()
    seen: dict[tuple[int, str], Counter[str]] = {}
    wrong: dict[str, list[bool]] = {}
    for n, pair in enumerate(pairs):
        starts = {0: 0, 1: pair.english.index(" ") + 1, 2: pair.english.index(", ") + 2}
        for i, kind, _ in places(pair):
            part = max(part for part, start in starts.items() if start <= i)
            key, letter = (part, pair.english[starts[part] : i]), pair.english[i]
            if n < LEARNED:
                seen.setdefault(key, Counter())[letter] += 1
            elif n >= len(pairs) - TESTED:
                guess = seen[key].most_common(1)[0][0] if key in seen else ""
                wrong.setdefault(kind, []).append(guess != letter)
    return {kind: round(fmean(found), 4) for kind, found in wrong.items()}


def wrong(pairs: list[DatePair], right: Bool[Tensor, "b i"]) -> dict[str, float]:
    """Return for each kind of character how many are not right."""
    found: dict[str, list[bool]] = {}
    for row, pair in zip(right.tolist(), pairs, strict=True):
        for i, kind, _ in places(pair):
            found.setdefault(kind, []).append(not row[i])
    return {kind: round(fmean(rows), 4) for kind, rows in found.items()}


@on_cpu
def learn(
    *,
    arm: str,
    dim: int,
    lr: float,
    steps: int,
    seed: int,
    dates: str = "test",
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one translator; return what it can do with dates that it has not seen.

    `exact` is the share of dates that it writes without an error. It writes each character as the
    likeliest after those before it, so a date is right if, after the true characters so far, the
    true one is always the likeliest: one pass tells.
    """
    pairs, characters, encoded = data()
    source, target = (side.to(device) for side in encoded)
    torch.manual_seed(seed)
    model = ARMS[arm](*characters, dim).to(device)
    known = source[:LEARNED], target[:LEARNED]
    losses = fit(model, loss, known, steps=steps, batch_size=32, lr=lr, seed=seed)
    part = slice(LEARNED, LEARNED + TRIED) if dates == "validation" else slice(-TESTED, None)
    source, target, pairs = source[part], target[part], pairs[part]
    with torch.no_grad():
        best, value = model(source, target[:, :-1]).argmax(-1), loss(model, source, target).item()
    right = (best == target[:, 1:]) | (target[:, 1:] == Characters.padding)
    bins = max(1, steps // 20)
    found = {
        "exact": right.all(-1).float().mean().item(),
        "loss": value,
        "curve": [round(fmean(losses[n : n + bins]), 4) for n in range(0, steps, bins)],
        # Without what an arm inherits and does not use.
        "parameters": sum(p.numel() for p in model.parameters() if p.grad is not None),
    }
    if arm.startswith("attention") and "between" not in arm and dates == "test":
        other = characters[0].encode([another_month(pair) for pair in pairs]).to(device)
        other = F.pad(other, (0, source.shape[1] - other.shape[1]))
        found["kinds"] = influence(model, pairs, source, target, other)
    if arm == "equal weights":
        found["wrong"] = wrong(pairs, right)
    return found


def run(
    each: Each,
    *,
    seeds: int,
    dim: int,
    steps: int,
    longer: int,
    rates: list[float],
    tuning_seeds: int,
    attack_seeds: int,
    narrow: int,
    wide: int,
) -> dict[str, Any]:
    """Tune and train each translator, hide from it what it looks at, then attack what came.

    The learning rate of an arm is the one with the least loss on dates for validation.
    """
    both = "attention", "one vector"
    whole = *both, "fixed places", "equal weights"
    arms = {arm: {"arm": arm, "dim": dim, "steps": steps} for arm in whole}
    arms |= {
        f"{arm}, {narrow} features": {"arm": arm, "dim": narrow, "steps": steps} for arm in both
    }
    arms |= {
        f"{name}, {longer} steps": {**arms[name], "steps": longer}
        for name in arms
        if name not in ("attention", "fixed places", "equal weights")
    }
    arms |= {
        f"{arm}, {BETWEEN} between, {wide} features, {longer} steps": {
            "arm": f"{arm}, {BETWEEN} between",
            "dim": wide,
            "steps": longer,
        }
        for arm in both
    }
    tuning = tune(
        each,
        learn,
        {name: {**cell, "dates": "validation"} for name, cell in arms.items()},
        setting="lr",
        values=dict.fromkeys(arms, rates),
        seeds=tuning_seeds,
        score=lambda found: -found["loss"],
    )
    best = chosen(tuning)
    cells = {name: {**cell, "lr": best[name]} for name, cell in arms.items()}
    runs = repeat_all(each, learn, cells, range(seeds), "results")
    kinds = [found["kinds"] for found in runs["attention"]]

    def of(kind: str, column: str) -> list[float]:
        return [found[kind][column] for found in kinds]

    exact = {name: [found["exact"] for found in rows] for name, rows in runs.items()}
    rivals = {name: name.replace("one vector", "attention") for name in exact if "one" in name}
    alone = f"one vector, {longer} steps", "fixed places", "equal weights"
    rivals |= dict.fromkeys(alone, "attention")
    comparisons = {
        f"exact: {rival} - {name}": compare(exact[rival], exact[name])
        for name, rival in rivals.items()
    }
    for column in COMPARED:
        comparisons[f"{column}: later letter, open - decided"] = compare(
            of("later letter, open", column), of("later letter, decided", column)
        )
    comparisons["later letter, decided: weight - changed, field hidden"] = compare(
        of("later letter, decided", "weight"), of("later letter, decided", "changed, field hidden")
    )
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning,
        "chosen": best,
        "seeds": list(range(seeds)),
        "results": {
            "exact": exact,
            "parameters": {name: rows[0]["parameters"] for name, rows in runs.items()},
            "kinds": kinds,
            "wrong if guessed from the letters before": guesses(),
            "wrong with equal weights": [found["wrong"] for found in runs["equal weights"]],
        },
        "curve": {name: mean_of(rows, "curve") for name, rows in runs.items()},
        "comparisons": holm(comparisons),
        "attacks": [
            *read_otherwise(kinds),
            *attacks(each, cells, seeds=attack_seeds, longer=longer),
        ],
    }


COMPARED = "weight", "changed, largest hidden", "changed, field hidden", "changed, another month"
QUESTION = (
    "Does hiding the field that a letter is read from change it also where the letters before "
    "already decide it, and is one vector for the whole date worse than looking back?"
)
REFUTED_IF = (
    "Influence: hiding changes later letters of the month that are decided as often as those that "
    "are open. One vector: with its rate tuned and three times the steps it writes as many dates "
    "without an error as attention does, with many features and with few."
)


def read_otherwise(kinds: list[dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return what the same translators say when the open and the decided are read in other ways."""
    plan = {
        "only the place with the largest weight hidden": (
            "later letter",
            "changed, largest hidden",
        ),
        "another month in the source, nothing hidden": ("later letter", "changed, another month"),
        "equal weights in place of the learned ones": ("later letter", "changed, equal weights"),
        "each date's weights shuffled": ("later letter", "changed, shuffled weights"),
        "a place hidden that is not looked at most": ("later letter", "changed, one other hidden"),
        "letters 2 and 3 of months with J, M, A against all other later ones": (
            "of",
            "changed, largest hidden",
        ),
    }
    splits = {
        "later letter": ("later letter, open", "later letter, decided"),
        "of": ("of J, M, A, 2 and 3", "of the others"),
    }
    return [
        {"tried": what, "came": {kind: [run[kind][column] for run in kinds] for kind in splits[by]}}
        for what, (by, column) in plan.items()
    ]


def attacks(
    each: Each, cells: dict[str, dict[str, Any]], *, seeds: int, longer: int
) -> list[dict[str, Any]]:
    """Return what was tried to overturn what the study says, and what came."""
    attention, rate = cells["attention"], cells["attention"]["lr"]
    plan = {
        f"{longer} steps": {arm: {**cells[arm], "steps": longer}
                            for arm in ("attention", "fixed places", "equal weights")},
        "three times the learning rate": {"attention": {**attention, "lr": round(3 * rate, 6)}},
        "a third of the learning rate": {"attention": {**attention, "lr": round(rate / 3, 6)}},
        "another block of seeds": {"attention": attention},
        "an additive score": {"attention": {**attention, "arm": "attention, additive score"}},
    }  # fmt: skip
    found = []
    for what, jobs in plan.items() if seeds else ():
        block = range(500, 500 + seeds) if "block" in what else range(seeds)
        came: dict[str, Any] = {}
        for arm, cell in jobs.items():
            rows = repeat_one(each, learn, cell, block, f"attack: {what}")
            came[arm] = {"exact": [row["exact"] for row in rows]}
            if arm == "equal weights":
                came[arm]["wrong"] = [row["wrong"] for row in rows]
            for kind in (
                ("later letter, open", "later letter, decided") if arm == "attention" else ()
            ):
                came[arm][kind] = {c: [row["kinds"][kind][c] for row in rows] for c in COMPARED}
        found.append({"tried": what, "came": came})
    return found


FULL: dict[str, Any] = {
    "seeds": 10,
    "dim": 32,
    "steps": 400,
    "longer": 1200,
    "rates": [0.0032, 0.01, 0.032, 0.1, 0.32],
    "tuning_seeds": 3,
    "attack_seeds": 3,
    "narrow": 8,
    "wide": 64,
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "dim": 8,
    "steps": 6,
    "longer": 7,
    "rates": [0.01],
    "tuning_seeds": 1,
    "attack_seeds": 1,
    "narrow": 4,
    "wide": 8,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
