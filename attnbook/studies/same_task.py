"""Does a small residual network name more tilted digits with a mechanism of the book in it?

`STARTS` says how each mechanism starts. The network around it starts with the same numbers in
every arm but the wider one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnbook.cbam import CBAM
from attnbook.costs import multiply_adds, parameters
from attnbook.datasets import on_cpu
from attnbook.eca import EfficientChannelAttention
from attnbook.multi_head_attention import MultiHeadAttention
from attnbook.resnet import BasicBlock
from attnbook.spatial_transformer import SpatialTransformer, init_identity
from attnbook.squeeze_excitation import SqueezeExcitation
from attnbook.studies import main
from attnbook.studies.protocol import chosen, compare, holm, mean_of, repeat_all, tune
from attnbook.studies.runner import Each
from attnbook.studies.warps import Task, draw, poses, split
from attnbook.training import fit

HELD_BACK = 1000  # of the 4,000 digits to learn from, to choose a rate
COPIES = 4  # poses in which each digit is tested


def task(size: int) -> Task:
    """Return how digits are posed: turned to 45 degrees, at 0.5 to 0.9 of their size, moved."""
    return Task(size=size, turn=45.0, scale=(0.5, 0.9), shift=0.2, digit=size)


@cache
def digits(size: int) -> dict[str, tuple[Float[Tensor, "n size size"], Int[Tensor, " n"]]]:
    """Return digits of `size` pixels a side to learn from, to choose a rate, and to test with."""
    (images, labels), test = split()
    parts = {
        "training": (images[HELD_BACK:], labels[HELD_BACK:]),
        "validation": (images[:HELD_BACK], labels[:HELD_BACK]),
        "test": test,
    }
    return {name: (F.avg_pool2d(x, 28 // size), labels) for name, (x, labels) in parts.items()}


# --- The networks ---------------------------------------------------------------------------------


class AddedMean(nn.Module):
    """The simplest way in which all places can tell each one something: a vector is added.

    output = x + W mean(x) + b
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x plus what a linear layer makes of the mean over its places."""
        added = self.linear(reduce(x, "b c h w -> b c", "mean"))
        return x + rearrange(added, "b c -> b c 1 1")


class SelfAttentionOverPlaces(nn.Module):
    """Every place of a feature map reads from all places; what it reads is added to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(channels, num_heads=4)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x plus what its places read from one another."""
        read = self.attention(rearrange(x, "b c h w -> b (h w) c"))
        return x + rearrange(read, "b (h w) c -> b c h w", h=x.shape[2])


def cbam(channels: int, weight: float = 0.0) -> CBAM:
    """Return CBAM; `weight` is where the batch normalisation of its mask starts.

    At 0, as in the authors' code, every mask starts at 0.5; 1 is PyTorch's start.
    """
    module = CBAM(channels, 4)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.constant_(part.weight, weight)
    return module


def front_warp(size: int) -> SpatialTransformer:
    """Return a spatial transformer for images of 14 or 28 pixels a side, at its identity start."""
    localisation = nn.Sequential(
        nn.AvgPool2d(size // 14),
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3), nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 3 * 3, 24), nn.ReLU(),
        init_identity(nn.Linear(24, 6)),
    )  # fmt: skip
    return SpatialTransformer(localisation)


class Constant(nn.Module):
    """A localisation network that does not look: it says the same of every image."""

    def __init__(self, theta: list[float]) -> None:
        super().__init__()
        self.theta = theta

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b six"]:
        """Return `theta` for each image."""
        return x.new_tensor(self.theta).expand(len(x), 6)


def fixed_zoom(side: float = 0.8) -> SpatialTransformer:
    """Return a front that enlarges the middle of every image alike, `side` of its sides."""
    return SpatialTransformer(Constant([side, 0.0, 0.0, 0.0, side, 0.0]))


class Network(nn.Module):
    """Five convolutions, four of them in two residual blocks, and a linear layer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.front: nn.Module = nn.Identity()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.first = BasicBlock(width, width, 2)
        self.second = BasicBlock(width, 2 * width, 2)
        self.logits = nn.Linear(2 * width, 10)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 10"]:
        """Return one logit per digit."""
        x = self.second(self.first(self.stem(self.front(x))))
        return self.logits(reduce(x, "b c h w -> b c", "mean"))


