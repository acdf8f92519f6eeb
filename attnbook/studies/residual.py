"""Does a deep stack of blocks learn without its residual connections?

Stacks of one, four and eight blocks on MNIST, cut into 16 patches. Cut for want of processor time:
300 steps of 32 images, rates tuned with two seeds, attacks with three seeds and at eight blocks.
"""

from __future__ import annotations

import itertools
from functools import partial
from statistics import fmean
from typing import Any

import torch
from einops import reduce
from einops.layers.torch import Rearrange, Reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnbook.datasets import on_cpu
from attnbook.studies import main
from attnbook.studies.few_images import Block, Positions, accuracy, loss, parts
from attnbook.studies.protocol import chosen, compare, holm, mean_of, repeat_one, tune
from attnbook.studies.runner import Each
from attnbook.training import fit

ARMS = {"with residuals": True, "without residuals": False}


@on_cpu
def stack(depth: int, arm: str, *, itself: bool = False, alone: bool = False) -> nn.Sequential:
    """Return patches of 7 x 7 pixels, `depth` blocks, and an answer from the mean of the tokens.

    With `itself` queries and keys begin with one matrix, and with scores 16 times as large, so that
    each token looks at itself and is not averaged with others. With `alone` it never is: attention
    to oneself alone is the projection of the values.
    """
    blocks = [Block(32, 128, residual=ARMS[arm]) for _ in range(depth)]
    with torch.no_grad():
        for block in blocks if itself else []:
            query, key = block.attention.q_proj, block.attention.k_proj
            query.weight.copy_(16 * key.weight)
            query.bias.copy_(16 * key.bias)
    for block in blocks if alone else []:
        block.register_module("attention", block.attention.v_proj)
    return nn.Sequential(
        Rearrange("b (row y) (column x) -> b (row column) (y x)", y=7, x=7),
        nn.Linear(49, 32),
        Positions(16, 32),
        nn.Sequential(*blocks),
        nn.LayerNorm(32),
        Reduce("b i x -> b x", "mean"),
        nn.Linear(32, 10),
    )


@torch.no_grad()
def apart(model: nn.Sequential, images: Tensor) -> list[float]:
    """Return the share of the tokens' squared length that tells them apart, for each block.

    The first is that before the blocks.
    """

    def share(x: Float[Tensor, "b i x"]) -> float:
        mean = reduce(x, "b i x -> b 1 x", "mean")
        return ((x - mean).square().sum((1, 2)) / x.square().sum((1, 2))).mean().item()

    tokens = model[:3](images)
    found = [share(tokens)]
    for block in model[3].children():
        tokens = block(tokens)
        found.append(share(tokens))
    return [float(f"{value:.4g}") for value in found]


