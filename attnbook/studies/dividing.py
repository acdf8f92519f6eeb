"""Does dividing the dot product by sqrt(d) matter for learning?

What was left after the attacks: at d = 256, with each optimizer at its fastest rate, the undivided
score takes eight to eleven times the steps to 90 % right (with plain gradient descent not
significantly more, once corrected), at d = 8 at most twice. At that rate the divided network may
fall back; with rates chosen by the end it is three to six times, and from nn.Linear's start three
to five. Most of it is the size of the scores at the start: with a small start about twice the
steps are left. It comes by the way back through the softmax: with the divided score's, the
undivided one takes 1.6 times the steps at most. There it is the saturation, not the size: the
gradient of queries and keys is no shorter at the start, but longer, and where it is not saturated
a longer one costs little. That the end is worse is not significant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from statistics import fmean, median, stdev
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnbook.attention import Score, attend, dot_product_score
from attnbook.datasets import on_cpu
from attnbook.studies import main
from attnbook.studies.protocol import chosen, compare, holm, repeat_all, tune
from attnbook.studies.runner import Each

KEYS, VALUES, PAIRS = 64, 16, 16
EVERY = 5  # steps between two readings


def unscaled_score(query: Float[Tensor, "b i d"], key: Float[Tensor, "b j d"]) -> Tensor:
    """Return q . k, not divided by anything."""
    return dot_product_score(query, key) * math.sqrt(query.shape[-1])


def divided_score(by: float, query: Float[Tensor, "b i d"], key: Float[Tensor, "b j d"]) -> Tensor:
    """Return q . k / (by sqrt(d))."""
    return dot_product_score(query, key) / by


def louder_score(score: Score, by: float, query: Tensor, key: Tensor) -> Tensor:
    """Return the scores; their gradient is multiplied by d ** by."""
    scores = score(query, key)
    felt = scores * query.shape[-1] ** by
    return felt + (scores - felt).detach()


class LearnedTemperature(nn.Module):
    """q . k times a learned number, which starts at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the scores."""
        return unscaled_score(query, key) * self.log_scale.exp()


class Lookup(nn.Module):
    """Reads a list of (key, value) pairs, and answers with the value of the key it is asked for."""

    def __init__(self, score: Score, dim: int, *, model_dim: int = 64) -> None:
        super().__init__()
        self.score = score
        self.key_embedding = nn.Embedding(KEYS, model_dim)
        self.value_embedding = nn.Embedding(VALUES, model_dim)
        self.q_proj = nn.Linear(model_dim, dim, bias=False)
        self.k_proj = nn.Linear(model_dim, dim, bias=False)
        self.logits = nn.Linear(model_dim, VALUES)

    def forward(
        self, asked: Int[Tensor, "b 1"], keys: Int[Tensor, "b j"], values: Int[Tensor, "b j"]
    ) -> Float[Tensor, "b values"]:
        """Return one logit for each possible value."""
        query = self.q_proj(self.key_embedding(asked))
        key = self.k_proj(self.key_embedding(keys))
        context, _ = attend(query, key, self.value_embedding(values), score=self.score)
        return self.logits(context[:, 0])


class Swapped(Lookup):
    """Takes the weights of one score, and learns by the derivatives of another's weights."""

    def __init__(self, score: Score, backwards: Score, dim: int) -> None:
        super().__init__(score, dim)
        self.backwards = backwards

    def forward(
        self, asked: Int[Tensor, "b 1"], keys: Int[Tensor, "b j"], values: Int[Tensor, "b j"]
    ) -> Float[Tensor, "b values"]:
        """Return one logit for each possible value."""
        query = self.q_proj(self.key_embedding(asked))
        key = self.k_proj(self.key_embedding(keys))
        taken, felt = (score(query, key).softmax(-1) for score in (self.score, self.backwards))
        weights = felt + (taken - felt).detach()
        return self.logits((weights @ self.value_embedding(values))[:, 0])


