"""What becomes of rotary encoding on sequences four times as long as those it was trained on?"""

from __future__ import annotations

import copy
from functools import cache
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from attnbook.datasets import on_cpu
from attnbook.multi_head_attention import MultiHeadAttention
from attnbook.positional_encoding import RotaryEncoding, rotary_angles, rotate
from attnbook.studies import encodings, main
from attnbook.studies.encodings import ASKED, BIN, SYMBOLS, Reader, loss, right, sequences
from attnbook.studies.protocol import chosen, compare, holm, mean_of, tune
from attnbook.studies.runner import Each
from attnbook.training import fit

ARMS = ("as trained", "interpolation", "NTK")


class ByParts(RotaryEncoding):
    """Rotary encoding in which only the slow pairs are slowed down, as in YaRN (section 3.2).

    A pair that turned `high` times or more within the trained length keeps its pace, one that
    turned `low` times or less turns `factor` times slower, and between the share grows evenly.
    """

    def __init__(
        self, dim: int, base: float, *, length: int, factor: float, low: float, high: float
    ) -> None:
        super().__init__(dim, base=base)
        turns = rotary_angles(torch.tensor([float(length)]), dim, base)[0] / (2 * torch.pi)
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        self.pace = kept + (1 - kept) / factor

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Return x rotated."""
        if positions is None:
            positions = torch.arange(x.shape[-2], device=x.device)
        return rotate(x, rotary_angles(positions, self.dim, self.base) * self.pace.to(x.device))


@cache
def trained(
    *, lr: float, steps: int, length: int, seed: int, dim: int, batch_size: int, device: str
) -> Reader:
    """Train a reader with rotary encoding; what a process has trained it keeps."""
    torch.manual_seed(seed)
    model = Reader("rotary", 2 * SYMBOLS, 2 * SYMBOLS, dim=dim).to(device)
    data = drawn(batch_size * steps, length, 100_000 + seed, device)
    fit(model, loss, data, steps=steps, batch_size=batch_size, lr=lr, seed=seed)
    return model


def drawn(count: int, length: int, seed: int, device: str) -> tuple[Tensor, ...]:
    """Return sequences and answers, drawn on the CPU."""
    tensors = sequences(count, length, torch.Generator().manual_seed(seed))
    return tuple(tensor.to(device) for tensor in tensors)


@on_cpu
def stretch(
    *, arm: str, factor: float, lr: float, more_steps: int, short_lr: float, steps: int,
    length: int, long: int, count: int, seed: int, dim: int = 32, batch_size: int = 16,
    bounds: tuple[float, float] = (1, 32), lists: str = "test", device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """Train on short sequences, change the angles, and go on for some steps on long ones.

    `bounds` are those of the arm "by parts".

    Returns the shares of right answers as after the training on short sequences ("before") and as
    at the end ("after"), for each BIN positions up to the long length.
    """
    short = trained(
        lr=short_lr, steps=steps, length=length, seed=seed, dim=dim, batch_size=batch_size,
        device=device,
    )  # fmt: skip
    model = copy.deepcopy(short)
    low, high = bounds
    for attention in model.modules():
        if not isinstance(attention, MultiHeadAttention):
            continue
        rotary = attention.rotary
        assert isinstance(rotary, RotaryEncoding)
        if arm == "by parts":
            attention.rotary = ByParts(
                rotary.dim, rotary.base, length=length, factor=factor, low=low, high=high
            )
        else:
            rotary.interpolation = factor if arm == "interpolation" else 1.0
            rotary.ntk = factor if arm == "NTK" else 1.0
    held_out = {"validation": 200_000, "test": 300_000}[lists] + seed
    before = right(model, count, long, held_out, device)
    data = drawn(batch_size * more_steps, long, 400_000 + seed, device)
    losses = fit(model, loss, data, steps=more_steps, batch_size=batch_size, lr=lr, seed=seed)
    sixth = max(1, more_steps // 6)
    return {
        "before": before,
        "after": right(model, count, long, held_out, device),
        "curve": [round(fmean(losses[n : n + sixth]), 4) for n in range(0, more_steps, sixth)],
    }


def run(
    each: Each,
    *,
    seeds: int,
    steps: int,
    more_steps: int,
    length: int,
    factor: float,
    count: int,
    short_rates: list[float],
    rates: list[float],
    tuning_seeds: int,
    attack_seeds: int,
    longer: int,
) -> dict[str, Any]:
    """Tune the training on short sequences and that on long ones, compare, then attack.

    Measured on the last BIN positions of the short and of the long length. The rate of the short
    training has the most right answers there, that of each arm's further steps has them here.
    """
    long = int(factor * length)
    stretches = {"within": length // BIN - 1, "beyond": long // BIN - 1}
    short = {"arm": "rotary", "steps": steps, "length": length, "count": count}
    tuning = tune(
        each,
        encodings.learn,
        {"on short sequences": {**short, "test_length": long, "lists": "validation"}},
        setting="lr",
        values={"on short sequences": short_rates},
        seeds=tuning_seeds,
        score=lambda found: fmean(found["right"][name][stretches["within"]] for name in ASKED),
    )
    sizes = {
        "factor": factor, "more_steps": more_steps, "steps": steps, "length": length, "long": long,
        "count": count, "short_lr": chosen(tuning)["on short sequences"],
    }  # fmt: skip
    tuning |= tune(
        each,
        stretch,
        {arm: {"arm": arm, **sizes, "lists": "validation"} for arm in ARMS},
        setting="lr",
        values=dict.fromkeys(ARMS, rates),
        seeds=tuning_seeds,
        score=lambda found: fmean(found["after"][name][stretches["beyond"]] for name in ASKED),
    )
    best = chosen(tuning)
    cells = {arm: {"arm": arm, **sizes, "lr": best[arm]} for arm in ARMS}
    runs = repeat(each, cells, range(seeds), "results")
    comparisons = {
        f"{name}, {when}, {where}: {arm} - {rival}": compare(
            at(runs[arm], when, name, place), at(runs[rival], when, name, place)
        )
        for name in ASKED
        for when in ("before", "after")
        for where, place in stretches.items()
        for arm, rival in (("interpolation", "as trained"), ("NTK", "as trained"))
    }
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning,
        "chosen": best,
        "seeds": list(range(seeds)),
        "stretches": stretches,
        "results": {
            arm: {
                when: {name: [row[when][name] for row in rows] for name in ASKED}
                for when in ("before", "after")
            }
            for arm, rows in runs.items()
        },
        "order-blind": encodings.order_blind(long),
        "curve": {arm: mean_of(rows, "curve") for arm, rows in runs.items()},
        "comparisons": holm(comparisons),
        "attacks": attacks(each, cells, stretches, seeds=attack_seeds, longer=longer),
    }


QUESTION = (
    "Without any further training, does interpolation keep the latest marked symbol at the longer "
    "length, and does it lose the third symbol back at the trained one, which NTK keeps?"
)
REFUTED_IF = (
    "Before further steps, the corrected interval of interpolation - as trained holds 0 for the "
    "latest marked symbol beyond or for the third back within; or NTK loses the third back within."
)


def repeat(
    each: Each, cells: dict[str, dict[str, Any]], seeds: range, what: str
) -> dict[str, list[dict[str, Any]]]:
    """Return the results of each cell, one for each seed; a seed's jobs follow each other."""
    jobs = [{**cell, "seed": seed} for seed in seeds for cell in cells.values()]
    found = each(stretch, jobs, what)
    return {name: found[n :: len(cells)] for n, name in enumerate(cells)}


