"""Does an additive score learn a lookup in fewer steps than a dot product, divided or not?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from attnbook import costs
from attnbook.attention import AdditiveScore, attend, attend_fused, dot_product_score
from attnbook.datasets import on_cpu
from attnbook.studies import main
from attnbook.studies.dividing import EVERY, Lookup, lookups, speed, summary, unscaled_score
from attnbook.studies.protocol import chosen, compare, holm, repeat_all, tune
from attnbook.studies.runner import Each
from attnbook.timing import paired_times, ratio


class BilinearScore(nn.Module):
    """W q . U k / sqrt(d): an additive score's two matrices, with a product in place of tanh."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.w = nn.Linear(dim, dim, bias=False)
        self.u = nn.Linear(dim, dim, bias=False)

    def forward(
        self, query: Float[Tensor, "b i d"], key: Float[Tensor, "b j d"]
    ) -> Float[Tensor, "b i j"]:
        """Return the scores."""
        return dot_product_score(self.w(query), self.u(key))


@on_cpu
def network(arm: str, dim: int, *, seed: int, start: str, hidden: int | None, sd: str) -> Lookup:
    """Return the network of one arm; all but the score's own weights are drawn alike for all arms.

    With the start "unit" queries and keys have variance 1 to begin with, whatever d is; with
    "nn.Linear" they have a third of it. An additive score has as many hidden features as queries
    have features, or `hidden`, and starts as nn.Linear does. With `sd` "1" or "sqrt(d)", whatever
    makes the scores is multiplied by a number, so that they start with that standard deviation over
    the keys.
    """
    torch.manual_seed(seed)
    model = Lookup(dot_product_score if arm == "scaled" else unscaled_score, dim)
    if start == "unit":
        for projection in (model.q_proj, model.k_proj):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
    scaled = [model.q_proj, model.k_proj]
    if arm == "additive":
        model.score = additive = AdditiveScore(dim, dim, hidden or dim)
        scaled = [additive.v]
    elif arm == "bilinear":
        model.score = BilinearScore(dim)
    if sd != "own":
        factor = {"1": 1.0, "sqrt(d)": dim**0.5}[sd] / spread(model, seed)
        with torch.no_grad():
            for layer in scaled:
                layer.weight.mul_(factor ** (1 / len(scaled)))
    return model


@torch.no_grad()
def spread(model: Lookup, seed: int) -> float:
    """Return the standard deviation over the keys of one list of its scores, over 1,024 lists."""
    asked, keys, *_ = lookups(1024, torch.Generator().manual_seed(400_000 + seed))
    query, key = model.q_proj(model.key_embedding(asked)), model.k_proj(model.key_embedding(keys))
    return model.score(query, key).var(-1).mean().sqrt().item()


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
    hidden: int | None = None,
    sd: str = "own",
    device: str = "cpu",
) -> list[float]:
    """Train one network; return its share of right answers on 256 lists, every `EVERY` steps.

    Steps, lists and what is measured are those of `dividing.learn`.
    """
    model = network(arm, dim, seed=seed, start=start, hidden=hidden, sd=sd).to(device)
    make = torch.optim.Adam if optimizer == "Adam" else torch.optim.SGD
    stepper = make(model.parameters(), lr=lr)
    drawn = torch.Generator().manual_seed(100_000 + seed)
    held_out = {"validation": 200_000, "test": 300_000}[lists] + seed
    measured = lookups(256, torch.Generator().manual_seed(held_out))
    *inputs, answer = (tensor.to(device) for tensor in measured)
    curve = []
    torch.set_flush_denormal(True)  # tiny weights of undivided scores are slow otherwise
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
def starts(*, arm: str, dim: int, seed: int, device: str = "cpu", **how: Any) -> float:
    """Return the standard deviation of an arm's scores before the first step, on a CPU."""
    settings = {"start": "unit", "hidden": None, "sd": "own"} | how
    return round(spread(network(arm, dim, seed=seed, **settings), seed), 4)


