"""Does a window of the trained length let rotary encoding read longer texts as it was trained?"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attnbook.datasets import on_cpu
from attnbook.studies import main
from attnbook.studies.encodings import ASKED, BIN, SYMBOLS, Reader, loss, right, sequences
from attnbook.studies.protocol import chosen, compare, holm, mean_of, repeat_all, tune
from attnbook.studies.runner import Each
from attnbook.training import fit

WIDTHS = (16, 32, 64)
OPEN = "no window"


class Window(nn.Module):
    """A bias that hides every key from which the query stands `width` positions away, or more."""

    def __init__(self, width: int, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.width, self.device = width, device

    def forward(self, length: int) -> Float[Tensor, "1 n n"]:
        """Return 0 where a query may look and -inf elsewhere."""
        near = torch.ones(1, length, length, device=self.device).tril().triu(1 - self.width)
        return near.log()


@on_cpu
def learn(
    *, encoding: str, heads: int, lr: float, steps: int, length: int, long: int, count: int,
    seed: int, widths: Sequence[int] = WIDTHS, dim: int = 32, batch_size: int = 16,
    lists: str = "test", device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """Train a reader on sequences of one length; test it on longer ones, open and with windows.

    The windows are put on the trained reader: it has not learned with them.
    """
    torch.manual_seed(seed)
    model = Reader(
        encoding, 2 * SYMBOLS, 2 * SYMBOLS, dim=dim, heads=heads, max_length=long
    ).to(device)  # fmt: skip
    drawn = sequences(batch_size * steps, length, torch.Generator().manual_seed(100_000 + seed))
    data = tuple(tensor.to(device) for tensor in drawn)
    losses = fit(model, loss, data, steps=steps, batch_size=batch_size, lr=lr, seed=seed)
    held_out = {"validation": 200_000, "test": 300_000}[lists] + seed
    found = {OPEN: right(model, count, long, held_out, device)}
    for width in widths:
        model.relative = Window(width, device)  # pyright: ignore[reportAttributeAccessIssue]
        found[f"window of {width}"] = right(model, count, long, held_out, device)
    tenth = max(1, steps // 10)
    curve = [round(fmean(losses[n : n + tenth]), 4) for n in range(0, steps, tenth)]
    return {"right": found, "curve": curve}


def run(
    each: Each,
    *,
    seeds: int,
    steps: int,
    more_steps: int,
    length: int,
    factor: int,
    count: int,
    rates: list[float],
    tuning_seeds: int,
    attack_seeds: int,
) -> dict[str, Any]:
    """Train short readers and look at long sequences through a window; train others there alone.

    The readers from scratch have either the further steps of the study of longer texts, or as many
    tokens as short training and further steps together.
    """
    long = factor * length
    place = long // BIN - 1
    tokens = (steps * length + more_steps * long) // long
    sizes = {"encoding": "rotary", "heads": 4, "long": long, "count": count}
    cells = {
        "short": {**sizes, "steps": steps, "length": length, "widths": WIDTHS},
        "long, the further steps alone": {**sizes, "steps": more_steps, "length": long},
        "long, as many tokens": {**sizes, "steps": tokens, "length": long},
    }
    for name in list(cells)[1:]:
        cells[name]["widths"] = ()
    # The rate of the short readers is the one with which they answer most at their own length.
    scored = dict.fromkeys(cells, place) | {"short": length // BIN - 1}
    tuning = {}
    for name, cell in cells.items():
        tuning |= tune(
            each,
            learn,
            {name: {**cell, "widths": (), "lists": "validation"}},
            setting="lr",
            values={name: rates},
            seeds=tuning_seeds,
            score=lambda found, at=scored[name]: fmean(
                found["right"][OPEN][question][at] for question in ASKED
            ),
        )
    best = chosen(tuning)
    cells = {name: {**cell, "lr": best[name]} for name, cell in cells.items()}
    runs = repeat_all(each, learn, cells, range(seeds), "results")
    results = by_arm(runs)
    compared = [
        ("short, window of 32", f"short, {OPEN}"),
        ("short, window of 32", f"long, as many tokens, {OPEN}"),
        (f"long, as many tokens, {OPEN}", f"long, the further steps alone, {OPEN}"),
    ]
    comparisons = {
        f"{question}, beyond: {arm} - {rival}": compare(
            *([row[place] for row in results[name][question]] for name in (arm, rival))
        )
        for question in ASKED
        for arm, rival in compared
    }
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning,
        "chosen": best,
        "seeds": list(range(seeds)),
        "stretches": {"within": length // BIN - 1, "beyond": place},
        "results": results,
        "curve": {arm: mean_of(rows, "curve") for arm, rows in runs.items()},
        "comparisons": holm(comparisons),
        "attacks": attacks(each, cells["short"], range(attack_seeds)),
    }


QUESTION = (
    "Left as trained, does a rotary reader answer both questions at four times the trained length "
    "if no layer looks further back than that length?"
)
REFUTED_IF = (
    "The corrected interval of the window - no window, beyond, holds 0 or less for either question."
)


def by_arm(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, list[list[float]]]]:
    """Return the shares of right answers, bin by bin, for each arm and window and each seed."""
    return {
        f"{arm}, {window}": {name: [row["right"][window][name] for row in rows] for name in ASKED}
        for arm, rows in runs.items()
        for window in rows[0]["right"]
    }


def attacks(each: Each, short: dict[str, Any], seeds: range) -> list[dict[str, Any]]:
    """Return what was tried to overturn what this study says, and that of the encodings.

    With one head ALiBi has one slope, the flattest; each reader then has three rates to show what
    it can.
    """
    rate = short["lr"]
    plan = {
        "three times the learning rate": ({"rotary": {**short, "lr": round(3 * rate, 6)}}, seeds),
        "a third of the learning rate": ({"rotary": {**short, "lr": round(rate / 3, 6)}}, seeds),
        "twice the width": ({"rotary": {**short, "dim": 64}}, seeds),
        "another block of seeds": ({"rotary": short}, range(500, 500 + len(seeds))),
        "sinusoids in the place of rotary encoding": (
            {"sinusoidal": {**short, "encoding": "sinusoidal"}},
            seeds,
        ),
        "one head": (
            {
                f"{encoding}, rate {lr:g}": {
                    **short, "encoding": encoding, "heads": 1, "lr": lr, "widths": (),
                }
                for encoding in ("T5", "ALiBi", "rotary")
                for lr in (round(rate / 3, 6), rate, round(3 * rate, 6))
            },
            seeds,
        ),
    }  # fmt: skip
    return [
        {"tried": what, "came": by_arm(repeat_all(each, learn, cells, block, f"attack: {what}"))}
        for what, (cells, block) in plan.items()
    ]


FULL: dict[str, Any] = {
    "seeds": 10,
    "steps": 600,
    "more_steps": 60,
    "length": 32,
    "factor": 4,
    "count": 64,
    "rates": [0.001, 0.0032, 0.01, 0.032, 0.1],
    "tuning_seeds": 3,
    "attack_seeds": 3,
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "steps": 6,
    "more_steps": 6,
    "length": 16,
    "factor": 2,
    "count": 4,
    "rates": [0.01],
    "tuning_seeds": 1,
    "attack_seeds": 1,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
