"""Which positional encoding learns which question, and what is left beyond the trained length?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import fmean
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
    RelativeBias,
    RotaryEncoding,
    SinusoidalEncoding,
    alibi_bias,
    rotary_angles,
)
from attnbook.studies import main
from attnbook.studies.protocol import chosen, compare, holm, mean_of, repeat_all, tune
from attnbook.studies.runner import Each
from attnbook.training import fit

ENCODINGS = ("none", "learned", "sinusoidal", "T5", "ALiBi", "rotary")
ASKED = ("latest marked", "three back")
SYMBOLS, BIN, IGNORED = 16, 16, -100
BACK, REACHES = 8, 48  # distances of the answer, in a row and up to where


class Shifted(nn.Linear):
    """A projection with a bias for each position: W x + b + path[position]."""

    path: Tensor | float = 0.0

    def forward(self, input: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the projection of the input, shifted."""
        return super().forward(input) + self.path


class Layer(nn.Module):
    """A causal transformer block that can be given a bias for its scores."""

    def __init__(self, dim: int, heads: int, rotary: nn.Module | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(dim, heads, rotary=rotary)
        self.network = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        )

    def forward(self, x: Tensor, bias: Tensor | None, *, is_causal: bool) -> Tensor:
        """Return x after attention and network, each added to it."""
        x = x + self.attention(self.norm(x), bias=bias, is_causal=is_causal)
        return x + self.network(x)


class Reader(nn.Module):
    """A transformer of a few layers that is told about positions in one of ENCODINGS.

    All distances from `reach` on share the last of T5's buckets, which has to be one that occurs in
    training: else what it holds is what it started with.

    "FLOATER" is a seventh: the sinusoids at the input, and a path that shifts the projections, one
    for all layers, solved by one step of the solver a position.
    """

    def __init__(
        self, encoding: str, symbols: int, answers: int, *, dim: int = 32, heads: int = 4,
        layers: int = 2, max_length: int = 256, is_causal: bool = True, step: float = 0.01,
        reach: int = 24, base: float = 10_000.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.heads, self.is_causal, self.is_alibi = heads, is_causal, encoding == "ALiBi"
        self.embedding = nn.Embedding(symbols, dim)
        self.added: nn.Module = nn.Identity()
        if encoding in ("sinusoidal", "FLOATER"):
            self.added = SinusoidalEncoding(dim)
        if encoding == "learned":
            self.added = LearnedEncoding(max_length, dim)
        rotary = RotaryEncoding(dim // heads, base=base) if encoding == "rotary" else None
        blocks = [Layer(dim, heads, rotary) for _ in range(layers)]
        self.layers = nn.ModuleList(blocks)
        self.relative = None
        if encoding == "T5":
            self.relative = RelativeBias(heads, max_distance=reach, is_causal=is_causal)
        self.floater = (
            FloaterEncoding(dim, step=step, substeps=1) if encoding == "FLOATER" else None
        )
        self.shifted: list[Shifted] = []  # the projections of queries, keys and values, by layers
        for attention in [layer.attention for layer in blocks if self.floater]:
            for name in ("q_proj", "k_proj", "v_proj"):
                self.shifted.append(Shifted(dim, dim))
                self.shifted[-1].load_state_dict(getattr(attention, name).state_dict())
                setattr(attention, name, self.shifted[-1])
        self.logits = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, answers))

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n answers"]:
        """Return the logits of the answers at each position."""
        length, bias = tokens.shape[1], None
        if self.is_alibi:
            bias = alibi_bias(self.heads, length, device=tokens.device)[None]
        if self.relative is not None:
            bias = self.relative(length)[None]
        if self.floater is not None:
            path = self.floater(length)
            for n, projection in enumerate(self.shifted):
                projection.path = path[n % 3]
        x = self.added(self.embedding(tokens))
        for layer in self.layers:
            x = layer(x, bias, is_causal=self.is_causal)
        return self.logits(x)


