"""How much of the matrix from squeezes to gates does a network need? Cue strips answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnbook.datasets import cue_strip, on_cpu
from attnbook.studies import main
from attnbook.studies.protocol import chosen, compare, holm, mean_of, repeat_all, tune
from attnbook.studies.runner import Each
from attnbook.training import fit

COLOURS = {"mixed": 1, "apart": 3}  # groups of the convolutions: 3 keep red, green and blue apart


class Network(nn.Module):
    """Two convolutions, each with a gate behind it, and a linear layer; no residual connections.

    A number that reaches the linear layer depends on 10 x 10 pixels; only a gate sees further. With
    three groups no filter reads two colours: the channels are 4 red, 4 green, 4 blue, then 8 of
    each, and only a gate and the last layer bring the colours together.
    """

    def __init__(self, gate: Callable[[int], nn.Module], *, groups: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1, groups=groups, bias=False),
            nn.BatchNorm2d(12), nn.ReLU(), gate(12), nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1, groups=groups, bias=False),
            nn.BatchNorm2d(24), nn.ReLU(), gate(24), nn.MaxPool2d(2),
        )  # fmt: skip
        self.logits = nn.Linear(24 * 2 * 7, 10)

    def forward(self, x: Float[Tensor, "b 3 8 28"]) -> Float[Tensor, "b 10"]:
        """Return one logit per digit."""
        return self.logits(rearrange(self.layers(x), "b c h w -> b (c h w)"))


class Gate(nn.Module):
    """Multiply each channel by sigmoid(scores(z)), where z are the means of the channels.

    `offsets` adds a learned number to the score of each channel.
    """

    def __init__(self, scores: nn.Module, channels: int, *, offsets: bool = False) -> None:
        super().__init__()
        self.scores = scores
        self.offsets = nn.Parameter(torch.zeros(channels)) if offsets else 0.0

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x times its gate."""
        y = self.scores(reduce(x, "b c h w -> b c", "mean")) + self.offsets
        return x * rearrange(y.sigmoid(), "b c -> b c 1 1")


