"""How sharp should a lookup be that learns nothing? Digits, named by a vote of known ones."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from attnbook.attention import cosine_score
from attnbook.datasets import digits, on_cpu
from attnbook.studies import main
from attnbook.studies.dividing import unscaled_score
from attnbook.studies.protocol import compare, holm
from attnbook.studies.runner import Each


def distance_score(query: Float[Tensor, "i d"], key: Float[Tensor, "j d"]) -> Tensor:
    """Return -|q - k|^2 / 2: with it the vote is the kernel regression of Nadaraya and Watson."""
    return -(torch.cdist(query, key) ** 2) / 2


ARMS = {
    "dot product, standardised": unscaled_score,
    "dot product": unscaled_score,
    "cosine": cosine_score,
    "distance": distance_score,
}


@on_cpu
def vote(
    *, arm: str, temperatures: list[float], known: int, seed: int, double: bool = False,
    device: str = "cpu",
) -> dict[str, list[float]]:  # fmt: skip
    """Let `known` digits vote on 300 for the choice of a temperature, and on the rest.

    Return lists, one number for each temperature: the share of right answers on the 300
    (`validation`) and on the rest (`right`), the mean entropy of the weights there in nats, and the
    share of the weights there that are exactly 0 in float32, or in float64 with `double`.
    """
    images, labels = digits()
    images = images.flatten(1).to(torch.double if double else torch.float)
    if arm.endswith("standardised"):
        images = (images - images.mean(1, keepdim=True)) / images.std(1, keepdim=True)
    images, labels = images.to(device), labels.to(device)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(device)
    keys, new = order[:known], order[known:]
    scores = ARMS[arm](images[new], images[keys])
    value = F.one_hot(labels[keys], 10).to(images)
    columns: dict[str, list[float]] = {"validation": [], "right": [], "entropy": [], "zeros": []}
    for temperature in temperatures:
        weights = (scores / temperature).softmax(-1)
        right = ((weights @ value).argmax(-1) == labels[new]).double()
        columns["validation"].append(right[:300].mean().item())
        columns["right"].append(right[300:].mean().item())
        entropy = -torch.special.xlogy(weights, weights).sum(-1)
        columns["entropy"].append(entropy[300:].mean().item())
        columns["zeros"].append((weights[300:] == 0).double().mean().item())
    return {name: [round(number, 5) for number in column] for name, column in columns.items()}


@on_cpu
def nearest(*, known: int, seed: int, device: str = "cpu") -> dict[str, float]:
    """Return what scikit-learn's vote of the k nearest gets right, k chosen on the same 300."""
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415 (slow to import)

    images, labels = (x.numpy() for x in digits())
    images = images.reshape(len(images), -1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).numpy()
    keys, validation, test = order[:known], order[known : known + 300], order[known + 300 :]
    models = [
        KNeighborsClassifier(k).fit(images[keys], labels[keys]) for k in (1, 2, 3, 4, 5, 7, 10)
    ]
    best = max(models, key=lambda model: model.score(images[validation], labels[validation]))
    one = models[0].score(images[test], labels[test])
    chosen = best.score(images[test], labels[test])
    return {"k": best.n_neighbors, "right": round(chosen, 5), "one": round(one, 5)}


def run(
    each: Each, *, seeds: int, known: int, exponents: list[float], attack_seeds: int
) -> dict[str, Any]:
    """Sweep the temperature for each score; compare the best with the hard limit; attack that.

    Each split chooses its temperature on 300 digits and is measured on others. Splits share
    digits, so an interval covers the draw of the split, not that of new digits.
    """
    temperatures = [float(f"{10**exponent:.2g}") for exponent in exponents]
    sweep = {arm: votes(each, arm, temperatures, known, range(seeds)) for arm in ARMS}
    rival = each(nearest, [{"known": known, "seed": seed} for seed in range(seeds)], "nearest")
    tuning = {
        arm: {
            f"{t:g}": mean for t, mean in zip(temperatures, _mean(runs, "validation"), strict=True)
        }
        for arm, runs in sweep.items()
    }
    best = {arm: [at_best(run) for run in runs] for arm, runs in sweep.items()}
    hard = {arm: [run["right"][0] for run in runs] for arm, runs in sweep.items()}
    best["k nearest, k chosen"] = [found["right"] for found in rival]
    comparisons = {
        f"{arm}: best temperature - hard limit": compare(best[arm], hard[arm]) for arm in ARMS
    }
    for arm in ("dot product", "cosine", "k nearest, k chosen"):
        comparisons[f"{arm} - distance, each at its best"] = compare(best[arm], best["distance"])
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning,
        "chosen": {arm: float(max(by, key=by.__getitem__)) for arm, by in tuning.items()},
        "seeds": list(range(seeds)),
        "results": {"right, temperature chosen by split": best, "right, hard limit": hard},
        "curve": {
            "temperatures": temperatures,
            **{arm: {name: _mean(runs, name) for name in runs[0]} for arm, runs in sweep.items()},
        },
        "comparisons": holm(comparisons),
        "attacks": attacks(each, temperatures, known, attack_seeds),
    }


QUESTION = (
    "Does a vote at the temperature that validation digits choose name more digits right than the "
    "single nearest neighbour in the same score?"
)
REFUTED_IF = "The corrected interval of the difference holds 0 for every score."


def votes(
    each: Each, arm: str, temperatures: list[float], known: int, seeds: range, **settings: Any
) -> list[dict[str, list[float]]]:
    """Return one sweep for each split."""
    job = {"arm": arm, "temperatures": temperatures, "known": known, **settings}
    return each(vote, [{**job, "seed": seed} for seed in seeds], arm)


def at_best(run: dict[str, list[float]]) -> float:
    """Return the share of right answers at the temperature that is best on validation digits."""
    return run["right"][run["validation"].index(max(run["validation"]))]


def attacks(each: Each, temperatures: list[float], known: int, seeds: int) -> list[dict[str, Any]]:
    """Return what was tried to overturn what the study says, and what came."""
    plan: dict[str, tuple[int, range, dict[str, Any]]] = {
        "another block of splits": (known, range(500, 500 + seeds), {}),
        "a tenth of the known digits": (known // 10, range(seeds), {}),
        "float64": (known, range(seeds), {"double": True}),
    }
    found = []
    for what, (count, block, settings) in plan.items():
        came = {}
        for arm in ARMS:
            runs = votes(each, arm, temperatures, count, block, **settings)
            best, hard = [at_best(run) for run in runs], [run["right"][0] for run in runs]
            came[arm] = {
                "best": round(fmean(best), 4), "hard limit": round(fmean(hard), 4),
                "difference": compare(best, hard), "zeros": _mean(runs, "zeros"),
            }  # fmt: skip
        found.append({"tried": what, "came": came})
    return found


def _mean(runs: list[dict[str, list[float]]], name: str) -> list[float]:
    return [round(fmean(column), 5) for column in zip(*(run[name] for run in runs), strict=True)]


FULL: dict[str, Any] = {
    "seeds": 10,
    "known": 1000,
    "exponents": [n / 4 for n in range(-12, 13)],
    "attack_seeds": 10,
}
QUICK: dict[str, Any] = {"seeds": 2, "known": 100, "exponents": [-3, 0, 3], "attack_seeds": 2}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