class Held(nn.Module):
    """A rotary reader in which some pairs turn no farther than at some distance.

    score(i, j) = Re sum_l q_l(i) conj(k_l(j)) exp(i min(i - j, distance) pace_l) / sqrt(d)    with
    the minimum for the pairs that are held, the complex numbers q_l and k_l being pair l.
    """

    def __init__(self, reader: Reader, pairs: Collection[int], distance: int) -> None:
        super().__init__()
        self.reader, self.pairs, self.distance = reader, pairs, distance

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n answers"]:
        """Return the logits of the answers at each position."""
        x, place = self.reader.embedding(tokens), torch.arange(tokens.shape[1])
        back = place[:, None] - place
        for layer in self.reader.layers:
            assert isinstance(layer, Layer)
            attention, given = layer.attention, layer.norm(x)
            assert isinstance(attention.rotary, RotaryEncoding)
            query, key = (
                torch.view_as_complex(
                    rearrange(p(given), "b n (h l two) -> b h n l two", h=self.reader.heads, two=2)
                )
                for p in (attention.q_proj, attention.k_proj)
            )
            d = 2 * query.shape[-1]
            pace = rotary_angles(torch.ones(1), d, attention.rotary.base)[0]
            scores = torch.zeros(())
            for pair, angle in enumerate(pace):
                far = back.clamp(max=self.distance) if pair in self.pairs else back
                turned = query[..., pair, None] * key[..., None, :, pair].conj()
                scores = scores + (turned * torch.exp(1j * angle * far)).real
            weights = (scores / d**0.5).masked_fill(back < 0, -torch.inf).softmax(-1)
            value = rearrange(attention.v_proj(given), "b n (h d) -> b h n d", h=self.reader.heads)
            x = x + attention.out_proj(rearrange(weights @ value, "b h n d -> b n (h d)"))
            x = x + layer.network(x)
        return self.reader.logits(x)


@on_cpu
def sequences(
    count: int, length: int, generator: torch.Generator
) -> tuple[Int[Tensor, "count length"], Int[Tensor, "count length two"]]:
    """Draw sequences of symbols, some of them marked, and two answers for each position.

    Token s is symbol s, token SYMBOLS + s the same symbol with a mark; about one in seven has one.
    The first answer is the symbol of the latest marked token up to and with this position, the
    second the symbol three places before it; either is IGNORED where there is none.
    """
    symbols = torch.randint(SYMBOLS, (count, length), generator=generator)
    marked = torch.rand(count, length, generator=generator) < 0.15
    place = torch.arange(length).expand(count, length)
    latest = place.masked_fill(~marked, -1).cummax(-1).values
    places = torch.stack([latest, place - 3], dim=-1)
    known = rearrange(symbols, "count length -> count length 1").expand(-1, -1, 2)
    answers = known.gather(1, places.clamp(min=0)).masked_fill(places < 0, IGNORED)
    return symbols + SYMBOLS * marked, answers