NOTHING, WIDER, MEAN = "nothing", "nothing, wider", "added mean"
SE, ECA, BOTH_GATES, SELF = "squeeze-and-excitation", "ECA", "CBAM", "self-attention"
WARP, ZOOM = "spatial transformer", "fixed zoom"
MECHANISMS: dict[str, Callable[[int], nn.Module]] = {
    MEAN: AddedMean,
    SE: lambda channels: SqueezeExcitation(channels, 4),
    ECA: lambda channels: EfficientChannelAttention(kernel_size=3),
    BOTH_GATES: cbam,
    SELF: SelfAttentionOverPlaces,
}
ARMS = (NOTHING, WIDER, *MECHANISMS, WARP)
STARTS = {
    NOTHING: "PyTorch's layers, blocks as in attnbook.resnet",
    WIDER: "PyTorch's layers, blocks as in attnbook.resnet",
    MEAN: "PyTorch's linear layer",
    SE: "PyTorch's linear layers, so gates near 0.5",
    ECA: "PyTorch's convolution, so gates near 0.5",
    BOTH_GATES: "PyTorch's layers, so channel gates near 0.5; mask 0.5, as in the authors' code",
    SELF: "PyTorch's projections",
    WARP: "the identity",
}
AS_NOTHING, MASK_WEIGHT = "as without it", "PyTorch's, batch normalisation of the mask too"


class Scaled(nn.Module):
    """A module whose output is multiplied by a constant."""

    def __init__(self, module: nn.Module, factor: float) -> None:
        super().__init__()
        self.module, self.factor = module, factor

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the scaled output."""
        return self.factor * self.module(x)


def as_nothing(module: Any) -> Scaled:
    """Return the mechanism so that at first it leaves what it is given as it is."""
    last, factor = {
        AddedMean: ("linear", 1),
        SelfAttentionOverPlaces: ("attention.out_proj", 1),
        SqueezeExcitation: ("fc2", 2),  # a gate starts at 0.5
        EfficientChannelAttention: ("conv", 2),
        CBAM: ("channel.fc2", 4),
    }[type(module)]
    for parameter in module.get_submodule(last).parameters():
        nn.init.zeros_(parameter)
    return Scaled(module, factor)


@on_cpu
def network(arm: str, *, size: int = 14, start: str = "") -> Network:
    """Return the network of one arm, for images of `size` pixels a side.

    The mechanism is drawn last, so one seed gives the same convolutions in every arm but the wider
    one. `start` is empty, `AS_NOTHING` or `MASK_WEIGHT`.
    """
    model = Network(width=18 if arm == WIDER else 16)
    if arm == WARP:
        model.front = front_warp(size)
    elif arm == ZOOM:
        model.front = fixed_zoom()
    elif arm in MECHANISMS:
        for block in (model.first, model.second):
            make = partial(cbam, weight=1.0) if start == MASK_WEIGHT else MECHANISMS[arm]
            mechanism = make(block.conv2.out_channels)
            block.attention = as_nothing(mechanism) if start == AS_NOTHING else mechanism
    return model


@on_cpu
def cost(arm: str) -> tuple[int, int]:
    """Return an arm's parameters, and its multiply-adds for one image, grid and sampler too."""
    model = network(arm).eval()
    counted = multiply_adds(model, torch.zeros(1, 1, 14, 14))
    return parameters(model), counted + (8 * 14 * 14 if arm == WARP else 0)


# --- Training and testing -------------------------------------------------------------------------


