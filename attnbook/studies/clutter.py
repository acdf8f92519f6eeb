"""Does the mask of a trained CBAM find a digit among pieces of digits, or only its usual place?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnbook.cbam import CBAM, ChannelAttention, SpatialAttention
from attnbook.datasets import mnist, on_cpu
from attnbook.studies import main
from attnbook.studies.protocol import chosen, compare, holm, mean_of, repeat_all, tune
from attnbook.studies.runner import Each
from attnbook.training import fit

SIDE = 28  # of the canvas
CLASSES = 5  # digits below are drawn
INK = 0.3  # a pixel at least this bright is ink
PARTS = {"training": (0, 1500), "validation": (1500, 2000), "test": (2000, 2500)}
LOOKED_AT = 100  # pictures whose masks are scored
MASKS = ("mask 1", "mask 2")


@on_cpu
def cluttered(
    count: int, *, part: str, seed: int, piece: int = 6
) -> tuple[Float[Tensor, "count 1 28 28"], Int[Tensor, " count"], Float[Tensor, "count 1 28 28"]]:
    """Return pictures of one digit among three pieces of digits, its label, and the digit alone.

    Digits are those of `mnist` at half their size, 14 x 14; pieces are squares of side `piece`, cut
    from the middle. Both lie at random places, and where they overlap the brighter one shows. Each
    of the `PARTS` draws from its own images, in a fixed shuffled order.
    """
    images, labels = small_digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    pool = order[slice(*PARTS[part])]
    generator = torch.Generator().manual_seed(3 * seed + list(PARTS).index(part))

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    picked = pool[draw(len(pool), count)]
    alone = torch.zeros(count, SIDE, SIDE)
    paste(alone, images[picked], draw(SIDE - 14 + 1, 2, count))
    pictures = alone.clone()
    rows = torch.arange(count)
    margin, side = (14 - piece - 4) // 2, torch.arange(piece)
    for _ in range(3):
        others = images[pool[draw(len(pool), count)]]
        y, x = (rearrange(start, "n -> n 1") + side for start in margin + draw(5, 2, count))
        pieces = others[rows[:, None, None], y[:, :, None], x[:, None, :]]
        paste(pictures, pieces, draw(SIDE - piece + 1, 2, count))
    return pictures[:, None], labels[picked], alone[:, None]


@cache
def small_digits() -> tuple[Float[Tensor, "5000 14 14"], Int[Tensor, " 5000"]]:
    """Return the images of `mnist` at half their size, and their labels."""
    images, labels = mnist()
    images, labels = images[labels < CLASSES], labels[labels < CLASSES]
    return reduce(images, "n (y dy) (x dx) -> n y x", "mean", dy=2, dx=2), labels


def paste(
    canvas: Float[Tensor, "n side side"],
    pieces: Float[Tensor, "n size size"],
    place: Int[Tensor, "2 n"],
) -> None:
    """Lay a piece on each canvas, its corner at (y, x) = place, where it is the brighter one."""
    row = torch.arange(len(canvas), device=canvas.device)[:, None, None]
    size = torch.arange(pieces.shape[-1], device=canvas.device)
    y, x = (rearrange(start, "n -> n 1") + size for start in place)
    at = row, y[:, :, None], x[:, None, :]
    canvas[at] = torch.maximum(canvas[at], pieces)


class ClutterNetwork(nn.Module):
    """A stem and two blocks with a gate each; the digit is read from each channel's maximum.

    A block is ReLU(gate(BatchNorm(conv(x)))), the authors' order; with `shortcuts`, x is added
    before the ReLU, as in their ResNet, through a 1 x 1 convolution where channels differ.
    """

    def __init__(self, gate: Callable[[int], nn.Module], *, shortcuts: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16))
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24))
            for c in (16, 24)
        )
        self.logits = nn.Linear(24, CLASSES)
        if shortcuts:
            first = nn.Sequential(nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24))
            self.shortcuts = nn.ModuleList([first, nn.Identity()])
        else:
            self.shortcuts = None
        self.gates = nn.ModuleList([gate(24), gate(24)])

    def forward(self, x: Float[Tensor, "b 1 28 28"]) -> Float[Tensor, "b classes"]:
        """Return one logit per digit."""
        return self.logits(reduce(self.blocks(x)[0], "b c h w -> b c", "max"))

    def blocks(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what leaves the second block, and what both gates are given."""
        x, given = F.relu(self.stem(x)), []
        for n, (branch, gate) in enumerate(zip(self.branches, self.gates, strict=True)):
            x = F.max_pool2d(x, 2) if n else x
            given.append(branch(x))
            gated = gate(given[-1])
            x = F.relu(gated if self.shortcuts is None else gated + self.shortcuts[n](x))
        return x, given