def at(rows: list[dict[str, Any]], when: str, name: str, place: int) -> list[float]:
    """Return the shares of right answers to one question on one stretch, seed by seed."""
    return [row[when][name][place] for row in rows]


def attacks(
    each: Each,
    cells: dict[str, dict[str, Any]],
    stretches: dict[str, int],
    *,
    seeds: int,
    longer: int,
) -> list[dict[str, Any]]:
    """Return what was tried to overturn what the study says, and what came."""

    def changed(**settings: Any) -> dict[str, dict[str, Any]]:
        return {name: {**cell, **settings} for name, cell in cells.items()}

    def scaled(name: str, factor: float) -> dict[str, dict[str, Any]]:
        return {arm: {**c, name: round(c[name] * factor, 6)} for arm, c in cells.items()}

    ntk = {f"NTK, {f:g}": {**cells["NTK"], "factor": f} for f in (8.0, 16.0)}
    parts = {
        f"by parts, bounds {low} and {high}, width {dim}": {
            **cells["NTK"], "arm": "by parts", "bounds": (low, high), "dim": dim
        }
        for low, high in ((1, 5), (1, 32))
        for dim in (32, 64)
    }  # fmt: skip
    rate = cells["NTK"]["lr"]
    slow = {
        name: {**cell, "lr": round(rate / 3, 6), "dim": 64}
        for name, cell in {"NTK": cells["NTK"], **parts}.items()
        if name in ("NTK", "by parts, bounds 1 and 5, width 64")
    }
    fast = {"as trained": {**cells["as trained"], "lr": round(3 * rate, 6)}}
    plan = {
        f"{longer} further steps": (changed(more_steps=longer), range(seeds)),
        "three times the learning rate": (scaled("lr", 3), range(seeds)),
        "a third of the learning rate": (scaled("lr", 1 / 3), range(seeds)),
        "a third of the learning rate on short sequences": (
            scaled("short_lr", 1 / 3),
            range(seeds),
        ),
        "twice the width": (changed(dim=64), range(seeds)),
        "another block of seeds": (cells, range(500, 500 + seeds)),
        "a larger factor for NTK": (ntk, range(seeds)),
        "slowed by parts, as in YaRN": (parts, range(seeds)),
        "twice the width, a third of the learning rate": (slow, range(seeds)),
        "three times NTK's learning rate": (fast, range(seeds)),
    }
    found = []
    for what, (tried, block) in plan.items():
        came = repeat(each, tried, block, f"attack: {what}")
        shares = {
            arm: {
                f"{name}, {when}, {where}": at(rows, when, name, place)
                for name in ASKED
                for when in ("before", "after")
                for where, place in stretches.items()
            }
            for arm, rows in came.items()
        }
        found.append({"tried": what, "came": shares})
    return found


FULL: dict[str, Any] = {
    "seeds": 10,
    "steps": 600,
    "more_steps": 60,
    "length": 32,
    "factor": 4.0,
    "count": 64,
    "short_rates": [0.001, 0.0032, 0.01, 0.032, 0.1],
    "rates": [0.00032, 0.001, 0.0032, 0.01, 0.032],
    "tuning_seeds": 3,
    "attack_seeds": 3,
    "longer": 240,
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "steps": 6,
    "more_steps": 6,
    "length": 16,
    "factor": 2.0,
    "count": 4,
    "short_rates": [0.01],
    "rates": [0.01],
    "tuning_seeds": 1,
    "attack_seeds": 1,
    "longer": 7,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