def loss(model: nn.Module, tokens: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy of the two answers, over all positions that have them."""
    logits = rearrange(model(tokens), "b n (two answers) -> (b n two) answers", two=2)
    return F.cross_entropy(logits, rearrange(answers, "b n two -> (b n two)"), ignore_index=IGNORED)


@torch.no_grad()
def right(
    model: nn.Module, count: int, length: int, seed: int, device: torch.device | str = "cpu"
) -> dict[str, list[float]]:
    """Return for each question the share of right answers, for each BIN positions in a row.

    The reader is causal: what it answers at position p it would answer in a sequence that ends
    there. One pass over long sequences measures all shorter ones.
    """
    drawn = sequences(count, length, torch.Generator().manual_seed(seed))
    tokens, answers = (tensor.to(device) for tensor in drawn)
    given = rearrange(model(tokens), "b n (two answers) -> b n two answers", two=2).argmax(-1)
    hits, asked = (given == answers).float(), (answers != IGNORED).float()
    hits, asked = (reduce(x, "b (bin p) two -> two bin", "sum", p=BIN) for x in (hits, asked))
    shares = (hits / asked).tolist()
    return {name: [round(s, 4) for s in share] for name, share in zip(ASKED, shares, strict=True)}


@torch.no_grad()
def by_distance(
    model: nn.Module, count: int, length: int, stretches: dict[str, int], seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Return how often the latest marked symbol is named, by how far back it stands.

    For each stretch of BIN positions, and for each BACK places of distance up to REACHES: how many
    answers lie there, and which share of them is right.
    """
    tokens, answers = sequences(count, length, torch.Generator().manual_seed(seed))
    place = torch.arange(length).expand(count, length)
    back = place - place.masked_fill(tokens < SYMBOLS, -length).cummax(-1).values
    logits = torch.cat([model(part) for part in tokens.split(50)])
    given = rearrange(logits, "b n (two answers) -> b n two answers", two=2)[:, :, 0].argmax(-1)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for where, n in stretches.items():
        here = slice(n * BIN, (n + 1) * BIN)
        hit, far = (given == answers[..., 0])[:, here], back[:, here]
        found[where] = {
            f"{low} to {low + BACK - 1}": {
                "answers": int(asked.sum()),
                "right": round(hit[asked].float().mean().item(), 4),
            }
            for low in range(0, REACHES, BACK)
            if (asked := (far >= low) & (far < low + BACK)).any()
        }
    return found


def trained(
    *, arm: str, lr: float, steps: int, length: int, test_length: int, seed: int, dim: int = 32,
    heads: int = 4, batch_size: int = 16, step: float = 0.01, reach: int = 24,
    base: float = 10_000.0, only: str = "", device: str = "cpu",
) -> tuple[Reader, list[float]]:  # fmt: skip
    """Train a causal reader on sequences of one length, no sequence twice; return its losses too.

    `only` leaves the other question's answers out of the training; `step` is FLOATER's, `reach`
    T5's and `base` that of rotary encoding.
    """
    torch.manual_seed(seed)
    model = Reader(
        arm, 2 * SYMBOLS, 2 * SYMBOLS, dim=dim, heads=heads, max_length=test_length, step=step,
        reach=reach, base=base,
    ).to(device)  # fmt: skip
    drawn = sequences(batch_size * steps, length, torch.Generator().manual_seed(100_000 + seed))
    for n, name in enumerate(ASKED):
        if only not in ("", name):
            drawn[1][..., n] = IGNORED
    data = tuple(tensor.to(device) for tensor in drawn)
    return model, fit(model, loss, data, steps=steps, batch_size=batch_size, lr=lr, seed=seed)


@on_cpu
def learn(
    *, arm: str, lr: float, steps: int, length: int, test_length: int, count: int, seed: int,
    dim: int = 32, heads: int = 4, batch_size: int = 16, step: float = 0.01, reach: int = 24,
    base: float = 10_000.0, only: str = "", lists: str = "test", device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """Train a reader, and test it on sequences that are longer."""
    model, losses = trained(
        arm=arm, lr=lr, steps=steps, length=length, test_length=test_length, seed=seed, dim=dim,
        heads=heads, batch_size=batch_size, step=step, reach=reach, base=base, only=only,
        device=device,
    )  # fmt: skip
    held_out = {"validation": 200_000, "test": 300_000}[lists] + seed
    tenth = max(1, steps // 10)
    return {
        "right": right(model, count, test_length, held_out, device),
        "curve": [round(fmean(losses[n : n + tenth]), 4) for n in range(0, steps, tenth)],
        "parameters": sum(p.numel() for p in model.parameters() if p.grad is not None),
    }


@on_cpu
def split(
    *, arm: str, lr: float, steps: int, length: int, test_length: int, count: int, seed: int,
    device: str = "cpu",
) -> dict[str, dict[str, dict[str, float]]]:  # fmt: skip
    """Train a reader, and test it by the distance of the answer, on sequences that are longer."""
    model, _ = trained(
        arm=arm, lr=lr, steps=steps, length=length, test_length=test_length, seed=seed,
        device=device,
    )  # fmt: skip
    places = {"within": length, "beyond": 4 * length, "at the end": test_length}
    stretches = {where: end // BIN - 1 for where, end in places.items()}
    return by_distance(model.cpu(), count, test_length, stretches, 500_000 + seed)


@on_cpu
def hold(
    *, arm: str, lr: float, steps: int, length: int, test_length: int, count: int, seed: int,
    heads: int = 4, base: float = 10_000.0, device: str = "cpu",
) -> dict[str, dict[str, list[float]]]:  # fmt: skip
    """Train a rotary reader; test it as it is, and with one pair held as in training's last."""
    model, _ = trained(
        arm=arm, lr=lr, steps=steps, length=length, test_length=test_length, seed=seed,
        heads=heads, base=base, device=device,
    )  # fmt: skip
    held = {"none": (), "pair 1": (0,), "pair 2": (1,), "pair 3": (2,)}
    return {
        name: right(Held(model.cpu(), pairs, length - 1), count, test_length, 300_000 + seed)
        for name, pairs in held.items()
    }


def run(
    each: Each,
    *,
    seeds: int,
    steps: int,
    length: int,
    test_length: int,
    count: int,
    rates: list[float],
    tuning_seeds: int,
    attack_seeds: int,
    longer: int,
    split_count: int,
) -> dict[str, Any]:
    """Tune and train each reader, once for each of the two stretches it is measured on.

    `within` is the last half of the trained length, `beyond` lies at four times that length. Each
    has a learning rate of its own, the one with the most right answers to both questions on
    validation sequences there.
    """
    sizes = {"steps": steps, "length": length, "test_length": test_length, "count": count}
    stretches = measured(length)
    arms = {arm: {"arm": arm, **sizes} for arm in ENCODINGS}
    tuning, best, runs = {}, {}, {}
    for where, place in stretches.items():
        found = tune(
            each,
            learn,
            {arm: {**cell, "lists": "validation"} for arm, cell in arms.items()},
            setting="lr",
            values=dict.fromkeys(arms, rates),
            seeds=tuning_seeds,
            score=lambda result, place=place: fmean(result["right"][name][place] for name in ASKED),
        )
        rate = chosen(found)
        cells = {arm: {**cell, "lr": rate[arm]} for arm, cell in arms.items()}
        tuning |= {f"{arm}, {where}": by for arm, by in found.items()}
        best |= {f"{arm}, {where}": value for arm, value in rate.items()}
        runs[where] = repeat_all(each, learn, cells, range(seeds), "results")
    comparisons = {
        f"{name}, {where}: {arm} - {rival}": compare(
            at(runs[where][arm], name, place), at(runs[where][rival], name, place)
        )
        for name, where, arm, rival in COMPARED
        for place in [stretches[where]]
    }
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning,
        "chosen": best,
        "seeds": list(range(seeds)),
        "stretches": stretches,
        "results": {
            where: {
                arm: {name: [run["right"][name] for run in rows] for name in ASKED}
                for arm, rows in by.items()
            }
            for where, by in runs.items()
        },
        "parameters": {arm: rows[0]["parameters"] for arm, rows in runs["within"].items()},
        "order-blind": order_blind(test_length),
        "curve": {arm: mean_of(rows, "curve") for arm, rows in runs["within"].items()},
        "by distance": apart(each, arms, best, seeds=attack_seeds, count=split_count),
        "held": held(each, {**arms["rotary"], "lr": best["rotary, beyond"]}, range(seeds)),
        "comparisons": holm(comparisons),
        "attacks": attacks(
            each, arms, best, stretches, seeds=attack_seeds, longer=longer, sizes=sizes
        ),
    }


QUESTION = (
    "With its learning rate tuned, does ALiBi name the latest marked symbol more often than rotary "
    "encoding at four times the trained length, and the third symbol back less often within it?"
)
REFUTED_IF = (
    "The corrected interval of ALiBi - rotary holds 0 for the latest marked symbol beyond, or for "
    "the third back within; or a reader alone with one question, or trained longer, turns the sign."
)
COMPARED = [
    ("latest marked", "beyond", "ALiBi", "rotary"),
    ("latest marked", "beyond", "ALiBi", "T5"),
    ("latest marked", "beyond", "T5", "rotary"),
    ("latest marked", "beyond", "ALiBi", "none"),
    ("latest marked", "beyond", "rotary", "none"),
    ("latest marked", "within", "none", "ALiBi"),
    ("three back", "within", "ALiBi", "rotary"),
    ("three back", "within", "ALiBi", "none"),
    ("three back", "within", "sinusoidal", "learned"),
    ("three back", "within", "T5", "rotary"),
    ("three back", "beyond", "rotary", "T5"),
    ("three back", "beyond", "rotary", "sinusoidal"),
    ("three back", "beyond", "rotary", "ALiBi"),
]


def apart(
    each: Each, arms: dict[str, dict[str, Any]], best: dict[str, float], *, seeds: int, count: int
) -> dict[str, list[dict[str, Any]]]:
    """Return for some readers how often they are right, by the distance of the answer."""
    cells = {
        arm: {**arms[arm], "lr": best[f"{arm}, beyond"], "count": count}
        for arm in ("none", "T5", "ALiBi", "rotary")
    }
    return repeat_all(each, split, cells, range(seeds), "by distance")


def held(
    each: Each, cell: dict[str, Any], seeds: Sequence[int]
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return how often rotary readers are right beyond if one of their pairs turns no farther."""
    cells = {
        "base 10000, 4 heads": cell,
        "base 1000000000, 2 heads": {**cell, "heads": 2, "base": 1e9},
    }
    cells = {name: {**one, "test_length": 4 * one["length"]} for name, one in cells.items()}
    found = repeat_all(each, hold, cells, seeds, "held")
    return {
        name: {
            pair: {what: [row[pair][what][-1] for row in rows] for what in ASKED}
            for pair in rows[0]
        }
        for name, rows in found.items()
    }


def measured(length: int) -> dict[str, int]:
    """Return the bins that are measured: the last of the trained length, and one far beyond."""
    return {"within": length // BIN - 1, "beyond": 4 * length // BIN - 1}


def at(rows: list[dict[str, Any]], name: str, place: int) -> list[float]:
    """Return the shares of right answers to one question on one stretch, seed by seed."""
    return [row["right"][name][place] for row in rows]


@on_cpu
def order_blind(length: int, count: int = 2_000) -> dict[str, list[float]]:
    """Return how often the best reader that knows no order but its own token is right.

    It sees what came, and which of it is its own: where that is marked, it is the latest marked
    one. Else it names the commonest of the symbols that the answer can be. Whichever of them came
    last, or third, is equally likely, so it is right as often as the commonest has a share in them.
    """
    drawn, _ = sequences(count, length, torch.Generator().manual_seed(0))
    seen = F.one_hot(drawn % SYMBOLS, SYMBOLS).float()
    is_marked = rearrange(drawn >= SYMBOLS, "count length -> count length 1")
    marked = torch.where(is_marked, seen, (seen * is_marked).cumsum(1))
    before = (seen.cumsum(1) - seen)[:, 3:], marked  # a symbol is not its own third back
    found = {}
    for name, counts, skipped in zip(ASKED, reversed(before), (0, 3), strict=True):
        total = counts.sum(-1)
        share = counts.amax(-1) / total.clamp(min=1)
        share, asked = (F.pad(x, (skipped, 0)) for x in (share, (total > 0).float()))
        sums = [reduce(x * asked, "b (bin p) -> bin", "sum", p=BIN) for x in (share, asked)]
        found[name] = [round(x, 4) for x in (sums[0] / sums[1]).tolist()]
    return found


def attacks(
    each: Each,
    arms: dict[str, dict[str, Any]],
    best: dict[str, float],
    stretches: dict[str, int],
    *,
    seeds: int,
    longer: int,
    sizes: dict[str, int],
) -> list[dict[str, Any]]:
    """Return what was tried to overturn what the study says, and what came."""
    tried = {
        f"{arm}, rate for {where}": {**arms[arm], "lr": best[f"{arm}, {where}"]}
        for arm in ("T5", "ALiBi", "rotary")
        for where in stretches
    }
    within = {
        f"{arm}, rate for within": {**arms[arm], "lr": best[f"{arm}, within"]}
        for arm in ("sinusoidal", "T5", "ALiBi", "rotary")
    }

    def changed(cells: dict[str, dict[str, Any]], **settings: Any) -> dict[str, dict[str, Any]]:
        return {name: {**cell, **settings} for name, cell in cells.items()}

    def scaled(cells: dict[str, dict[str, Any]], factor: float) -> dict[str, dict[str, Any]]:
        return {name: {**c, "lr": round(c["lr"] * factor, 6)} for name, c in cells.items()}

    alone = {
        f"{name}, only {question}": {**cell, "only": question}
        for name, cell in within.items()
        for question in ASKED
        if name in tried
    }
    far = {name: cell for name, cell in tried.items() if name.startswith("T5")}
    bases = {
        f"{name}, base {base}": {**cell, "base": float(base)}
        for name, cell in tried.items()
        for base in (10, 100, 10**6, 10**7, 10**8, 10**9, 10**10)
        if name.startswith("rotary")
    }
    beyond = {arm: {**arms[arm], "lr": best[f"{arm}, beyond"]} for arm in ("none", "rotary")}
    shapes = {"one head": {"heads": 1}, "two heads": {"heads": 2}, "twice the width": {"dim": 64}}
    larger = {
        f"{arm}, {shape}": {**cell, **change}
        for arm, cell in beyond.items()
        for shape, change in shapes.items()
    }
    larger["rotary, two heads, base 1000000000"] = {**larger["rotary, two heads"], "base": 1e9}
    length = 2 * sizes["length"]
    twice = changed(tried, length=length, test_length=4 * length)
    rate = best["sinusoidal, within"]
    floater = {
        f"FLOATER, step {step}, rate {lr:g}": {"arm": "FLOATER", "step": step, "lr": lr, **sizes}
        for step, lr in ((0.01, rate), (0.01, round(rate / 3, 6)), (0.1, rate))
    }
    plan = {
        f"{longer} steps": (changed(within, steps=longer), range(seeds)),
        "each question alone": (alone, range(seeds)),
        "three times the learning rate": (scaled(tried, 3), range(seeds)),
        "a third of the learning rate": (scaled(tried, 1 / 3), range(seeds)),
        "twice the width": (changed(within, dim=64), range(seeds)),
        "another block of seeds": (tried, range(500, 500 + seeds)),
        "T5's buckets up to 128, of which training reaches those to 31": (
            changed(far, reach=128),
            range(seeds),
        ),
        "another base of rotary encoding": (bases, range(seeds)),
        "FLOATER beside the sinusoids": (floater, range(seeds)),
        "larger heads": (larger, range(seeds)),
        f"trained on {length}, beyond at four times that": (twice, range(seeds)),
        "twice the width, a third of the learning rate": (
            changed(scaled(within, 1 / 3), dim=64),
            range(seeds),
        ),
    }
    found = []
    for what, (cells, block) in plan.items():
        came = repeat_all(each, learn, cells, block, f"attack: {what}")
        shares = {
            arm: {
                f"{n}, {w}": at(rows, n, p)
                for n in ASKED
                for w, p in measured(cells[arm]["length"]).items()
            }
            for arm, rows in came.items()
        }
        found.append({"tried": what, "came": shares})
    return found


FULL: dict[str, Any] = {
    "seeds": 10,
    "steps": 600,
    "length": 32,
    "test_length": 256,
    "count": 64,
    "rates": [0.001, 0.0032, 0.01, 0.032, 0.1],
    "tuning_seeds": 3,
    "attack_seeds": 3,
    "longer": 3600,
    "split_count": 1500,
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "steps": 6,
    "length": 16,
    "test_length": 64,
    "count": 4,
    "rates": [0.01],
    "tuning_seeds": 1,
    "attack_seeds": 1,
    "longer": 7,
    "split_count": 8,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