class GateBehindReLU(ClutterNetwork):
    """The same layers with the gate behind the ReLU, and the shortcut added to what it gates."""

    def blocks(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what leaves the second block, and what both gates are given."""
        x, given = F.relu(self.stem(x)), []
        for n, (branch, gate) in enumerate(zip(self.branches, self.gates, strict=True)):
            x = F.max_pool2d(x, 2) if n else x
            given.append(F.relu(branch(x)))
            gated = gate(given[-1])
            x = gated if self.shortcuts is None else gated + self.shortcuts[n](x)
        return x, given


class MeanHead(ClutterNetwork):
    """The same network, with the digit read from each channel's mean."""

    def forward(self, x: Float[Tensor, "b 1 28 28"]) -> Float[Tensor, "b classes"]:
        """Return one logit per digit."""
        return self.logits(reduce(self.blocks(x)[0], "b c h w -> b c", "mean"))


class Parallel(nn.Module):
    """Both gates of CBAM, computed from the same x: output = x * channel gate * spatial gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel, self.spatial = ChannelAttention(channels, 4), SpatialAttention()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x times both gates."""
        return x * self.channel.gate(x) * self.spatial.gate(x)


class FixedMask(nn.Module):
    """A mask that is learned, and the same for all pictures; at the start every number is 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, 1, SIDE // 2, SIDE // 2))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x times the mask, which is averaged to the size of a smaller map."""
        height, width = x.shape[-2:]
        return x * F.adaptive_avg_pool2d(self.logits, (height, width)).sigmoid()


class Half(nn.Module):
    """What a new mask does before it has learned anything: all is multiplied by 0.5."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return half of x."""
        return x / 2


SPATIAL_ALONE = "spatial gate alone"


def spatial_alone(channels: int) -> CBAM:
    """Return CBAM without its channel gate, so that its mask is looked at in the same way."""
    gate = CBAM(channels, 4)
    gate.register_module("channel", nn.Identity())
    return gate


GATES: dict[str, Callable[[int], nn.Module]] = {
    "no gate": lambda channels: nn.Identity(),
    "channel gate alone": lambda channels: ChannelAttention(channels, 4),
    SPATIAL_ALONE: spatial_alone,
    "channel, then spatial": lambda channels: CBAM(channels, 4),
    "spatial, then channel": lambda channels: nn.Sequential(
        SpatialAttention(), ChannelAttention(channels, 4)
    ),
    "parallel": Parallel,
    "channel, then spatial, 3 x 3": lambda channels: CBAM(channels, 4, kernel_size=3),
    "fixed mask": lambda channels: FixedMask(),
    "half": lambda channels: Half(),
}
CHANNEL_FIRST = "channel, then spatial"


@on_cpu
def network(
    arm: str,
    *,
    weight: float = 0.0,
    shortcuts: bool = False,
    behind_relu: bool = False,
    mean_head: bool = False,
    second: str = "",
    readout: float = 1.0,
) -> ClutterNetwork:
    """Return the network of one arm; one seed gives the same convolutions in all of them.

    `weight` is where the batch normalisation of each mask starts: at 0, as in the authors' code,
    every mask starts at 0.5; 1 is PyTorch's start. `second` names another gate for the second
    block, and by `readout` the numbers with which the last layer starts are multiplied.
    """
    kind = MeanHead if mean_head else GateBehindReLU if behind_relu else ClutterNetwork
    model = kind(GATES[arm], shortcuts=shortcuts)
    for part in model.gates.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.constant_(part.weight, weight)
    if second:
        model.gates[1] = GATES[second](24)
    with torch.no_grad():
        for numbers in model.logits.parameters():
            numbers.mul_(readout)
    return model


@on_cpu
def learn(
    *,
    arm: str,
    lr: float,
    steps: int,
    seed: int,
    weight: float = 0.0,
    shortcuts: bool = False,
    behind_relu: bool = False,
    mean_head: bool = False,
    second: str = "",
    readout: float = 1.0,
    piece: int = 6,
    measured_on: str = "test",
    tested: int = 1000,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one network on pictures that it sees once; return its share of right answers.

    And its losses; and, on test pictures, where its masks lie, if it has CBAM's. Their averages
    are those over as many training pictures as are tested.
    """
    torch.manual_seed(seed)
    options: dict[str, Any] = {"shortcuts": shortcuts, "behind_relu": behind_relu}
    options |= {"weight": weight, "mean_head": mean_head, "second": second, "readout": readout}
    model = network(arm, **options).to(device)
    images, labels, _ = cluttered(32 * steps, part="training", seed=seed, piece=piece)
    losses = fit(
        model,
        lambda model, x, labels: F.cross_entropy(model(x), labels),
        (images.to(device), labels.to(device)),
        steps=steps,
        batch_size=32,
        lr=lr,
        seed=seed,
    )
    drawn = cluttered(tested, part=measured_on, seed=seed, piece=piece)
    pictures, answers, alone = (tensor.to(device) for tensor in drawn)
    bins = max(1, steps // 20)
    found: dict[str, Any] = {
        "curve": [round(fmean(losses[n : n + bins]), 4) for n in range(0, steps, bins)]
    }
    with torch.no_grad():
        found["right"] = accuracy(model, pictures, answers)
        if measured_on == "test" and isinstance(model.gates[0], CBAM):
            others, *_ = cluttered(tested, part="training", seed=seed + 5000, piece=piece)
            usual = [mask.mean(0, keepdim=True) for mask, *_ in masks(model, others.to(device))]
            best = best_by_place(piece).to(device)
            found |= looked_into(model, pictures[:LOOKED_AT], alone[:LOOKED_AT], usual, best)
            found["replaced"] = {
                name: accuracy_with(change, usual, model, pictures, answers)
                for name, change in REPLACED.items()
            }
        elif measured_on == "test" and arm == "no gate":
            x = pictures[:LOOKED_AT]
            planes = [reduce(a, "b c h w -> b 1 h w", "max") for a in model.blocks(x)[1]]
            found["maps"] = {"maximum": scored(planes, x, alone[:LOOKED_AT])}
    return found


def looked_into(
    model: ClutterNetwork, pictures: Tensor, alone: Tensor, usual: list[Tensor], best: Tensor
) -> dict[str, Any]:
    """Return how masks, their averages over other pictures, and what they read lie on the digit."""
    found = masks(model, pictures)
    maps = {
        "mask": [mask for mask, _, _ in found],
        "its average": usual,
        "mean that it reads": [mean for _, mean, _ in found],
        "maximum that it reads": [most for _, _, most in found],
        "best by place": len(found) * [best],
    }
    return {
        "maps": {name: scored(each, pictures, alone) for name, each in maps.items()},
        "example": [hundredths(mask[:2, 0]) for mask in maps["mask"]],
        "example, average": [hundredths(average[0, 0]) for average in usual],
    }


@cache
@on_cpu
def best_by_place(piece: int) -> Float[Tensor, "1 1 28 28"]:
    """Return how much more often the digit's ink lies at a place than a piece's, by 4,000 counts.

    No map that never sees the picture can find the digit more often, but for the error of counting.
    """
    pictures, _, alone = cluttered(4000, part="training", seed=9000, piece=piece)
    ink, digit = pictures > INK, alone > INK
    often = digit.float().mean(0) / ((ink & ~digit).float().mean(0) + 1e-3)
    return often[None]


def hundredths(mask: Tensor) -> list[Any]:
    """Return the mask in whole hundredths."""
    return (100 * mask).round().int().tolist()


def masks(
    model: ClutterNetwork, pictures: Float[Tensor, "b 1 28 28"]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return each block's mask in a network with CBAM, and the two planes it is made from."""
    found = []
    gates: Any = model.gates
    for x, gate in zip(model.blocks(pictures)[1], gates, strict=True):
        gated = gate.channel(x)
        mean, most = (reduce(gated, "b c h w -> b 1 h w", how) for how in ("mean", "max"))
        found.append((gate.spatial.gate(gated), mean, most))
    return found


def area_under_curve(high: Tensor, low: Tensor) -> float:
    """Return how often a number of `high` exceeds one of `low`, ties counted half."""
    difference = rearrange(high, "n -> n 1") - low
    return ((difference > 0).float() + 0.5 * (difference == 0)).mean().item()


def scored(
    maps: list[Tensor], pictures: Float[Tensor, "b 1 28 28"], alone: Float[Tensor, "b 1 28 28"]
) -> dict[str, list[float]]:
    """Return for each map how often it finds the digit, in two ways, in the mean of the pictures.

    `digit or piece`: how often it is larger on a pixel of the digit's ink than on one of a piece's.
    `largest at the digit`: whether its largest value lies within 2 pixels of the digit's ink.
    """
    digit, near = alone > INK, near_digit(alone)
    pieces = (pictures > INK) & ~digit
    seen = [n for n in range(len(alone)) if pieces[n].any()]
    found: dict[str, list[float]] = {"digit or piece": [], "largest at the digit": []}
    for small in maps:
        large = F.interpolate(small, size=SIDE, mode="bilinear", align_corners=False)
        large = large.expand(len(alone), -1, -1, -1)
        best = large == reduce(large, "b 1 h w -> b 1 1 1", "max")
        areas = [area_under_curve(large[n][digit[n]], large[n][pieces[n]]) for n in seen]
        hits = [n[b].float().mean().item() for n, b in zip(near, best, strict=True)]
        for name, numbers in zip(found, (areas, hits), strict=True):
            found[name].append(round(fmean(numbers), 4))
    return found


def near_digit(alone: Float[Tensor, "b 1 28 28"]) -> Bool[Tensor, "b 1 28 28"]:
    """Return which pixels lie within 2 pixels of the digit's ink."""
    return F.max_pool2d(alone, 5, stride=1, padding=2) > INK


def accuracy(model: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    """Return the share of right answers."""
    return round((model(pictures).argmax(-1) == labels).float().mean().item(), 4)


# What stands in for a mask, made from it and from its average over other pictures.
REPLACED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "its average": lambda mask, usual: usual.expand_as(mask),
    "its mean over the places": lambda mask, usual: reduce(mask, "b 1 h w -> b 1 1 1", "mean"),
    "that of another picture": lambda mask, usual: mask.roll(1, 0),
}


def accuracy_with(
    change: Callable[[Tensor, Tensor], Tensor],
    usual: list[Tensor],
    model: ClutterNetwork,
    pictures: Tensor,
    labels: Tensor,
) -> float:
    """Return the share of right answers with every mask replaced by change(mask, its average)."""
    gates: Any = model.gates
    hooks = [
        gate.spatial.register_forward_hook(
            lambda part, x, _, average=average: x[0] * change(part.gate(x[0]), average)
        )
        for gate, average in zip(gates, usual, strict=True)
    ]
    right = accuracy(model, pictures, labels)
    for hook in hooks:
        hook.remove()
    return right


def run(
    each: Each,
    *,
    seeds: int,
    steps: int,
    longer: int,
    tested: int,
    rates: list[float],
    tuning_seeds: int,
    attack_seeds: int,
    further_seeds: int,
) -> dict[str, Any]:
    """Tune and train each network, compare what they answer and where masks lie, then attack."""
    cells = {name: {**cell, "steps": steps, "tested": tested} for name, cell in ARMS.items()}
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
    runs = repeat_all(each, learn, cells, range(seeds), "results")
    right = {name: [found["right"] for found in rows] for name, rows in runs.items()}
    maps = {name: maps_of(rows) for name, rows in runs.items() if name in LOOKED_INTO}
    replaced = {
        what: [found["replaced"][what] for found in runs[CHANNEL_FIRST]] for what in REPLACED
    }
    comparisons = {
        f"right: {one} - {other}": compare(right[one], right[other]) for one, other in PAIRS
    }
    gaps = [[a - b for a, b in zip(right[one], right[other], strict=True)] for one, other in STARTS]
    comparisons["right: weight 1 - weight 0, without shortcuts - with them"] = compare(*gaps)
    for what, runs_with in replaced.items():
        comparisons[f"right: masks replaced by {what} - their own"] = compare(
            runs_with, right[CHANNEL_FIRST]
        )
    rivals = "its average", "best by place", "maximum that it reads"
    for name, found in maps.items():
        for n, mask in enumerate(MASKS):
            for other in rivals if "mask" in found else ():
                comparisons[f"{name}, {mask}, digit or piece: mask - {other}"] = compare(
                    *([seed[n] for seed in found[m]["digit or piece"]] for m in ("mask", other))
                )
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning,
        "chosen": best,
        "seeds": list(range(seeds)),
        "results": {
            "right": right,
            "maps": maps,
            "right with the masks replaced by": replaced,
            "example": [runs[CHANNEL_FIRST][0][what] for what in ("example", "example, average")],
        },
        "curve": {name: mean_of(rows, "curve") for name, rows in runs.items()},
        "comparisons": holm(comparisons),
        "attacks": attacks(
            each, cells, seeds=attack_seeds, many=seeds, further=further_seeds, longer=longer
        ),
    }


def maps_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, list[list[float]]]]:
    """Return for each map and measure the numbers of all masks, seed by seed."""
    return {
        name: {how: [row["maps"][name][how] for row in rows] for how in measures}
        for name, measures in rows[0]["maps"].items()
    }