@on_cpu
def cost(*, length: int, dim: int, rounds: int, device: str = "cpu") -> dict[str, dict[str, Any]]:
    """Return what one forward pass costs, as many queries as keys, without gradients.

    `times` is the time over that of the scaled dot product: quartile, median, quartile.
    """
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 1, length, dim, device=device)
    score = AdditiveScore(dim, dim, dim, device=device)
    passes = {
        "additive": lambda: attend(query, key, value, score=score),
        "scaled": lambda: attend(query, key, value),
        "fused": lambda: attend_fused(query, key, value),
    }
    with torch.no_grad():
        times = paired_times(passes, rounds=rounds)
        return {
            name: {
                "times": [round(bound, 3) for bound in ratio(times, name, "scaled")],
                "peak bytes": costs.peak_bytes(run_once),
            }
            for name, run_once in passes.items()
        }


def run(
    each: Each,
    *,
    seeds: int,
    steps: int,
    longer: int,
    dims: list[int],
    rates: dict[str, list[float]],
    tuning_seeds: int,
    attack_seeds: int,
    cost_of: dict[str, int],
) -> dict[str, Any]:
    """Tune and train each score at each d, compare the additive one with the others, then attack.

    Speed and ability each have a learning rate of their own: the one that reaches 90 % right in the
    fewest steps on validation lists, and the one that ends with the most right answers there.
    """
    cells = {
        f"d = {dim}, {arm}": {"dim": dim, "optimizer": "Adam", "steps": steps, **settings}
        for dim in dims
        for arm, settings in ARMS.items()
    }
    tuning, curves = _trained(each, cells, rates, speed, range(seeds), tuning_seeds)
    tuning_of_ends, ends = _trained(each, cells, rates, _end, range(seeds), tuning_seeds)
    log2_steps = {name: [-speed(curve) for curve in runs] for name, runs in curves.items()}
    at_end = {name: [_end(curve) for curve in runs] for name, runs in ends.items()}
    comparisons = {
        f"d = {dim}, additive - {other}: {what}": compare(
            by[f"d = {dim}, additive"], by[f"d = {dim}, {other}"]
        )
        for what, by in (("log2 of steps to 90 %", log2_steps), ("right at the end", at_end))
        for dim in dims
        for other in ARMS
        if other != "additive"
    }
    gains = {
        dim: [
            ours - theirs
            for ours, theirs in zip(
                log2_steps[f"d = {dim}, additive"], log2_steps[f"d = {dim}, undivided"], strict=True
            )
        ]
        for dim in (min(dims), max(dims))
    }
    if len(gains) == 2:
        what = f"additive - undivided: log2 of steps to 90 %, d = {max(dims)} - d = {min(dims)}"
        comparisons[what] = compare(gains[max(dims)], gains[min(dims)])
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
            **{
                name: [round(fmean(points), 4) for points in zip(*runs, strict=True)]
                for name, runs in curves.items()
            },
        },
        "comparisons": holm(comparisons),
        "scores at the start (sd)": {
            name: each(starts, [{**_start(cell), "seed": seed} for seed in range(seeds)], "starts")
            for name, cell in cells.items()
        },
        "parameters of the score": {
            f"d = {dim}": costs.parameters(AdditiveScore(dim, dim, dim)) for dim in dims
        },
        "attacks": attacks(
            each, cells, best, rates, seeds=attack_seeds, tuning_seeds=tuning_seeds, longer=longer
        ),
        "cost": each(cost, [cost_of], "cost")[0],
    }  # fmt: skip


ARMS: dict[str, dict[str, Any]] = {
    "scaled": {"arm": "scaled"},
    "undivided": {"arm": "undivided"},
    "additive": {"arm": "additive"},
    "undivided, small start": {"arm": "undivided", "sd": "1"},
}
QUESTION = (
    "At which d does an additive score, with its learning rate tuned, reach 90 % right answers in "
    "fewer steps than the undivided dot product, and than the scaled one?"
)
REFUTED_IF = (
    "Undivided: at the largest d the ratio of steps, corrected, is not shown to lie below 1, or it "
    "is no smaller there than at the smallest d. That the form of the score does it, not the size "
    "of its first scores: an undivided score with a small start needs no more steps than the "
    "additive one. Scaled: at no d is the additive score shown to be faster."
)


def _start(cell: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in cell.items() if key in ("arm", "dim", "sd", "hidden")}


def _end(curve: list[float]) -> float:
    return summary([curve])["end"][0]


