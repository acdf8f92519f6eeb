"""Does a network that relates tokens on short lists also do so on lists four times as long?

The task: does the first of n symbols occur again? Half of the lists hold it once more. Every arm is
told which symbol is the first. Cut for want of processor time: widths are not tuned but attacked,
rates are tuned with two seeds, and attacks have three.
"""

from __future__ import annotations

import math
from functools import partial
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnbook.datasets import on_cpu
from attnbook.self_attention import SelfAttention
from attnbook.studies import main
from attnbook.studies.protocol import chosen, compare, holm, repeat_one, tune
from attnbook.studies.runner import Each

SYMBOLS, DIM, SHORTEST, LONGEST = 32, 32, 4, 128
POINTS = 20  # readings of a curve


class Relating(nn.Module):
    """Self-attention between the symbols; the answer is read off the first one.

    A symbol that sees itself has always found one like itself: unless `sees_itself`, a mask hides
    it. With `sharper`, scores of longer lists are multiplied by log n / log 16.
    """

    def __init__(self, width: int, *, sees_itself: bool = False, sharper: bool = False) -> None:
        super().__init__()
        self.sees_itself, self.sharper = sees_itself, sharper
        self.embedding = nn.Embedding(SYMBOLS, DIM)
        self.attention = SelfAttention(DIM, head_dim=width)
        self.answer = nn.Sequential(nn.Linear(DIM + width, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b 2"]:
        """Return logits of "no" and "yes"."""
        x = self.embedding(tokens)
        n = x.shape[1]
        itself = torch.eye(n, dtype=torch.bool, device=x.device)
        query, key, value = (
            projection(x)
            for projection in (self.attention.q_proj, self.attention.k_proj, self.attention.v_proj)
        )
        if self.sharper and n > 16:
            query = query * math.log(n) / math.log(16)
        context = F.scaled_dot_product_attention(query, key, value, ~itself | self.sees_itself)
        return self.answer(torch.cat([x, context], dim=-1)[:, 0])


class Pooled(nn.Module):
    """The same network at each symbol; then the first one's vector meets those of the others.

    `how` says what is pooled: their mean beside the first, that and the product of the first with
    their mean or their sum, such a product alone, or the largest product, feature by feature.
    """

    def __init__(self, width: int, *, how: str) -> None:
        super().__init__()
        self.how = how
        self.embedding = nn.Embedding(SYMBOLS, DIM)
        last = [] if how == "first x max" else [nn.ReLU()]
        self.network = nn.Sequential(
            nn.Linear(DIM, width), nn.ReLU(), nn.Linear(width, width), *last
        )
        alone = how == "first x max" or how in ALONE
        parts = 1 if alone else 2 if how == "first and mean" else 3
        self.answer = nn.Sequential(nn.Linear(parts * width, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b 2"]:
        """Return logits of "no" and "yes"."""
        x = self.network(self.embedding(tokens))
        first, others = x[:, 0], x[:, 1:]
        if self.how == "first x max":
            return self.answer((first[:, None] * others).amax(1))
        pooled = others.sum(1) if self.how.startswith("first x sum") else others.mean(1)
        if self.how in ALONE:
            return self.answer(first * pooled)
        product = [] if self.how == "first and mean" else [first * pooled]
        return self.answer(torch.cat([first, pooled, *product], dim=-1))


class SideBySide(nn.Module):
    """All symbols side by side, as one long vector: each place has weights of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, DIM)
        self.answer = nn.Sequential(nn.Linear(LONGEST * DIM, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b 2"]:
        """Return logits of "no" and "yes"; places beyond the last symbol are zero."""
        x = rearrange(self.embedding(tokens), "b n x -> b (n x)")
        return self.answer(F.pad(x, (0, LONGEST * DIM - x.shape[-1])))


AVERAGES = "first and mean", "first x mean", "first x sum"
ALONE = "first x mean, alone", "first x sum, alone"  # what the maximum is read as
NETWORKS = {
    "attention": (Relating, 32),
    "attention, sees itself": (partial(Relating, sees_itself=True), 32),
    **{how: (partial(Pooled, how=how), 64) for how in (*AVERAGES, *ALONE, "first x max")},
    "side by side": (SideBySide, 64),
    "attention, sharper": (partial(Relating, sharper=True), 32),
}
ARMS = [name for name in NETWORKS if name not in ("attention, sharper", *ALONE)]  # for attacks


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


@torch.no_grad()
def accuracy(
    model: nn.Module,
    length: int,
    *,
    count: int = 2000,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> float:
    """Return the share of `count` new sequences of one length that are answered correctly."""
    tokens, repeats = sequences(count, length, torch.Generator().manual_seed(1000 * seed + length))
    return (model(tokens.to(device)).argmax(-1).cpu() == repeats).float().mean().item()


@on_cpu
def learn(
    *,
    arm: str,
    lr: float,
    steps: int,
    seed: int,
    lengths: list[int],
    lists: int,
    width: int | None = None,
    longest: int = 16,
    decay: float = 0.0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one network on lists of 4 to `longest` symbols; return its shares of right answers.

    `decay` is AdamW's, which without it is Adam.

    `right` is that of as many test `lists` of each length. `validation` is that of other lists, of
    the trained lengths (16, 10 and 4 symbols) and of 64 symbols; `curve` those of 16 and 64, as it
    learns, on a quarter of the lists.
    """
    torch.manual_seed(seed)
    network, usual = NETWORKS[arm]
    model = network(width or usual).to(device)
    drawn = torch.Generator().manual_seed(100_000 + seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)

    def right(length: int, part: int, count: int = lists) -> float:
        return round(accuracy(model, length, count=count, seed=part + seed, device=device), 4)

    curve = []
    for step in range(1, steps + 1):
        length = int(torch.randint(SHORTEST, longest + 1, (1,), generator=drawn))
        tokens, repeats = (x.to(device) for x in sequences(128, length, drawn))
        optimizer.zero_grad()
        F.cross_entropy(model(tokens), repeats).backward()
        optimizer.step()
        if step % max(1, steps // POINTS) == 0:
            curve.append([right(length, 400_000, lists // 4) for length in (16, 64)])
    return {
        "right": [right(length, 300_000) for length in lengths],
        "validation": {
            "trained": fmean(right(length, 200_000) for length in (4, 10, 16)),
            "64": right(64, 200_000),
        },
        "curve": curve,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def run(
    each: Each,
    *,
    seeds: int,
    steps: int,
    longer: int,
    lengths: list[int],
    lists: int,
    rates: list[float],
    tuning_seeds: int,
    attack_seeds: int,
) -> dict[str, Any]:
    """Tune and train each network, compare them at each length, then attack what came.

    The trained lengths and the longer ones each have a learning rate of their own, chosen by lists
    of the trained lengths and by lists of 64 symbols.
    """
    shared = {"steps": steps, "lengths": lengths, "lists": lists}
    cells = {arm: {"arm": arm, **shared} for arm in ARMS}
    tuning, runs = {}, {}
    for measure in MEASURES:
        tuning[measure] = tuned(each, cells, measure, rates, tuning_seeds)
        best = chosen(tuning[measure])
        runs[measure] = {
            arm: repeat_one(each, learn, {**cell, "lr": best[arm]}, range(seeds), "results")
            for arm, cell in cells.items()
        }
    results = {
        arm: [
            [
                (near if length <= 16 else far)["right"][n]
                for n, length in enumerate(lengths)
            ]
            for near, far in zip(runs["trained"][arm], runs["64"][arm], strict=True)
        ]
        for arm in ARMS
    }  # fmt: skip

    def at(arm: str, length: int) -> list[float]:
        return [row[lengths.index(length)] for row in results[arm]]

    pairs = [("attention", "first x mean", 16), ("attention", "first x sum", 16)]
    pairs += [("attention", rival, 64) for rival in ARMS if rival != "attention"]
    pairs += [("attention", "first x max", 128)]
    comparisons = {
        f"n = {length}: {arm} - {rival}": compare(at(arm, length), at(rival, length))
        for arm, rival, length in pairs
        if length in lengths
    }
    named = {f"{arm}, by {NAMES[m]}": by for m in MEASURES for arm, by in tuning[m].items()}
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": named,
        "chosen": chosen(named),
        "seeds": list(range(seeds)),
        "results": results,
        "parameters": {arm: rows[0]["parameters"] for arm, rows in runs["64"].items()},
        "curve": {
            f"{arm}, right with {n}": [
                round(fmean(points), 4)
                for points in zip(
                    *([p[k] for p in row["curve"]] for row in runs[m][arm]), strict=True
                )
            ]
            for arm in ARMS
            for k, (n, m) in enumerate(((16, "trained"), (64, "64")))
        },
        "comparisons": holm(comparisons),
        "attacks": attacks(
            each,
            cells,
            chosen(tuning["64"]),
            rates,
            seeds=attack_seeds,
            every=seeds,
            longer=longer,
        ),
    }


MEASURES = "trained", "64"
NAMES = {"trained": "the trained lengths", "64": "lists of 64"}
QUESTION = (
    "Trained on lists of 4 to 16 symbols, is self-attention right more often on lists of 64 than "
    "networks that average or add, when all know which symbol is the first?"
)
REFUTED_IF = (
    "The corrected interval of attention minus one of those that average, add or lay the symbols "
    "side by side holds 0 at 64 symbols."
)


def tuned(
    each: Each, cells: dict[str, dict[str, Any]], measure: str, rates: list[float], seeds: int
) -> dict[str, dict[str, float]]:
    """Return the validation score of each learning rate, by one of the two measures."""
    return tune(
        each, learn, cells, setting="lr", values=dict.fromkeys(cells, rates), seeds=seeds,
        score=lambda found: found["validation"][measure],
    )  # fmt: skip


def attacks(
    each: Each,
    cells: dict[str, dict[str, Any]],
    best: dict[str, float],
    rates: list[float],
    *,
    seeds: int,
    every: int,
    longer: int,
) -> list[dict[str, Any]]:
    """Return what was tried to overturn what the study says, and the shares right that came."""
    usual = {arm: {**cell, "lr": best[arm]} for arm, cell in cells.items()}
    rivals = [*AVERAGES, "side by side"]

    def of(arms: list[str], factor: float = 1.0, **changes: Any) -> dict[str, dict[str, Any]]:
        rate = {arm: float(f"{usual[arm]['lr'] * factor:.3g}") for arm in arms}
        return {arm: {**usual[arm], "lr": rate[arm], **changes} for arm in arms}

    strongest = ["attention", "attention, sees itself", "first x sum", "first x max"]
    plan = {
        f"{longer} steps": of(["attention", *rivals], steps=longer),
        "256 features, and seven times as wide side by side": {
            **of(list(AVERAGES), width=256),
            **of(["side by side"], width=448),
        },
        "three times the learning rate": of(strongest, 3),
        "a third of the learning rate": of(strongest, 1 / 3),
        "scores times log n / log 16 on longer lists": {
            "attention": {**usual["attention"], "arm": "attention, sharper"}
        },
        "queries, keys and values of 8 features": of(["attention"], width=8),
        "trained on lists of 4 to 64": of(["attention", "first x mean", "first x sum"], longest=64),
        "another block of seeds": of(strongest),
        "weight decay 0.1 at a learning rate of 0.0032, all seeds": of(
            ["attention", *AVERAGES, "first x max"], lr=0.0032, decay=0.1
        ),
        **{
            f"products read alone, at a learning rate of {lr:g}, all seeds": {
                arm: {**usual["first x sum"], "arm": arm, "lr": lr} for arm in ALONE
            }
            for lr in (0.0032, 0.01)
        },
    }
    found = []
    for what, jobs in plan.items():
        block = range(500, 500 + seeds) if "block" in what else range(seeds)
        block = range(every) if "all seeds" in what else block
        came = {
            arm: [row["right"] for row in repeat_one(each, learn, job, block, f"attack: {what}")]
            for arm, job in jobs.items()
        }
        found.append({"tried": what, "came": came})
    return found


FULL: dict[str, Any] = {
    "seeds": 10,
    "steps": 1500,
    "longer": 6000,
    "lengths": [8, 16, 32, 64, 128],
    "lists": 2000,
    "rates": [0.00032, 0.001, 0.0032, 0.01, 0.032],
    "tuning_seeds": 2,
    "attack_seeds": 3,
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "steps": 3,
    "longer": 4,
    "lengths": [8, 16, 64],
    "lists": 20,
    "rates": [0.01],
    "tuning_seeds": 1,
    "attack_seeds": 1,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