ARMS: dict[str, dict[str, Any]] = {
    "no gate": {"arm": "no gate"},
    "channel gate alone": {"arm": "channel gate alone"},
    SPATIAL_ALONE: {"arm": SPATIAL_ALONE},
    CHANNEL_FIRST: {"arm": CHANNEL_FIRST},
    "spatial, then channel": {"arm": "spatial, then channel"},
    "parallel": {"arm": "parallel"},
    "weight 1": {"arm": CHANNEL_FIRST, "weight": 1.0},
    "no gate, shortcuts": {"arm": "no gate", "shortcuts": True},
    f"{CHANNEL_FIRST}, shortcuts": {"arm": CHANNEL_FIRST, "shortcuts": True},
    "weight 1, shortcuts": {"arm": CHANNEL_FIRST, "weight": 1.0, "shortcuts": True},
}
STARTS = [
    ("weight 1", CHANNEL_FIRST),
    ("weight 1, shortcuts", f"{CHANNEL_FIRST}, shortcuts"),
]
PAIRS = [
    *STARTS,
    (CHANNEL_FIRST, "no gate"),
    (f"{CHANNEL_FIRST}, shortcuts", "no gate, shortcuts"),
    (CHANNEL_FIRST, "channel gate alone"),
    ("spatial, then channel", CHANNEL_FIRST),
    ("parallel", CHANNEL_FIRST),
    ("spatial, then channel", "no gate"),
    ("channel gate alone", "no gate"),
    (SPATIAL_ALONE, "no gate"),
    (SPATIAL_ALONE, "channel gate alone"),
    (CHANNEL_FIRST, SPATIAL_ALONE),
]
LOOKED_INTO = (
    SPATIAL_ALONE,
    CHANNEL_FIRST,
    f"{CHANNEL_FIRST}, shortcuts",
    "no gate",
    "no gate, shortcuts",
)
QUESTION = (
    "Is the mask of a trained CBAM more often larger on the ink of the whole digit than on that of "
    "a piece than its own average over other pictures is?"
)
REFUTED_IF = (
    "For either mask the corrected interval of that share, mask minus its average over ten seeds, "
    "holds 0 or lies below it."
)