def _trained(
    each: Each,
    cells: dict[str, dict[str, Any]],
    rates: dict[str, list[float]],
    score: Callable[[list[float]], float],
    seeds: Sequence[int],
    tuning_seeds: int,
) -> tuple[dict[str, dict[str, float]], dict[str, list[list[float]]]]:
    tuning = tune(
        each,
        learn,
        {name: {**cell, "lists": "validation"} for name, cell in cells.items()},
        setting="lr",
        values={name: rates[cell["optimizer"]] for name, cell in cells.items()},
        seeds=tuning_seeds,
        score=score,
    )
    best = chosen(tuning)
    tuned = {name: {**cell, "lr": best[name]} for name, cell in cells.items()}
    return tuning, repeat_all(each, learn, tuned, seeds, "results")


def attacks(
    each: Each,
    cells: dict[str, dict[str, Any]],
    best: dict[str, float],
    rates: dict[str, list[float]],
    *,
    seeds: int,
    tuning_seeds: int,
    longer: int,
) -> list[dict[str, Any]]:
    """Return what was tried to overturn what the study says, and what came.

    The first few keep each score's learning rate; the others choose it again, at the smallest and
    the largest d.
    """
    tried = {name: {**cell, "lr": best[name]} for name, cell in cells.items() if "sd" not in cell}
    dims = [cell["dim"] for cell in cells.values()]
    largest = {name: cell for name, cell in tried.items() if cell["dim"] == max(dims)}

    def at(factor: float) -> dict[str, dict[str, Any]]:
        return {n: {**cell, "lr": round(cell["lr"] * factor, 6)} for n, cell in tried.items()}

    plan = {
        "three times the learning rate": (at(3), range(seeds)),
        "a third of the learning rate": (at(1 / 3), range(seeds)),
        "queries and keys that start as nn.Linear does": (
            {name: {**cell, "start": "nn.Linear"} for name, cell in tried.items()},
            range(seeds),
        ),
        "another block of seeds": (tried, range(500, 500 + seeds)),
        f"{longer} steps": (
            {name: {**cell, "steps": longer} for name, cell in largest.items()},
            range(seeds),
        ),
    }
    found = []
    for what, (jobs, block) in plan.items():
        came = repeat_all(each, learn, jobs, block, f"attack: {what}")
        found.append({"tried": what, "came": {name: summary(runs) for name, runs in came.items()}})
    ends = {min(dims): max(dims), max(dims): min(dims)}
    tuned_anew: dict[str, dict[str, dict[str, Any]]] = {
        "SGD": {arm: {"optimizer": "SGD"} for arm in ARMS},
        "additive scores that start with standard deviation 1": {"additive": {"sd": "1"}},
        "additive scores that start with standard deviation sqrt(d)": {
            "additive": {"sd": "sqrt(d)"}
        },
        "the scaled dot product of W q and U k": {"scaled": {"arm": "bilinear"}},
        "as many hidden features as the other d": {"additive": {}},
    }
    for what, changed in tuned_anew.items():
        varied = {
            f"d = {dim}, {arm}": {**cells[f"d = {dim}, {arm}"], **settings}
            for dim in ends
            for arm, settings in changed.items()
        }
        if "hidden" in what:
            varied = {name: {**cell, "hidden": ends[cell["dim"]]} for name, cell in varied.items()}
        tuning, curves = _trained(each, varied, rates, speed, range(seeds), tuning_seeds)
        came = {name: summary(runs) for name, runs in curves.items()}
        found.append({"tried": what, "came": came, "tuning": tuning})
    return found


FULL: dict[str, Any] = {
    "seeds": 10,
    "steps": 200,
    "longer": 600,
    "dims": [8, 32, 256],
    "rates": {
        "Adam": [0.001, 0.0032, 0.01, 0.032, 0.1],
        "SGD": [0.032, 0.1, 0.32, 1.0, 3.2],
    },
    "tuning_seeds": 3,
    "attack_seeds": 3,
    "cost_of": {"length": 512, "dim": 64, "rounds": 15},
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "steps": 5,
    "longer": 5,
    "dims": [8],
    "rates": {"Adam": [0.01], "SGD": [0.1]},
    "tuning_seeds": 1,
    "attack_seeds": 1,
    "cost_of": {"length": 8, "dim": 8, "rounds": 2},
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
