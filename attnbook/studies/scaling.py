"""Does dividing the dot product by sqrt(d) matter for learning? A lookup with four scores."""

from __future__ import annotations

from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from attnbook.attention import AdditiveScore, CosineScore, dot_product_score
from attnbook.datasets import on_cpu
from attnbook.studies import main
from attnbook.studies.dividing import Lookup, lookups, unscaled_score

SCORES = {
    "dot product": lambda dim: unscaled_score,
    "dot product / sqrt(d)": lambda dim: dot_product_score,
    "additive": lambda dim: AdditiveScore(dim, dim, dim),
    "cosine, scale learned": lambda dim: CosineScore(),
}


@on_cpu
def learning_curve(
    name: str,
    dim: int,
    *,
    steps: int,
    every: int = 25,
    seed: int = 0,
    optimizer: str = "Adam",
    init: str = "N(0, 1/d)",
    device: torch.device | str = "cpu",
) -> list[float]:
    """Train one lookup; return its accuracy on 512 fresh lists, every `every` steps."""
    torch.set_flush_denormal(True)  # tiny weights of unscaled scores are slow otherwise
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    model = Lookup(SCORES[name](dim), dim)
    if init == "N(0, 1/d)":
        for projection in (model.q_proj, model.k_proj):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
    model.to(device)
    if optimizer == "Adam":
        stepper = torch.optim.Adam(model.parameters(), lr=3e-3)
    else:
        stepper = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    *inputs, answer = (tensor.to(device) for tensor in lookups(512, generator))
    curve = []
    for step in range(1, steps + 1):
        *batch, value = (tensor.to(device) for tensor in lookups(128, generator))
        stepper.zero_grad()
        F.cross_entropy(model(*batch), value).backward()
        stepper.step()
        if step % every == 0:
            with torch.no_grad():
                curve.append((model(*inputs).argmax(-1) == answer).float().mean().item())
    torch.set_flush_denormal(False)
    return curve


def steps_to(curve: list[float], accuracy: float, every: int = 25) -> int | None:
    """Return after how many steps the curve first reaches the accuracy, None if it never does."""
    return next((every * (i + 1) for i, a in enumerate(curve) if a >= accuracy), None)


def run(*, seeds: int, steps: int, dims: list[int]) -> dict[str, Any]:
    """Train every score at every dimension, from two initial scales, with two optimisers."""
    results = {}
    for optimizer, init in (("Adam", "N(0, 1/d)"), ("SGD", "N(0, 1/d)"), ("Adam", "nn.Linear")):
        for dim in dims:
            for name in SCORES:
                curves = [
                    learning_curve(
                        name, dim, steps=steps, seed=seed, optimizer=optimizer, init=init
                    )
                    for seed in range(seeds)
                ]
                results[f"{optimizer}, {init}, d={dim}, {name}"] = {
                    "steps to 90 %": [steps_to(curve, 0.9) for curve in curves],
                    "last accuracy": [round(curve[-1], 4) for curve in curves],
                    "mean curve": [round(mean(points), 4) for points in zip(*curves, strict=True)],
                }
    return results


FULL = {"seeds": 5, "steps": 300, "dims": [8, 64, 256]}
QUICK = {"seeds": 1, "steps": 25, "dims": [8]}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