@on_cpu
def lookups(
    count: int, generator: torch.Generator
) -> tuple[Int[Tensor, "count 1"], Int[Tensor, "count j"], Int[Tensor, "count j"], Tensor]:
    """Draw lists of pairs with different keys, one key of each list to ask for, and its value."""
    keys = torch.rand(count, KEYS, generator=generator).argsort(-1)[:, :PAIRS]
    values = torch.randint(VALUES, (count, PAIRS), generator=generator)
    place = torch.randint(PAIRS, (count, 1), generator=generator)
    return keys.gather(1, place), keys, values, values.gather(1, place)[:, 0]


DIVISORS = {
    "divided by sqrt(d) / 4": 1 / 4,
    "divided by sqrt(d) / 2": 1 / 2,
    "divided by 2 sqrt(d)": 2.0,
    "divided by 4 sqrt(d)": 4.0,
}
SWAPPED: dict[str, tuple[Score, Score]] = {
    "unscaled, scaled backwards": (unscaled_score, dot_product_score),
    "scaled, unscaled backwards": (dot_product_score, unscaled_score),
}
# As SWAPPED, but whether the way back is saturated and how large its gradients are change apart.
APART: dict[str, tuple[Score, Score]] = {
    "unscaled, gradient divided by sqrt(d)": (
        unscaled_score,
        partial(louder_score, unscaled_score, -0.5),
    ),
    "unscaled, scaled backwards times sqrt(d)": (
        unscaled_score,
        partial(louder_score, dot_product_score, 0.5),
    ),
}


@on_cpu
def network(arm: str, dim: int, *, start: str) -> Lookup:
    """Return the network of one arm, with weights drawn alike for all arms.

    With the start "unit" queries and keys have variance 1 to begin with, whatever d is, since the
    embeddings have; with "nn.Linear" they have a third of it.
    """
    score: Score = dot_product_score if arm == "scaled" else unscaled_score
    if arm == "unscaled, temperature learned":
        score = LearnedTemperature()
    if arm in DIVISORS:
        score = partial(divided_score, DIVISORS[arm])
    swapped = SWAPPED | APART
    model = Swapped(*swapped[arm], dim) if arm in swapped else Lookup(score, dim)
    with torch.no_grad():
        for projection in (model.q_proj, model.k_proj):
            if start == "unit":
                nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
            if arm == "unscaled, small start":  # the same scores as those of "scaled", at step 0
                projection.weight.mul_(dim**-0.25)
    return model


@on_cpu
def learn(
    *,
    arm: str,
    dim: int,
    optimizer: str,
    lr: float,
    steps: int,
    seed: int,
    lists: str = "test",
    start: str = "unit",
    fixed: bool = False,
    device: str = "cpu",
) -> list[float]:
    """Train one network; return its share of right answers on 256 lists, every `EVERY` steps.

    Each step sees 64 new lists. `lists` names which lists it is measured on: those for the choice
    of a learning rate are not those for the results. `fixed` leaves queries and keys as they start,
    so that only the values and what lies behind them learn.
    """
    torch.manual_seed(seed)
    model = network(arm, dim, start=start).to(device)
    for part in (model.key_embedding, model.q_proj, model.k_proj):
        part.requires_grad_(not fixed)
    if optimizer == "Adam":
        stepper: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    else:
        momentum = 0.9 if optimizer == "SGD, momentum 0.9" else 0.0
        stepper = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    drawn = torch.Generator().manual_seed(100_000 + seed)
    held_out = {"validation": 200_000, "test": 300_000}[lists] + seed
    measured = lookups(256, torch.Generator().manual_seed(held_out))
    *inputs, answer = (tensor.to(device) for tensor in measured)
    curve = []
    torch.set_flush_denormal(True)  # tiny weights of unscaled scores are slow otherwise
    for step in range(1, steps + 1):
        *batch, value = (tensor.to(device) for tensor in lookups(64, drawn))
        stepper.zero_grad()
        F.cross_entropy(model(*batch), value).backward()
        stepper.step()
        if step % EVERY == 0:
            with torch.no_grad():
                curve.append((model(*inputs).argmax(-1) == answer).float().mean().item())
    torch.set_flush_denormal(False)
    return [round(right, 4) for right in curve]