def descend(
    model: nn.Module,
    loss: Callable[..., Tensor],
    data: tuple[Tensor, ...],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
) -> list[float]:
    """Train as `fit` does, on the same rows, but by SGD with momentum 0.9; return the losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=0.2, cycle_momentum=False
    )
    generator, order, losses = torch.Generator().manual_seed(seed), torch.empty(0).long(), []
    model.train()
    for _ in range(steps):
        if len(order) < batch_size:
            order = torch.randperm(len(data[0]), generator=generator, device="cpu")
        rows, order = order[:batch_size].to(data[0].device), order[batch_size:]
        value = loss(model, *(tensor[rows] for tensor in data))
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(value.item())
    model.eval()
    return losses


@on_cpu
def train(
    arm: str,
    *,
    seed: int,
    steps: int,
    lr: float,
    size: int = 14,
    start: str = "",
    optimizer: str = "AdamW",
    device: torch.device | str = "cpu",
) -> tuple[Network, list[float]]:
    """Return the network of one arm trained on digits, and its losses.

    Every batch of 64 draws new poses. The seed draws weights, the order of the digits, and poses,
    all on the CPU, so all arms see the same pictures.
    """
    torch.manual_seed(seed)
    model = network(arm, size=size, start=start).to(device)
    generator = torch.Generator().manual_seed(seed)

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        pose = poses(task(size), len(images), generator).to(images.device)
        return F.cross_entropy(model(draw(images, pose, size)), labels)

    images, labels = digits(size)["training"]
    learned = images.to(device), labels.to(device)
    step = descend if optimizer == "SGD" else fit
    return model, step(model, loss, learned, steps=steps, batch_size=64, lr=lr, seed=seed)


@torch.no_grad()
def right(model: nn.Module, size: int, part: str, tested: int) -> float:
    """Return the share of digits that are named, each in some poses, always the same."""
    images, labels = (
        repeat(x[:tested], "n ... -> (c n) ...", c=COPIES) for x in digits(size)[part]
    )
    pose = poses(task(size), len(images), torch.Generator().manual_seed(1000))
    device = next(model.parameters()).device
    guesses = [model(x.to(device)).argmax(-1).cpu() for x in draw(images, pose, size).split(500)]
    return round((torch.cat(guesses) == labels).float().mean().item(), 5)


@on_cpu
def learn(
    *,
    arm: str,
    lr: float,
    steps: int,
    seed: int,
    size: int = 14,
    start: str = "",
    optimizer: str = "AdamW",
    measured_on: str = "test",
    tested: int = 1000,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train the network of one arm; return its share of right answers, and its losses."""
    model, losses = train(
        arm, seed=seed, steps=steps, lr=lr, size=size, start=start, optimizer=optimizer,
        device=device,
    )  # fmt: skip
    bins = max(1, steps // 20)
    return {
        "right": right(model, size, measured_on, tested),
        "curve": [round(fmean(losses[n : n + bins]), 4) for n in range(0, steps, bins)],
    }


def run(
    each: Each,
    *,
    seeds: int,
    steps: int,
    shorter: int,
    longer: int,
    tested: int,
    rates: list[float],
    tuning_seeds: int,
    attack_seeds: int,
    other_seeds: int,
    attack_rates: list[float],
) -> dict[str, Any]:
    """Tune and train the network with each mechanism and without, compare, then attack."""
    cells = {arm: {"arm": arm, "steps": steps, "tested": tested} for arm in ARMS}
    tuning = tuned(each, cells, rates, tuning_seeds)
    best = chosen(tuning)
    cells = {arm: {**cell, "lr": best[arm]} for arm, cell in cells.items()}
    runs = repeat_all(each, learn, cells, range(seeds), "results")
    shares = {arm: [row["right"] for row in rows] for arm, rows in runs.items()}
    costs = {arm: cost(arm) for arm in ARMS}
    labels = digits(14)["test"][1]
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning,
        "chosen": best,
        "seeds": list(range(seeds)),
        "results": shares,
        "parameters": {arm: number for arm, (number, _) in costs.items()},
        "multiply_adds": {arm: number for arm, (_, number) in costs.items()},
        "starts": STARTS,
        "guess": round(labels.bincount().max().item() / len(labels), 4),
        "curve": {arm: mean_of(rows, "curve") for arm, rows in runs.items()},
        "comparisons": compared(shares),
        "attacks": attacks(
            each, cells, seeds=attack_seeds, others=other_seeds, many=seeds, shorter=shorter,
            longer=longer, rates=attack_rates, ours=rates, tuning_seeds=tuning_seeds,
        ) if attack_seeds else [],
    }  # fmt: skip


QUESTION = (
    "On digits that are turned, shrunk and moved, does a small residual network name more of them "
    "with one of the book's mechanisms in it than without one?"
)
REFUTED_IF = (
    "For none of squeeze-and-excitation, ECA, CBAM, self-attention and the spatial transformer is "
    "the difference to nothing above 0 over ten seeds, after Holm's correction; or none that is "
    "lies above its simple rival too: an added mean for a gate, a wider network for the other two."
)
PAIRS = [(arm, NOTHING) for arm in ARMS if arm != NOTHING]
PAIRS += [(arm, MEAN) for arm in (SE, ECA, BOTH_GATES)]
PAIRS += [(arm, WIDER) for arm in (MEAN, SELF, WARP)]
PAIRS += [(ZOOM, NOTHING), (WARP, ZOOM)]  # in an attack


