"""Where does a spatial gate let light through? A digit among pieces of other digits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnbook.cbam import CBAM, ChannelAttention, SpatialAttention
from attnbook.datasets import mnist, on_cpu
from attnbook.studies import main
from attnbook.training import fit

SIDE = 28  # of the canvas
INK = 0.3  # a pixel at least this bright is ink


@on_cpu
def cluttered(
    count: int, *, training: bool, seed: int
) -> tuple[Float[Tensor, "count 1 28 28"], Int[Tensor, " count"], Float[Tensor, "count 1 28 28"]]:
    """Return pictures of one digit among three pieces of digits, its label, and the digit alone.

    Digits are those of `mnist` at half their size, 14 x 14; pieces are 6 x 6, cut from the middle.
    Both lie at random places, and where they overlap the brighter one shows. Training draws from
    4,000 of the 5,000 images, in a fixed shuffled order, testing from the other 1,000.
    """
    images, labels = small_digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    pool = order[:4000] if training else order[4000:]
    generator = torch.Generator().manual_seed(2 * seed + training)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    chosen = pool[draw(len(pool), count)]
    alone = torch.zeros(count, SIDE, SIDE)
    paste(alone, images[chosen], draw(SIDE - 14 + 1, 2, count))
    pictures = alone.clone()
    rows = torch.arange(count)
    for _ in range(3):
        others = images[pool[draw(len(pool), count)]]
        y, x = (rearrange(start, "n -> n 1") + torch.arange(6) for start in 2 + draw(5, 2, count))
        pieces = others[rows[:, None, None], y[:, :, None], x[:, None, :]]
        paste(pictures, pieces, draw(SIDE - 6 + 1, 2, count))
    return pictures[:, None], labels[chosen], alone[:, None]


@cache
def small_digits() -> tuple[Float[Tensor, "5000 14 14"], Int[Tensor, " 5000"]]:
    """Return the images of `mnist` at half their size, and their labels."""
    images, labels = mnist()
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
    """Three convolutions, each with a gate behind it; of the last maps the maximum is read.

    `gate(channels)` makes the module behind each convolution; nn.Identity is no gate. The gates
    are made last, so that one seed gives the same convolutions with every gate.
    """

    def __init__(self, gate: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([
            nn.Sequential(nn.Conv2d(1, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            nn.Sequential(nn.Conv2d(16, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
            nn.Sequential(
                nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32),
                nn.ReLU(),
            ),
        ])  # fmt: skip
        self.logits = nn.Linear(32, 10)
        self.gates = nn.ModuleList(gate(channels) for channels in (16, 32, 32))

    def forward(self, x: Float[Tensor, "b 1 28 28"]) -> Float[Tensor, "b 10"]:
        """Return one logit per digit."""
        last = self.gates[-1](self.activations(x)[-1])
        return self.logits(reduce(last, "b c h w -> b c", "max"))

    def activations(self, x: Float[Tensor, "b 1 28 28"]) -> list[Float[Tensor, "b c h w"]]:
        """Return what each of the three gates is given."""
        found = []
        for number, block in enumerate(self.blocks):
            x = block(self.gates[number - 1](x) if number else x)
            found.append(x)
        return found


class Parallel(nn.Module):
    """Both gates of CBAM, computed from the same x: output = x * channel gate * spatial gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel, self.spatial = ChannelAttention(channels, 4), SpatialAttention()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x times both gates."""
        return x * self.channel.gate(x) * self.spatial.gate(x)


def half_open(gate: nn.Module) -> nn.Module:
    """Return the gate with every mask at 0.5 to begin with, as the authors' code has it."""
    for part in gate.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.zeros_(part.weight)
    return gate


GATES: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "channel, then spatial": lambda channels: half_open(CBAM(channels, 4)),
    "spatial, then channel": lambda channels: half_open(
        nn.Sequential(SpatialAttention(), ChannelAttention(channels, 4))
    ),
    "parallel": lambda channels: half_open(Parallel(channels)),
    "channel, then spatial, weight 1": lambda channels: CBAM(channels, 4),
}


@on_cpu
def train(gate: Callable[[int], nn.Module], *, seed: int, pictures: int) -> ClutterNetwork:
    """Return a network with the gate, trained on pictures drawn with the seed, each seen once."""
    torch.manual_seed(seed)
    model = ClutterNetwork(gate)
    images, labels, _ = cluttered(pictures, training=True, seed=seed)
    fit(
        model,
        lambda model, x, labels: F.cross_entropy(model(x), labels),
        (images, labels),
        steps=pictures // 32,
        batch_size=32,
        lr=1e-2,
        seed=seed,
    )
    return model