@on_cpu
def gradients(*, arm: str, dim: int, seed: int, device: str = "cpu") -> dict[str, float]:
    """Return the lengths of the loss's gradients before the first step, on 1,024 lists.

    `queries and keys` is that of the three matrices they are made from; `values` that of the
    values' embedding and of the last layer. `saturated` is the share of queries whose largest
    weight is above 0.99.
    """
    torch.manual_seed(seed)
    model = network(arm, dim, start="unit").to(device)
    drawn = lookups(1024, torch.Generator().manual_seed(100_000 + seed))
    asked, keys, values, answer = (tensor.to(device) for tensor in drawn)
    F.cross_entropy(model(asked, keys, values), answer).backward()
    query, key = model.q_proj(model.key_embedding(asked)), model.k_proj(model.key_embedding(keys))
    largest = model.score(query, key).softmax(-1).amax(-1)

    def length(*parts: nn.Module) -> float:
        found = [p.grad.norm() for m in parts for p in m.parameters() if p.grad is not None]
        return torch.stack(found).norm().item()

    return {
        "queries and keys": length(model.key_embedding, model.q_proj, model.k_proj),
        "values": length(model.value_embedding, model.logits),
        "saturated": (largest > 0.99).float().mean().item(),
    }


def run(
    each: Each,
    *,
    seeds: int,
    steps: int,
    dims: list[int],
    rates: dict[str, list[float]],
    tuning_seeds: int,
    attack_seeds: int,
    attack_steps: int,
) -> dict[str, Any]:
    """Tune and train each arm with each optimizer at each d, compare them, then attack what came.

    Speed and ability each have a learning rate of their own: the one that reaches 90 % right in the
    fewest steps on validation lists, and the one that ends with the most right answers there.
    """
    cells = {
        f"{optimizer}, d = {dim}, {arm}": {"arm": arm, "dim": dim, "optimizer": optimizer}
        for optimizer in rates
        for dim in dims
        for arm in (*ARMS, *(SWAPPED if dim == max(dims) else ()))
    }
    sizes = {"seeds": seeds, "steps": steps, "tuning_seeds": tuning_seeds}
    tuning, curves = _trained(each, cells, rates, speed, **sizes)
    tuning_of_ends, ends = _trained(each, cells, rates, _end, **sizes)
    comparisons = {}
    for name, cell in cells.items():
        if cell["arm"] != "scaled":
            baseline = curves[name.replace(cell["arm"], "scaled")]
            comparisons[f"{name}: log2 of steps to 90 %"] = compare(
                [math.log2(step) for step in _steps(curves[name])],
                [math.log2(step) for step in _steps(baseline)],
            )
            comparisons[f"{name}: right at the end"] = compare(
                [_end(curve) for curve in ends[name]],
                [_end(curve) for curve in ends[name.replace(cell["arm"], "scaled")]],
            )
    best = chosen(tuning)
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning | {f"{name}, end": by for name, by in tuning_of_ends.items()},
        "chosen": best | {f"{name}, end": by for name, by in chosen(tuning_of_ends).items()},
        "seeds": list(range(seeds)),
        "results": {name: summary(runs) for name, runs in curves.items()},
        "results, rate chosen by the end": {name: summary(runs) for name, runs in ends.items()},
        "curve": {
            "steps": list(range(EVERY, steps + 1, EVERY)),
            **{name: _points(runs) for name, runs in curves.items()},
        },
        "comparisons": holm(comparisons),
        "gradients at the start": {
            f"d = {dim}, {arm}": each(
                gradients,
                [{"arm": arm, "dim": dim, "seed": seed} for seed in range(seeds)],
                "gradients",
            )
            for dim in dims
            for arm in ARMS
        },
        "commonest value right": commonest(),
        "attacks": attacks(
            each, cells, rates, best, steps=steps, tuning_seeds=tuning_seeds, seeds=attack_seeds,
            longer=attack_steps, dim=max(dims),
        ),
    }  # fmt: skip


