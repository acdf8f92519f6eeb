"""What lets a network use what lies beyond its receptive field? Two digits and a cue.

What was left after the attacks: without a product of cue and digits, or a nonlinearity behind their
sum, the cue cannot decide, however long a network trains. A gate for each channel does it if a
layer with a ReLU follows, and so does context that is added before a ReLU. With a linear layer
alone behind it a gate did not learn it in the steps tried here. A hidden layer needs three times
the steps, and gates that trained as long stay ahead of it; one gate for a whole layer is a product,
too, and nine of ten seeds fail with it. In other seeds a bottleneck of four died, one of eight in
none of ten.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnbook import costs
from attnbook.cbam import CBAM
from attnbook.datasets import cue_strip, on_cpu
from attnbook.eca import EfficientChannelAttention
from attnbook.squeeze_excitation import SqueezeExcitation
from attnbook.studies import main
from attnbook.studies.protocol import chosen, compare, holm, mean_of, repeat_all, tune
from attnbook.studies.runner import Each
from attnbook.training import fit

PAIRS, MEASURED = 3000, 2000  # pictures to learn from, and to measure with
VALIDATION = 200_000  # added to a seed: pairs that are new, of the digits that are learned from


class GatedNetwork(nn.Module):
    """Two convolutions, each with a gate behind it, and a linear layer; no residual connections.

    `gate(channels)` makes the module that stands behind each convolution; nn.Identity is no gate.
    A number that reaches the linear layer depends on 10 x 10 pixels and no further, as long as the
    gates do not look further: on a cue strip, none sees both a digit and the cue. With `hidden`
    there are two linear layers, and a ReLU between them.
    """

    def __init__(
        self, gate: Callable[[int], nn.Module], *, hidden: int | None = None, width: int = 28
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), gate(16),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), gate(32),
            nn.MaxPool2d(2),
        )  # fmt: skip
        read = 32 * 2 * (width // 4)
        self.logits = (
            nn.Linear(read, 10)
            if hidden is None
            else nn.Sequential(nn.Linear(read, hidden), nn.ReLU(), nn.Linear(hidden, 10))
        )

    def forward(self, x: Float[Tensor, "b 3 8 w"]) -> Float[Tensor, "b 10"]:
        """Return one logit per digit."""
        return self.logits(rearrange(self.layers(x), "b c h w -> b (c h w)"))


class ConstantGate(nn.Module):
    """A gate that is learned and then the same for every image: sigmoid of one number a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x times its gate."""
        return x * self.logit.sigmoid()


class OneNumber(nn.Module):
    """A gate for the whole layer: one number for all channels, computed as in SE from all means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.ReLU(), nn.Linear(channels // 4, 1), nn.Sigmoid()
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x times its gate."""
        return x * rearrange(self.mlp(reduce(x, "b c h w -> b c", "mean")), "b 1 -> b 1 1 1")


class AddedContext(nn.Module):
    """Add W z + b to every place, z being the means of all channels; nothing is multiplied."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x plus its context."""
        return x + rearrange(self.linear(reduce(x, "b c h w -> b c", "mean")), "b c -> b c 1 1")


class NoSqueeze(SqueezeExcitation):
    """A gate for each channel and each place, computed from that place alone: nothing is pooled."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, reduction=4)

    def gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return what each channel is multiplied by at each place."""
        return self.fc2(self.fc1(x).relu()).sigmoid()


def added_last(channels: int) -> nn.Module:
    """Return context that is added behind the last convolution alone: only sums follow."""
    return AddedContext(channels) if channels == 32 else nn.Identity()


GATES: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "constant": ConstantGate,
    "squeeze-and-excitation": lambda channels: SqueezeExcitation(channels, 4),
    "ECA": lambda channels: EfficientChannelAttention(kernel_size=3),
    "CBAM": lambda channels: CBAM(channels, 4),
    "none, hidden layer": lambda channels: nn.Identity(),
    "one number a layer": OneNumber,
    "no squeeze": NoSqueeze,
    "added, then ReLU": lambda channels: nn.Sequential(AddedContext(channels), nn.ReLU()),
    "added last": added_last,
    "r = 2": lambda channels: SqueezeExcitation(channels, 2),
    "r = 8": lambda channels: SqueezeExcitation(channels, 8),
    "r = 16": lambda channels: SqueezeExcitation(channels, 16),
}