@on_cpu
def learn(
    *,
    arm: str,
    depth: int,
    lr: float,
    steps: int,
    seed: int,
    itself: bool = False,
    alone: bool = False,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one stack on 3,000 images; return its shares of right answers.

    `apart` is the share of the tokens' squared length that tells them apart, after each block, on
    test images.
    """
    torch.manual_seed(seed)
    model = stack(depth, arm, itself=itself, alone=alone).to(device)
    pool = {part: tuple(x.to(device) for x in rows) for part, rows in parts().items()}
    losses = fit(
        model, partial(loss, moved=False), pool["training"], steps=steps, batch_size=32, lr=lr,
        seed=seed,
    )  # fmt: skip
    bins = max(1, steps // 20)
    return {
        "validation": round(accuracy(model, *pool["validation"]), 4),
        "test": round(accuracy(model, *pool["test"]), 4),
        "apart": apart(model, pool["test"][0][:200]),
        "curve": [round(fmean(losses[k : k + bins]), 4) for k in range(0, steps, bins)],
    }


def run(
    each: Each,
    *,
    seeds: int,
    depths: list[int],
    steps: int,
    longer: int,
    rates: list[float],
    tuning_seeds: int,
    attack_seeds: int,
) -> dict[str, Any]:
    """Tune and train each stack at each depth, compare them, then attack what came."""
    deepest = max(depths)
    cells = {
        f"{arm}, {depth}": {"arm": arm, "depth": depth, "steps": steps}
        for arm in ARMS
        for depth in depths
    }
    tuning = tuned(each, cells, rates, tuning_seeds)
    best = chosen(tuning)
    runs = {
        name: repeat_one(each, learn, {**cell, "lr": best[name]}, range(seeds), "results")
        for name, cell in cells.items()
    }
    right = {name: [row["test"] for row in rows] for name, rows in runs.items()}
    comparisons = {
        f"{depth} blocks: with residuals - without": compare(
            right[f"with residuals, {depth}"], right[f"without residuals, {depth}"]
        )
        for depth in depths
    }
    comparisons |= {
        f"{arm}: {deepest} blocks - {min(depths)}": compare(
            right[f"{arm}, {deepest}"], right[f"{arm}, {min(depths)}"]
        )
        for arm in ARMS
    }
    labels = parts()["test"][1]
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning,
        "chosen": best,
        "seeds": list(range(seeds)),
        "results": {
            arm: {str(depth): right[f"{arm}, {depth}"] for depth in depths} for arm in ARMS
        },
        "share that tells tokens apart": {
            name: [
                float(f"{fmean(values):.4g}")
                for values in zip(*(row["apart"] for row in rows), strict=True)
            ]
            for name, rows in runs.items()
        },
        "guess": round(labels.bincount().max().item() / len(labels), 4),
        "curve": {
            name: mean_of(rows, "curve")
            for name, rows in runs.items()
        },
        "comparisons": holm(comparisons),
        "attacks": attacks(
            each, cells, best, rates, depth=deepest, tuning_seeds=tuning_seeds,
            seeds=attack_seeds, longer=longer,
        ),
    }  # fmt: skip


QUESTION = (
    "With its learning rate tuned, does a stack of eight blocks with residual connections name "
    "more digits right than the same stack without them?"
)
REFUTED_IF = "At eight blocks the corrected interval of with minus without holds 0."


def tuned(
    each: Each, cells: dict[str, dict[str, Any]], rates: list[float], seeds: int
) -> dict[str, dict[str, float]]:
    """Return the validation score of each learning rate."""
    return tune(
        each, learn, cells, setting="lr", values=dict.fromkeys(cells, rates), seeds=seeds,
        score=lambda found: found["validation"],
    )  # fmt: skip


def attacks(
    each: Each,
    cells: dict[str, dict[str, Any]],
    best: dict[str, float],
    rates: list[float],
    *,
    depth: int,
    tuning_seeds: int,
    seeds: int,
    longer: int,
) -> list[dict[str, Any]]:
    """Return what was tried on the deepest stacks, above all without residuals, and what came."""
    name = f"without residuals, {depth}"
    without = {**cells[name], "lr": best[name]}
    rate = {factor: float(f"{without['lr'] * factor:.3g}") for factor in (3, 1 / 3)}
    plan = {
        "three times the learning rate": {**without, "lr": rate[3]},
        "a third of the learning rate": {**without, "lr": rate[1 / 3]},
        f"{longer} steps": {**without, "steps": longer},
    }
    found = []
    for what, job in plan.items():
        rows = repeat_one(each, learn, job, range(seeds), f"attack: {what}")
        found.append({"tried": what, "came": said(name, rows)})
    for (what, change), arm in itertools.product(CHANGES.items(), ARMS):
        name = f"{arm}, {depth}"
        cell = {f"{name}, {what}": {**cells[name], change: True}}
        tuning = tuned(each, cell, rates, tuning_seeds)
        ((changed, job),) = cell.items()
        job = {**job, "lr": chosen(tuning)[changed]}
        rows = repeat_one(each, learn, job, range(seeds), f"attack: {what}")
        found.append({"tried": f"{what}, with a rate of its own", "came": said(name, rows),
                      "tuning": tuning})  # fmt: skip
    return found


CHANGES = {
    "at the start each token looks at itself": "itself",
    "each token sees itself alone": "alone",
}


def said(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the shares right, and what tells tokens apart after the last block, seed by seed."""
    return {name: [row["test"] for row in rows],
            "apart after the last block": [row["apart"][-1] for row in rows]}  # fmt: skip


FULL: dict[str, Any] = {
    "seeds": 10,
    "depths": [1, 4, 8],
    "steps": 300,
    "longer": 900,
    "rates": [0.00032, 0.001, 0.0032, 0.01, 0.032],
    "tuning_seeds": 2,
    "attack_seeds": 3,
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "depths": [1, 2],
    "steps": 6,
    "longer": 7,
    "rates": [0.01],
    "tuning_seeds": 1,
    "attack_seeds": 1,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