@on_cpu
def commonest(count: int = 20_000) -> float:
    """Return how often the commonest value of a list is the answer: a reader of values alone."""
    _, _, values, answer = lookups(count, torch.Generator().manual_seed(0))
    return round((values.mode(-1).values == answer).float().mean().item(), 4)


ARMS = ("scaled", "unscaled", "unscaled, small start")
QUESTION = (
    "With its learning rate tuned, does a lookup by q . k / sqrt(d) reach 90 % right answers in "
    "fewer steps than one by q . k, and does it end with more right answers?"
)
REFUTED_IF = (
    "Speed: at the largest d, with any optimizer, the corrected interval of the ratio of steps "
    "holds 1. Ability: with its rate tuned and seven times the steps, the unscaled lookup stays "
    "more than two points below the scaled one."
)


def speed(curve: list[float]) -> float:
    """Return minus the logarithm of the steps to 90 % right."""
    return -math.log2(_steps([curve])[0])


def _trained(
    each: Each,
    cells: dict[str, dict[str, Any]],
    rates: dict[str, list[float]],
    score: Callable[[list[float]], float],
    *,
    seeds: int,
    steps: int,
    tuning_seeds: int,
) -> tuple[dict[str, dict[str, float]], dict[str, list[list[float]]]]:
    tuning = tune(
        each,
        learn,
        {name: {**cell, "steps": steps, "lists": "validation"} for name, cell in cells.items()},
        setting="lr",
        values={name: rates[cell["optimizer"]] for name, cell in cells.items()},
        seeds=tuning_seeds,
        score=score,
    )
    best = chosen(tuning)
    jobs = {name: {**cell, "lr": best[name], "steps": steps} for name, cell in cells.items()}
    return tuning, repeat_all(each, learn, jobs, range(seeds), "results")


def attacks(
    each: Each,
    cells: dict[str, dict[str, Any]],
    rates: dict[str, list[float]],
    best: dict[str, float],
    *,
    steps: int,
    tuning_seeds: int,
    seeds: int,
    longer: int,
    dim: int,
) -> list[dict[str, Any]]:
    """Return what was tried, at the largest d, to overturn what the study says, and what came."""
    tried = {
        name: {**cell, "lr": best[name], "steps": steps}
        for name, cell in cells.items()
        if cell["dim"] == dim and cell["arm"] in ("scaled", "unscaled")
    }

    def changed(**settings: Any) -> dict[str, dict[str, Any]]:
        return {name: {**cell, **settings} for name, cell in tried.items()}

    def at(factor: float) -> dict[str, dict[str, Any]]:
        return {n: {**cell, "lr": round(cell["lr"] * factor, 6)} for n, cell in tried.items()}

    unscaled = [name for name, cell in tried.items() if cell["arm"] == "unscaled"]
    fixed_rate = {
        f"{optimizer}, d = {d}": {"arm": "unscaled", "dim": d, "optimizer": optimizer, "lr": 0.1}
        for optimizer in rates
        if optimizer != "Adam"
        for d in sorted({cell["dim"] for cell in cells.values()})
    }
    long, slow = changed(steps=longer), at(1 / 3)
    plan = {
        f"{longer} steps": ({name: long[name] for name in unscaled}, range(3)),
        f"{longer} steps at a third of the learning rate": (
            {name: {**slow[name], "steps": longer} for name in unscaled},
            range(3),
        ),
        "three times the learning rate": (at(3), range(seeds)),
        "a third of the learning rate": (slow, range(seeds)),
        "initial weights of nn.Linear": (changed(start="nn.Linear"), range(seeds)),
        "another block of seeds": (tried, range(500, 500 + seeds)),
        "learning rate 0.1 for all, without momentum and with 0.9": (
            {name: {**cell, "steps": 2 * steps} for name, cell in fixed_rate.items()},
            range(seeds),
        ),
        "queries and keys left as they start": (changed(fixed=True), range(seeds)),
    }
    found = []
    for what, (jobs, block) in plan.items():
        came = repeat_all(each, learn, jobs, block, f"attack: {what}")
        found.append({"tried": what, "came": {name: summary(runs) for name, runs in came.items()}})
    sizes = {"seeds": seeds, "steps": steps, "tuning_seeds": tuning_seeds}
    tuned = {
        "a learned temperature instead": [
            (optimizer, "unscaled, temperature learned") for optimizer in rates
        ],
        "other divisors, the rate of each tuned": [("Adam", arm) for arm in DIVISORS],
        "saturation and size of the gradient apart": [
            (optimizer, arm) for optimizer in rates for arm in APART
        ],
    }
    for what, arms in tuned.items():
        instead = {
            f"{optimizer}, d = {dim}, {arm}": {"arm": arm, "dim": dim, "optimizer": optimizer}
            for optimizer, arm in arms
        }
        tuning, curves = _trained(each, instead, rates, speed, **sizes)
        came = {name: summary(runs) for name, runs in curves.items()}
        found.append({"tried": what, "came": came, "tuning": tuning})
    return found