class Pattern(nn.Module):
    """W z for a matrix W of which a pattern says what is zero and what is equal.

    `places`, (c, c), has the number of the weight that stands at each place, and -1 where W is
    zero. Initial values are those of nn.Linear and nn.Conv1d, even within 1 / sqrt(n) for n weights
    in a row.
    """

    places: Int[Tensor, "c c"]

    def __init__(self, places: Int[Tensor, "c c"]) -> None:
        super().__init__()
        self.register_buffer("places", places)
        self.weight = nn.Parameter(torch.empty(int(places.max()) + 1))
        edge = int((places >= 0).sum(1).max()) ** -0.5
        nn.init.uniform_(self.weight, -edge, edge)

    def matrix(self) -> Float[Tensor, "c c"]:
        """Return W."""
        return torch.cat([self.weight, self.weight.new_zeros(1)])[self.places]

    def forward(self, z: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        """Return the scores."""
        return z @ self.matrix().T


class Constant(nn.Module):
    """Scores that are learned, and then the same for each image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Parameter(torch.zeros(channels))

    def forward(self, z: Float[Tensor, "b c"]) -> Float[Tensor, "b c"]:
        """Return the scores, whatever z is."""
        return self.score.expand_as(z)


def full(channels: int) -> Int[Tensor, "c c"]:
    """Return the pattern of a matrix with a weight of its own at each place."""
    return torch.arange(channels**2).view(channels, channels)


def band(channels: int, k: int, *, shared: bool, ring: bool = False) -> Int[Tensor, "c c"]:
    """Return the pattern of a band of k diagonals, the same weights in each row or own ones.

    `ring`: the last channel is a neighbour of the first.
    """
    row, column = torch.arange(channels)[:, None], torch.arange(channels)
    j = column - row + k // 2
    if ring:
        j = j.remainder(channels)
    own = 0 if shared else row * k
    return torch.where((j >= 0) & (j < k), j + own, -1)


def blocks(channels: int, size: int) -> Int[Tensor, "c c"]:
    """Return the pattern of groups: a full matrix for each `size` channels, zero between them."""
    row, column = torch.arange(channels)[:, None], torch.arange(channels)
    return torch.where(row // size == column // size, row * size + column % size, -1)


def reordered(places: Int[Tensor, "c c"], order: Int[Tensor, " c"]) -> Int[Tensor, "c c"]:
    """Return the pattern that reads the channels in an order and gives the gates back in theirs."""
    back = order.argsort()
    return places[back][:, back]


def two_layers(channels: int, reduction: int, *, relu: bool, bias: bool) -> nn.Module:
    """Return the two matrices of squeeze-and-excitation."""
    hidden = channels // reduction
    return nn.Sequential(
        nn.Linear(channels, hidden, bias=bias),
        nn.ReLU() if relu else nn.Identity(),
        nn.Linear(hidden, channels, bias=False),
    )


def scores(arm: str, channels: int, *, seed: int = 0, offsets: bool = False) -> nn.Module:
    """Return what takes the squeezes to the scores in an arm."""
    if arm.startswith(("bottleneck", "low rank")):
        reduction = int(arm.rpartition(" ")[2])
        return two_layers(channels, reduction, relu=arm.startswith("bottleneck"), bias=offsets)
    if arm.startswith("ECA"):
        places = band(channels, int(arm.rpartition(" ")[2]), shared=True, ring="ring" in arm)
        if "shuffled" in arm:
            generator = torch.Generator().manual_seed(channels + seed)
            order = torch.randperm(channels, generator=generator, device="cpu")
            places = reordered(places, order)
        return Pattern(places)
    return {
        "constant": lambda: Constant(channels),
        "no weights": nn.Identity,
        "diagonal": lambda: Pattern(band(channels, 1, shared=False)),
        "band, not shared": lambda: Pattern(band(channels, 3, shared=False)),
        "groups of 4": lambda: Pattern(blocks(channels, 4)),
        "full": lambda: Pattern(full(channels)),
    }[arm]()


@on_cpu
def network(arm: str, colours: str, *, seed: int, offsets: bool = False) -> Network:
    """Return the network of an arm. All arms of a seed start with the same convolutions."""

    def gate(channels: int) -> nn.Module:
        if arm == "none":
            return nn.Identity()
        with torch.random.fork_rng(devices=[]):
            mapping = scores(arm, channels, seed=seed, offsets=offsets)
            return Gate(mapping, channels, offsets=offsets)

    torch.manual_seed(seed)
    return Network(gate, groups=COLOURS[colours])


@cache
def images(count: int, seed: int, *, training: bool) -> tuple[Tensor, Tensor]:
    """Return cue strips, drawn once for all arms of a process."""
    return cue_strip(count, training=training, seed=seed)


@torch.no_grad()
def right(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Return the share of right answers."""
    return round((model(data[0]).argmax(-1) == data[1]).float().mean().item(), 4)


@on_cpu
def learn(
    *,
    arm: str,
    colours: str,
    lr: float,
    steps: int,
    seed: int,
    pairs: int = 6000,
    measured: int = 2000,
    offsets: bool = False,
    orders: int = 0,
    measured_on: str = "test",
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one network; return its share of right answers and its loss on the way.

    It is measured on digits that it has not met, or, to choose a rate, on new pairs of those that
    it has. `orders`: how many times the trained gates then meet the channels in a new order.
    """
    model = network(arm, colours, seed=seed, offsets=offsets).to(device)
    data = tuple(part.to(device) for part in images(pairs, seed, training=True))
    test = images(measured, seed + 5000, training=True)
    if measured_on == "test":
        test = images(measured, seed, training=False)
    test = test[0].to(device), test[1].to(device)
    losses = fit(
        model,
        lambda model, x, labels: F.cross_entropy(model(x), labels),
        data,
        steps=steps,
        batch_size=64,
        lr=lr,
        seed=seed,
    )
    bins = max(1, steps // 20)
    found: dict[str, Any] = {
        "right": right(model, test),
        "curve": [round(fmean(losses[n : n + bins]), 4) for n in range(0, steps, bins)],
        "gate parameters": sum(
            p.numel() for m in model.modules() if isinstance(m, Gate) for p in m.parameters()
        ),
    }
    if orders:
        found["shuffled"] = {
            name: shuffled(model, layers, test, orders=orders, seed=seed)
            for name, layers in {"first": [0], "second": [1], "both": [0, 1]}.items()
        }
    return found


def shuffled(
    model: nn.Module, layers: list[int], data: tuple[Tensor, Tensor], *, orders: int, seed: int
) -> list[float]:
    """Return the share of right answers when trained gates meet the channels in other orders.

    `layers` says which of the gates do, counted from the image.
    """
    gates = [m for m in model.modules() if isinstance(m, Pattern)]
    trained = [gate.places for gate in gates]
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(orders):
        for n in layers:
            order = torch.randperm(len(trained[n]), generator=generator, device="cpu")
            order = order.to(trained[n].device)
            gates[n].places = reordered(trained[n], order)
        found.append(right(model, data))
    for gate, places in zip(gates, trained, strict=True):
        gate.places = places
    return found


def run(
    each: Each,
    *,
    seeds: int,
    steps: int,
    longer: int,
    pairs: int,
    measured: int,
    rates: list[float],
    tuning_seeds: int,
    attack_seeds: int,
    orders: int,
) -> dict[str, Any]:
    """Tune and train the network with each gate, shuffle ECA's channels, then attack what came.

    A shuffled ECA has the rate of the one in order; where the colours are mixed it is the same in
    distribution.
    """
    sizes = {"steps": steps, "pairs": pairs, "measured": measured}
    cells: dict[str, dict[str, Any]] = {
        f"{colours}: {arm}": {"arm": arm, "colours": colours, **sizes}
        for colours, arms in ARMS.items()
        for arm in arms
    }
    tuning = tune(
        each,
        learn,
        {name: {**cell, "measured_on": "validation"} for name, cell in cells.items()},
        setting="lr",
        values=dict.fromkeys(cells, rates),
        seeds=tuning_seeds,
        score=lambda found: found["right"],
    )
    best = chosen(tuning)
    cells = {name: {**cell, "lr": best[name]} for name, cell in cells.items()}
    for colours in ARMS:
        ordered = cells[f"{colours}: {ECA}"]
        cells[f"{colours}: {SHUFFLED}"] = {**ordered, "arm": SHUFFLED}
        ordered["orders"] = orders
    runs = repeat_all(each, learn, cells, range(seeds), "results")
    shares = {name: [found["right"] for found in rows] for name, rows in runs.items()}
    after = {
        where: [found["shuffled"][where] for found in runs[f"mixed: {ECA}"]]
        for where in ("first", "second", "both")
    }
    comparisons = {
        f"{colours}: {a} - {b}": compare(shares[f"{colours}: {a}"], shares[f"{colours}: {b}"])
        for colours, pairs in COMPARED.items()
        for a, b in pairs
    }
    comparisons |= {
        f"mixed: {where} shuffled after training - {ECA}": compare(
            [fmean(found) for found in rows], shares[f"mixed: {ECA}"]
        )
        for where, rows in after.items()
    }
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning,
        "chosen": best,
        "seeds": list(range(seeds)),
        "results": {
            "right": shares,
            "gate parameters": {name: rows[0]["gate parameters"] for name, rows in runs.items()},
            "shuffled after training": after,
        },
        "curve": {name: mean_of(rows, "curve") for name, rows in runs.items()},
        "comparisons": holm(comparisons),
        "attacks": attacks(each, cells, seeds=attack_seeds, many=seeds, longer=longer),
    }


ECA, SHUFFLED = "ECA, k = 3", "ECA, shuffled, k = 3"
NARROW = "one hidden number without the ReLU"
RING = "the last channel beside the first, all seeds"
THRICE, THIRD = (f"{what} the learning rate, all seeds" for what in ("three times", "a third of"))
SWEEP = ("ECA, k = 1", ECA, "ECA, k = 5", "ECA, k = 9")
BOTTLENECKS = tuple(f"bottleneck, r = {r}" for r in (2, 4, 12))
NAMED = ("diagonal", ECA, "groups of 4", "full", *BOTTLENECKS[:2])
ARMS = {
    "mixed": (
        "none", "constant", "no weights", "diagonal", *SWEEP,
        "band, not shared", "groups of 4", "full", *BOTTLENECKS,
    ),
    "apart": ("none", "diagonal", *SWEEP, "groups of 4", "full", *BOTTLENECKS[:2]),
}  # fmt: skip
COMPARED = {
    "mixed": (
        *((arm, "none") for arm in ("constant", "no weights", "diagonal")),
        *((arm, "diagonal") for arm in (*BOTTLENECKS, "groups of 4", "full", *SWEEP[:2])),
        *((arm, "full") for arm in (*BOTTLENECKS[:2], "band, not shared", "groups of 4", ECA)),
        *((arm, ECA) for arm in (*BOTTLENECKS, "band, not shared", "groups of 4")),
        *((arm, ECA) for arm in (*SWEEP[:1], *SWEEP[2:], SHUFFLED)),
    ),
    "apart": (
        ("diagonal", "none"), ("groups of 4", "none"), (SWEEP[0], "none"), (ECA, "none"),
        ("full", ECA), (BOTTLENECKS[0], ECA), (BOTTLENECKS[1], ECA), (BOTTLENECKS[1], "full"),
        (SWEEP[2], ECA), (SWEEP[3], ECA), (SHUFFLED, ECA),
    ),
}  # fmt: skip
QUESTION = (
    "Is a gate through a bottleneck worse than one that keeps the direct line from each channel, "
    "a diagonal matrix or ECA's band; and does it matter which channels are neighbours?"
)
REFUTED_IF = (
    "Where filters mix the colours, the bottleneck with r = 2 or 4 is right as often as the "
    "diagonal and as ECA with k = 3, or more often. Where they keep them apart, ECA is right as "
    "often as the full matrix, and in a shuffled order no more often than in order."
)


def attacks(
    each: Each, cells: dict[str, dict[str, Any]], *, seeds: int, many: int, longer: int
) -> list[dict[str, Any]]:
    """Return what was tried to overturn what the study says, and what came.

    The last four have `many` seeds: the narrowest bottleneck without its ReLU, the closed list, and
    ECA and the bottleneck at three times their rates and at a third of them.
    """
    tried = {
        f"{colours}: {arm}": {**cells[f"{colours}: {arm}"], "orders": 0}
        for colours, arms in (("mixed", NAMED), ("apart", (ECA, SHUFFLED, "full", NAMED[-1])))
        for arm in arms
    }

    def changed(**settings: Any) -> dict[str, dict[str, Any]]:
        return {name: {**cell, **settings} for name, cell in tried.items()}

    def scaled(arms: dict[str, dict[str, Any]], factor: float) -> dict[str, dict[str, Any]]:
        return {n: {**cell, "lr": round(cell["lr"] * factor, 6)} for n, cell in arms.items()}

    others = {
        f"{colours}: {arm}": {**tried[f"{colours}: {like}"], "arm": arm}
        for colours, arm, like in (
            ("mixed", "low rank, r = 2", BOTTLENECKS[0]),
            ("mixed", "low rank, r = 4", BOTTLENECKS[1]),
            ("mixed", "ECA, ring, k = 3", ECA),
            ("apart", "low rank, r = 4", BOTTLENECKS[1]),
            ("apart", "ECA, ring, k = 3", ECA),
        )
    }
    plan = {
        f"{longer} steps": changed(steps=longer),
        "three times the learning rate": scaled(tried, 3),
        "a third of the learning rate": scaled(tried, 1 / 3),
        "another block of seeds": tried,
        "an offset for each channel, and biases in the bottleneck": changed(offsets=True),
        "two matrices without the ReLU; the last channel beside the first": others,
    }
    narrow = {**cells[f"mixed: {BOTTLENECKS[2]}"], "arm": "low rank, r = 12", "orders": 0}
    plan[NARROW] = {"mixed: low rank, r = 12": narrow}
    plan[RING] = {name: cell for name, cell in others.items() if "ring" in name}
    names = (f"mixed: {arm}" for arm in (*SWEEP[:2], *BOTTLENECKS[:2]))
    rivals = {name: {**cells[name], "orders": 0} for name in names}
    plan[THRICE], plan[THIRD] = scaled(rivals, 3), scaled(rivals, 1 / 3)
    blocks = {
        "another block of seeds": range(500, 500 + seeds),
        **dict.fromkeys((NARROW, RING, THRICE, THIRD), range(many)),
    }
    found = []
    for what, arms in plan.items() if seeds else ():
        block = blocks.get(what, range(seeds))
        rows = repeat_all(each, learn, arms, block, f"attack: {what}")
        came = {name: [one["right"] for one in runs] for name, runs in rows.items()}
        found.append({"tried": what, "came": came})
    return found


FULL: dict[str, Any] = {
    "seeds": 10,
    "steps": 240,
    "longer": 720,
    "pairs": 6000,
    "measured": 2000,
    "rates": [0.0016, 0.005, 0.016, 0.05, 0.16],
    "tuning_seeds": 2,
    "attack_seeds": 3,
    "orders": 5,
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "steps": 6,
    "longer": 7,
    "pairs": 64,
    "measured": 32,
    "rates": [0.05],
    "tuning_seeds": 1,
    "attack_seeds": 0,
    "orders": 1,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