def alone(arm: str, channels: int) -> Callable[[int], nn.Module]:
    """Return the gate of an arm for the convolution with that many channels, none for the other."""
    return lambda there: GATES[arm](there) if there == channels else nn.Identity()


LATE = "squeeze-and-excitation, second convolution alone"
# What an attack adds. A linear layer alone follows what stands behind the second convolution.
ONE_PLACE: dict[str, Callable[[int], nn.Module]] = {
    "squeeze-and-excitation, first convolution alone": alone("squeeze-and-excitation", 16),
    LATE: alone("squeeze-and-excitation", 32),
    "added, then ReLU, second convolution alone": alone("added, then ReLU", 32),
}
EIGHT = {"eight hidden numbers": lambda channels: SqueezeExcitation(channels, hidden_channels=8)}


@on_cpu
def train(
    arm: str,
    *,
    seed: int,
    lr: float = 0.01,
    steps: int = 400,
    hidden: int | None = None,
    gap: int = 8,
    device: torch.device | str = "cpu",
) -> tuple[GatedNetwork, list[float]]:
    """Return a network trained on cue strips drawn with the seed, and its losses."""
    torch.manual_seed(seed)
    gate = (GATES | ONE_PLACE | EIGHT)[arm]
    model = GatedNetwork(gate, hidden=hidden, width=20 + gap).to(device)
    images, labels = (part.to(device) for part in pictures(seed, training=True))
    losses = fit(
        model,
        lambda model, x, labels: F.cross_entropy(model(x), labels),
        (nearer(images, gap), labels),
        steps=steps,
        batch_size=32,
        lr=lr,
        seed=seed,
    )
    return model, losses


@cache
def pictures(seed: int, *, training: bool) -> tuple[Tensor, Tensor]:
    """Return the cue strips of a seed."""
    return cue_strip(PAIRS if training else MEASURED, training=training, seed=seed)


def nearer(images: Float[Tensor, "b 3 8 28"], gap: int) -> Float[Tensor, "b 3 8 w"]:
    """Return the pictures with fewer empty columns between the digits and the cue."""
    return torch.cat([images[..., : 8 + gap], images[..., 16:]], dim=-1)