def masks(
    model: ClutterNetwork, pictures: Float[Tensor, "b 1 28 28"]
) -> list[tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"]]]:
    """Return each block's spatial mask in a network with CBAM, and the mean map it is made from."""
    found = []
    gates: Any = model.gates
    for x, gate in zip(model.activations(pictures), gates, strict=True):
        gated = gate.channel(x)
        found.append((gate.spatial.gate(gated), reduce(gated, "b c h w -> b 1 h w", "mean")))
    return found


def area_under_curve(high: Tensor, low: Tensor) -> float:
    """Return how often a number of `high` exceeds one of `low`, ties counted half."""
    difference = rearrange(high, "n -> n 1") - low
    return ((difference > 0).float() + 0.5 * (difference == 0)).mean().item()


def placement(
    maps: Float[Tensor, "b 1 h w"],
    pictures: Float[Tensor, "b 1 28 28"],
    alone: Float[Tensor, "b 1 28 28"],
) -> dict[str, float]:
    """Return how well maps lie on the digits, in three numbers, each a mean over the pictures.

    How often the map is larger on the digit's ink than on the ink of pieces, and than on all other
    pixels; and how often its largest value lies within 2 pixels of the digit's ink.
    """
    maps = F.interpolate(maps, size=SIDE, mode="bilinear", align_corners=False)
    digit, near = alone > INK, near_digit(alone)
    pieces = (pictures > INK) & ~digit
    best = maps == reduce(maps, "b 1 h w -> b 1 1 1", "max")
    seen = [n for n in range(len(maps)) if pieces[n].any()]
    found = {
        "digit or piece": mean(
            area_under_curve(maps[n][digit[n]], maps[n][pieces[n]]) for n in seen
        ),
        "digit or other pixel": mean(
            area_under_curve(m[d], m[~d]) for m, d in zip(maps, digit, strict=True)
        ),
        "largest at the digit": mean(
            n[b].float().mean().item() for n, b in zip(near, best, strict=True)
        ),
    }
    return {name: round(number, 4) for name, number in found.items()}


def near_digit(alone: Float[Tensor, "b 1 28 28"]) -> Bool[Tensor, "b 1 28 28"]:
    """Return which pixels lie within 2 pixels of the digit's ink."""
    return F.max_pool2d(alone, 5, stride=1, padding=2) > INK


def accuracy(model: ClutterNetwork, data: tuple[Tensor, ...]) -> float:
    """Return the share of right answers."""
    return round((model(data[0]).argmax(-1) == data[1]).float().mean().item(), 4)


REPLACED: dict[str, Callable[[Tensor], Tensor]] = {
    "its mean over the places": lambda mask: reduce(mask, "b 1 h w -> b 1 1 1", "mean"),
    "that of another picture": lambda mask: mask.roll(1, 0),
}


def accuracy_with(
    change: Callable[[Tensor], Tensor], model: ClutterNetwork, data: tuple[Tensor, ...]
) -> float:
    """Return the share of right answers with every mask of CBAM replaced by change(mask)."""
    gates: Any = model.gates
    hooks = [
        gate.spatial.register_forward_hook(lambda part, x, _: x[0] * change(part.gate(x[0])))
        for gate in gates
    ]
    right = accuracy(model, data)
    for hook in hooks:
        hook.remove()
    return right


@on_cpu
def run(*, seeds: int, pictures: int, tested: int) -> dict[str, Any]:
    """Train each network once a seed; measure its answers, and where masks and activations lie."""
    right: dict[str, list[float]] = {name: [] for name in GATES}
    replaced: dict[str, list[float]] = {name: [] for name in REPLACED}
    lie: dict[str, list[list[dict[str, float]]]] = {}
    near: list[float] = []
    example: list[Any] = []
    for seed in range(seeds):
        data = cluttered(tested, training=False, seed=seed)
        models = {name: train(gate, seed=seed, pictures=pictures) for name, gate in GATES.items()}
        with torch.no_grad():
            for name, model in models.items():
                right[name].append(accuracy(model, data))
            cbam = models["channel, then spatial"]
            for name, change in REPLACED.items():
                replaced[name].append(accuracy_with(change, cbam, data))
            torch.manual_seed(seed)
            untrained = ClutterNetwork(GATES["channel, then spatial, weight 1"]).eval()
            x, alone = data[0][:200], data[2][:200]
            found = {
                "mask": [mask for mask, _ in masks(cbam, x)],
                "what the mask is made from": [source for _, source in masks(cbam, x)],
                "activation without a gate": [
                    reduce(a, "b c h w -> b 1 h w", "mean") for a in models["none"].activations(x)
                ],
                "untrained mask, weight 1": [mask for mask, _ in masks(untrained, x)],
                "picture": [x],
            }
            for name, maps in found.items():
                lie.setdefault(name, []).append([placement(m, x, alone) for m in maps])
            near.append(round(near_digit(alone).float().mean().item(), 4))
            if seed == 0:
                example = [(100 * m[:2, 0]).round().int().tolist() for m in found["mask"]]
    return {
        "accuracy": right,
        "accuracy with the mask replaced by": replaced,
        "placement": lie,
        "share of pixels near the digit": near,
        "masks of two pictures, x 100": example,
    }


FULL = {"seeds": 10, "pictures": 10_000, "tested": 2000}
QUICK = {"seeds": 1, "pictures": 192, "tested": 20}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