def compared(shares: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Return all comparisons, in points, corrected for how many there are."""
    points = {arm: [100 * share for share in of] for arm, of in shares.items()}
    pairs = [(one, other) for one, other in PAIRS if {one, other} <= set(points)]
    return holm({f"{one} - {other}": compare(points[one], points[other]) for one, other in pairs})


def tuned(
    each: Each, cells: dict[str, dict[str, Any]], rates: list[float], seeds: int
) -> dict[str, dict[str, float]]:
    """Return the share of held-back digits that each learning rate names."""
    return tune(
        each,
        learn,
        {arm: {**cell, "measured_on": "validation"} for arm, cell in cells.items()},
        setting="lr",
        values=dict.fromkeys(cells, rates),
        seeds=seeds,
        score=lambda found: found["right"],
    )


def attacks(
    each: Each,
    cells: dict[str, dict[str, Any]],
    *,
    seeds: int,
    others: int,
    many: int,
    shorter: int,
    longer: int,
    rates: list[float],
    ours: list[float],
    tuning_seeds: int,
) -> list[dict[str, Any]]:
    """Return what was tried to overturn the comparisons, and the shares right that came.

    The other block of seeds is compared as the study's own, and so are `many` longer trainings,
    beside a zoom that is the same for all images. `rates` are tried for SGD, `ours` for the longer
    trainings.
    """

    def changed(arms: Iterable[str] = ARMS, **settings: Any) -> dict[str, dict[str, Any]]:
        return {arm: {**cells[arm], **settings} for arm in arms}

    def at(factor: float) -> dict[str, dict[str, Any]]:
        return {arm: {**cell, "lr": round(cell["lr"] * factor, 6)} for arm, cell in cells.items()}

    def came(what: str, cells: dict[str, dict[str, Any]], seeds: range) -> dict[str, list[float]]:
        rows = repeat_all(each, learn, cells, seeds, f"attack: {what}")
        return {arm: [row["right"] for row in of] for arm, of in rows.items()}

    other = came("another block of seeds", cells, range(500, 500 + others))
    found = [
        {"tried": "another block of seeds", "came": other, "comparisons": compared(other)},
    ]
    plan = {
        f"{longer} steps": changed(steps=longer),
        f"{shorter} steps": changed(steps=shorter),
        "each mechanism starts as the network without it": changed(MECHANISMS, start=AS_NOTHING),
        "the mask of CBAM starts as PyTorch's layers do": changed([BOTH_GATES], start=MASK_WEIGHT),
        "three times the learning rate": at(3),
        "a third of the learning rate": at(1 / 3),
        "pictures of 28 x 28 pixels": changed(size=28),
    }
    for what, arms in plan.items():
        found.append({"tried": what, "came": came(what, arms, range(seeds))})
    what = "SGD with momentum 0.9, its learning rate tuned"
    tuning = tuned(each, changed(optimizer="SGD"), rates, seeds)
    best = chosen(tuning)
    arms = {arm: {**cell, "lr": best[arm]} for arm, cell in changed(optimizer="SGD").items()}
    found.append({"tried": what, "came": came(what, arms, range(seeds)), "tuning": tuning})
    what, arms = f"{longer} steps, {many} seeds", changed(steps=longer)
    arms[ZOOM] = {**arms[NOTHING], "arm": ZOOM}
    shares = came(what, arms, range(many))
    found.append({"tried": what, "came": shares, "comparisons": compared(shares)})
    what += ", learning rates tuned anew"
    tuning = tuned(each, arms, ours, tuning_seeds)
    best = chosen(tuning)
    shares = came(what, {arm: {**cell, "lr": best[arm]} for arm, cell in arms.items()}, range(many))
    found.append({"tried": what, "came": shares, "tuning": tuning, "comparisons": compared(shares)})
    return found


FULL: dict[str, Any] = {
    "seeds": 10,
    "steps": 800,
    "shorter": 600,
    "longer": 1600,
    "tested": 1000,
    "rates": [0.001, 0.0032, 0.01, 0.032, 0.1],
    "tuning_seeds": 3,
    "attack_seeds": 2,
    "other_seeds": 5,
    "attack_rates": [0.01, 0.032, 0.1, 0.32, 1.0],
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "steps": 6,
    "shorter": 6,
    "longer": 7,
    "tested": 20,
    "rates": [0.01],
    "tuning_seeds": 1,
    "attack_seeds": 0,
    "other_seeds": 0,
    "attack_rates": [0.1],
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