def learn(
    *,
    arm: str,
    lr: float,
    steps: int,
    seed: int,
    measured: str = "test",
    hidden: int | None = None,
    gap: int = 8,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one network; return its share of right answers on pictures that it has not seen.

    For the choice of a learning rate these are new pairs of the digits that it learns from, for
    the results pairs of other digits.
    """
    model, losses = train(arm, seed=seed, lr=lr, steps=steps, hidden=hidden, gap=gap, device=device)
    other = measured == "validation"
    drawn = cue_strip(MEASURED, training=True, seed=VALIDATION + seed) if other else None
    images, labels = (part.to(device) for part in drawn or pictures(seed, training=False))
    with torch.no_grad():
        right = model(nearer(images, gap)).argmax(-1) == labels
    bins = max(1, steps // 10)
    return {
        "right": round(right.float().mean().item(), 4),
        "curve": [round(fmean(losses[n : n + bins]), 4) for n in range(0, steps, bins)],
    }


def run(
    each: Each,
    *,
    seeds: int,
    steps: int,
    longer: int,
    rates: list[float],
    tuning_seeds: int,
    attack_seeds: int,
    hidden: int,
) -> dict[str, Any]:
    """Tune and train each network, compare them, then attack what came.

    ECA, CBAM and other reductions take the learning rate of squeeze-and-excitation.
    """
    cells: dict[str, dict[str, Any]] = {arm: {"arm": arm, "steps": steps} for arm in GATES}
    cells["none, hidden layer"]["hidden"] = hidden
    tuned = {arm: cell for arm, cell in cells.items() if arm not in UNTUNED}
    tuning = tune_rates(each, tuned, rates=rates, seeds=tuning_seeds)
    best = chosen(tuning)
    cells = {
        arm: {**cell, "lr": best[arm if arm in tuned else "squeeze-and-excitation"]}
        for arm, cell in cells.items()
    }
    sizes = {arm: size(arm, cell.get("hidden")) for arm, cell in cells.items()}
    cells |= {f"{arm}, {longer} steps": {**cells[arm], "steps": longer} for arm in SLOW}
    runs = repeat_all(each, learn, cells, range(seeds), "results")
    right = {arm: [found["right"] for found in rows] for arm, rows in runs.items()}
    gated = right["squeeze-and-excitation"]
    comparisons = {f"{arm} - none": compare(right[arm], right["none"]) for arm in [*right][1:]}
    for arm in [*right][2:]:
        if arm != "squeeze-and-excitation":
            comparisons[f"{arm} - squeeze-and-excitation"] = compare(right[arm], gated)
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning,
        "chosen": best,
        "seeds": list(range(seeds)),
        "results": right,
        "costs": sizes,
        "curve": {arm: mean_of(rows, "curve") for arm, rows in runs.items()},
        "comparisons": holm(comparisons),
        "attacks": [
            *attacks(each, cells, seeds=attack_seeds, longer=longer),
            one_place(
                each,
                {arm: {"arm": arm, "steps": steps} for arm in ONE_PLACE},
                seeds=seeds,
                longer_seeds=attack_seeds,
                longer=longer,
                rates=rates,
                tuning_seeds=tuning_seeds,
            ),
            eight_hidden(each, cells["squeeze-and-excitation"], seeds=seeds),
        ],
    }


def tune_rates(
    each: Each, cells: dict[str, dict[str, Any]], *, rates: list[float], seeds: int
) -> dict[str, dict[str, float]]:
    """Return for each network the share of right validation answers at each learning rate."""
    return tune(
        each,
        learn,
        {arm: {**cell, "measured": "validation"} for arm, cell in cells.items()},
        setting="lr",
        values=dict.fromkeys(cells, rates),
        seeds=seeds,
        score=lambda found: found["right"],
    )


UNTUNED = "ECA", "CBAM", "r = 2", "r = 8", "r = 16"
SLOW = "none, hidden layer", "one number a layer"  # they are not done when the others are
QUESTION = (
    "Does a network whose receptive fields hold either the digits or the cue name the digit that "
    "the cue asks for only if the two meet in a product, or in a sum with a nonlinearity behind it?"
)
REFUTED_IF = (
    "Without either (no gate, a constant one, one without a squeeze, context added last) more than "
    "three of four pictures are right, which is the most that a sum can get; or with either fewer."
)


@on_cpu
def size(arm: str, hidden: int | None) -> dict[str, int]:
    """Return a network's parameters, and its multiply-adds for one picture."""
    model = GatedNetwork(GATES[arm], hidden=hidden)
    counted = costs.multiply_adds(model.eval(), torch.zeros(1, 3, 8, 28))
    return {"parameters": costs.parameters(model), "multiply-adds": counted}


def attacks(
    each: Each, cells: dict[str, dict[str, Any]], *, seeds: int, longer: int
) -> list[dict[str, Any]]:
    """Return what was tried to overturn what the study says, and what came."""
    sums = "none", "constant", "no squeeze", "added last"
    meet = "squeeze-and-excitation", "added, then ReLU", "none, hidden layer", "one number a layer"

    def changed(*arms: str, **settings: Any) -> dict[str, dict[str, Any]]:
        return {arm: {**cells[arm], **settings} for arm in arms}

    def at(factor: float) -> dict[str, dict[str, Any]]:
        return {
            arm: {**cells[arm], "lr": round(cells[arm]["lr"] * factor, 6)}
            for arm in ("none", *meet)
        }

    read_out = cells["none, hidden layer"]
    plan = {
        f"{longer} steps": (changed(*sums, *meet[:2], steps=longer), 0),
        "three times the learning rate": (at(3), 0),
        "a third of the learning rate": (at(1 / 3), 0),
        "another block of seeds": (changed("none", *meet), 500),
        "a hidden layer of another size": (
            {f"{n} units": {**read_out, "hidden": n} for n in (16, 256)},
            0,
        ),
        "the strip 8 columns nearer, so that receptive fields hold digits and cue": (
            changed("none", "squeeze-and-excitation", gap=0),
            0,
        ),
        f"{longer} steps for the strongest rivals": (
            {
                "256 units": {**read_out, "hidden": 256, "steps": longer},
                "none, the strip 8 columns nearer": {**cells["none"], "gap": 0, "steps": longer},
            },
            0,
        ),
    }
    return [
        {
            "tried": what,
            "came": {
                arm: [found["right"] for found in rows]
                for arm, rows in repeat_all(
                    each, learn, tried, range(first, first + seeds), f"attack: {what}"
                ).items()
            },
        }
        for what, (tried, first) in plan.items()
    ]


def one_place(
    each: Each,
    cells: dict[str, dict[str, Any]],
    *,
    seeds: int,
    longer_seeds: int,
    longer: int,
    rates: list[float],
    tuning_seeds: int,
) -> dict[str, Any]:
    """Return what came with a gate, or a sum before a ReLU, behind one convolution alone.

    Gates behind the second alone learn late, so they are also trained for longer, and faster.
    """
    what = "behind one convolution alone"
    tuning = tune_rates(each, cells, rates=rates, seeds=tuning_seeds)
    best = chosen(tuning)
    cells = {arm: {**cell, "lr": best[arm]} for arm, cell in cells.items()}
    long = {f"{arm}, {longer} steps": {**cell, "steps": longer} for arm, cell in cells.items()}
    runs = repeat_all(each, learn, cells, range(seeds), f"attack: {what}")
    runs |= repeat_all(each, learn, long, range(longer_seeds), f"attack: {what}, longer")
    late, faster = cells[LATE], round(3 * cells[LATE]["lr"], 6)
    late_cells = {
        f"{LATE}, {2 * longer} steps": {**late, "steps": 2 * longer},
        f"{LATE}, {longer} steps at {faster:g}": {**late, "steps": longer, "lr": faster},
    }
    runs |= repeat_all(each, learn, late_cells, range(seeds), f"attack: {what}, late")
    came = {arm: [found["right"] for found in rows] for arm, rows in runs.items()}
    return {"tried": what, "tuning": tuning, "came": came}


def eight_hidden(each: Each, cell: dict[str, Any], *, seeds: int) -> dict[str, Any]:
    """Return what came with other seeds, with bottlenecks of r = 4 and of eight numbers."""
    what = "another block of seeds, bottlenecks of r = 4 and of eight numbers"
    cells = {arm: {**cell, "arm": arm} for arm in ("squeeze-and-excitation", *EIGHT)}
    runs = repeat_all(each, learn, cells, range(500, 500 + seeds), f"attack: {what}")
    came = {arm: [found["right"] for found in rows] for arm, rows in runs.items()}
    return {"tried": what, "came": came}


FULL: dict[str, Any] = {
    "seeds": 10,
    "steps": 400,
    "longer": 1200,
    "rates": [0.001, 0.0032, 0.01, 0.032, 0.1],
    "tuning_seeds": 3,
    "attack_seeds": 3,
    "hidden": 64,
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "steps": 6,
    "longer": 7,
    "rates": [0.01],
    "tuning_seeds": 1,
    "attack_seeds": 1,
    "hidden": 4,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