def summary(curves: list[list[float]]) -> dict[str, Any]:
    """Return what the curves of one cell say, seed by seed.

    `steps to 90 %` is null where a run never gets there; `end` is the mean of its last quarter, and
    `change` how much that lies above the quarter before it, in the mean over the seeds.
    """
    quarter = max(1, len(curves[0]) // 4)
    before = [fmean(curve[-2 * quarter : -quarter] or curve) for curve in curves]
    steps = [steps_to(curve, 0.9) for curve in curves]
    return {
        "steps to 90 %": steps,
        "median": median(step or math.inf for step in steps) if None not in steps else None,
        "end": [round(_end(curve), 4) for curve in curves],
        "change": round(fmean(map(_end, curves)) - fmean(before), 4),
    }


def steps_to(curve: list[float], accuracy: float) -> int | None:
    """Return after how many steps the curve first reaches the accuracy, None if it never does."""
    return next((EVERY * (i + 1) for i, right in enumerate(curve) if right >= accuracy), None)


def _steps(curves: list[list[float]]) -> list[int]:
    # A run that never gets there counts with all its steps, which is less than it would take.
    return [steps_to(curve, 0.9) or EVERY * len(curve) for curve in curves]


def _end(curve: list[float]) -> float:
    return fmean(curve[-max(1, len(curve) // 4) :])


def _points(curves: list[list[float]]) -> dict[str, list[float]]:
    columns = list(zip(*curves, strict=True))
    return {
        "mean": [round(fmean(column), 4) for column in columns],
        "sd": [round(stdev(column), 4) if len(column) > 1 else 0.0 for column in columns],
    }


FULL: dict[str, Any] = {
    "seeds": 10,
    "steps": 300,
    "dims": [8, 64, 256],
    "rates": {
        "Adam": [0.001, 0.0032, 0.01, 0.032, 0.1],
        "SGD": [0.032, 0.1, 0.32, 1.0, 3.2],
        "SGD, momentum 0.9": [0.0032, 0.01, 0.032, 0.1, 0.32],
    },
    "tuning_seeds": 3,
    "attack_seeds": 3,
    "attack_steps": 2100,
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "steps": 10,
    "dims": [8],
    "rates": {"Adam": [0.01], "SGD": [0.32]},
    "tuning_seeds": 1,
    "attack_seeds": 1,
    "attack_steps": 15,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
