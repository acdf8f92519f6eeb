"""Digits turned by up to 90 degrees: what a spatial transformer learns, and what beyond 90."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from attnbook.datasets import on_cpu
from attnbook.studies import main, warps

NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "FCN": lambda: warps.dense(warps.DIGIT, 111),
    "ST-FCN": lambda: warps.warped_dense(warps.DIGIT, 84),
    "ST-FCN, default start": lambda: warps.warped_dense(warps.DIGIT, 84, identity=False),
    "CNN": lambda: warps.convolutional(warps.DIGIT, 363),
}
BINS = [(0, 30), (30, 60), (60, 90), (90, 120), (120, 150), (150, 180)]  # degrees, either way


@on_cpu
def error_by_angle(model: nn.Module) -> list[float]:
    """Return the error on held-out digits for each range of angles; three were trained on."""
    _, (digits, labels) = warps.split()
    errors = []
    for low, high in BINS:
        generator = torch.Generator().manual_seed(high)
        angles = low + (high - low) * torch.rand(len(digits), generator=generator)
        signs = torch.randint(2, (len(digits),), generator=generator) * 2 - 1
        pose = warps.poses(warps.R, len(digits), generator, degrees=signs * angles)
        errors.append(warps.error(model, warps.R, digits, labels, pose))
    return errors


def run(*, seeds: int, steps: int) -> dict[str, Any]:
    """Train four networks on turned digits, and test them on angles they never met as well."""
    found, trained = warps.compare(NETWORKS, warps.R, seeds=seeds, steps=steps)
    for name, models in trained.items():
        found[name]["error by angle"] = [error_by_angle(model) for model in models]
    return found


FULL: dict[str, Any] = {"seeds": 5, "steps": 1200}
QUICK: dict[str, Any] = {"seeds": 1, "steps": 6}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