def attacks(
    each: Each,
    cells: dict[str, dict[str, Any]],
    *,
    seeds: int,
    many: int,
    further: int,
    longer: int,
) -> list[dict[str, Any]]:
    """Return what was tried to overturn what is said of masks and of their start, and what came.

    The first are tried with `seeds` seeds; what the whole study asks is asked again with `many`,
    and whether a gate helps with `further` others, each network at the rate of each.
    """
    starts = {name: cells[name] for pair in STARTS for name in pair}

    def changed(**settings: Any) -> dict[str, dict[str, Any]]:
        return {name: {**cell, **settings} for name, cell in starts.items()}

    def at(factor: float) -> dict[str, dict[str, Any]]:
        return {n: {**cell, "lr": round(cell["lr"] * factor, 6)} for n, cell in starts.items()}

    whether = "no gate", SPATIAL_ALONE, CHANNEL_FIRST  # does a mask help?
    rates = sorted({cells[name]["lr"] for name in whether})

    def at_both(names: Sequence[str], **settings: Any) -> dict[str, dict[str, Any]]:
        return {
            f"{name}, rate {lr:g}": {**cells[name], "lr": lr, **settings}
            for name in names
            for lr in rates
        }

    few, all_of = range(seeds), range(many)
    plan = {
        f"{longer} steps": (changed(steps=longer), few),
        "a third of the learning rate": (at(1 / 3), few),
        "three times the learning rate": (at(3), few),
        "another block of seeds": (starts, range(500, 500 + seeds)),
        "the gate behind the ReLU": (changed(behind_relu=True), few),
        "a window of 3 x 3": (
            {CHANNEL_FIRST: {**cells[CHANNEL_FIRST], "arm": "channel, then spatial, 3 x 3"}},
            few,
        ),
        f"{longer} steps, all seeds": (
            {name: {**cells[name], "steps": longer} for name in whether},
            all_of,
        ),
        "a head of means, all seeds": (at_both(whether, mean_head=True), all_of),
        **{
            f"pieces of {piece} x {piece}, all seeds": (
                {name: {**cells[name], "piece": piece} for name in whether},
                all_of,
            )
            for piece in (8, 10)
        },
        f"{further} further seeds": (
            at_both([*whether, "channel gate alone"]),
            range(many, many + further),
        ),
        f"{further} further seeds, gates that do not look": (
            {
                f"{arm}, rate {lr:g}": {**cells["no gate"], "arm": arm, "lr": lr}
                for arm in ("fixed mask", "half")
                for lr in rates
            },
            range(many, many + further),
        ),
        f"{further} further seeds, no gate and another start": (
            {
                f"{name}, rate {lr:g}": {**cells["no gate"], **start, "lr": lr}
                for name, start in {
                    "first map halved": {"arm": "half", "second": "no gate"},
                    "last map halved": {"second": "half"},
                    "last layer starts at a quarter": {"readout": 0.25},
                    "last layer starts at a half": {"readout": 0.5},
                    "last layer starts at twice": {"readout": 2.0},
                }.items()
                for lr in rates
            },
            range(many, many + further),
        ),
    }
    found = []
    for what, (arms, block) in plan.items() if seeds else ():
        rows = repeat_all(each, learn, arms, block, f"attack: {what}")
        came = {
            name: {
                "right": [found["right"] for found in runs],
                **({"maps": maps_of(runs)} if "maps" in runs[0] else {}),
            }
            for name, runs in rows.items()
        }
        found.append({"tried": what, "came": came})
    return found


FULL: dict[str, Any] = {
    "seeds": 10,
    "steps": 200,
    "longer": 600,
    "tested": 1000,
    "rates": [0.001, 0.0032, 0.01, 0.032, 0.1],
    "tuning_seeds": 3,
    "attack_seeds": 3,
    "further_seeds": 33,
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "steps": 6,
    "longer": 7,
    "tested": 20,
    "rates": [0.01],
    "tuning_seeds": 1,
    "attack_seeds": 0,
    "further_seeds": 0,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
