"""What do the gates of a trained network carry? They are replaced, on patches of photographs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from statistics import fmean
from typing import Any

import skimage.data
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float, Int
from skimage.color import rgb2gray
from skimage.util import img_as_float
from torch import Tensor, nn

from attnbook.datasets import on_cpu
from attnbook.squeeze_excitation import SqueezeExcitation
from attnbook.studies import main
from attnbook.studies.cue_strip import GATES
from attnbook.studies.protocol import chosen, compare, holm, mean_of, repeat_all, repeat_one, tune
from attnbook.studies.runner import Each
from attnbook.training import fit

PHOTOS = (
    *("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "immunohistochemistry", "page", "rocket"),
)
SIZE, BLOCK = 24, 48  # pixels: side of a patch, and of the squares that patches are cut from
PARTS = {"training": 2400, "validation": 840, "test": 840}


@cache
@on_cpu
def squares(part: str) -> list[Float[Tensor, "n 48 48"]]:
    """Return the squares of each photograph that belong to a part; no pixel is in two parts.

    A photograph is a chequerboard of squares: the white ones are for training, the black ones of
    every second row for the choice of a learning rate, the other black ones for testing.
    """
    found = []
    for name in PHOTOS:
        picture = getattr(skimage.data, name)()
        grey = torch.tensor(img_as_float(rgb2gray(picture) if picture.ndim == 3 else picture))
        cut = grey.float().unfold(0, BLOCK, BLOCK).unfold(1, BLOCK, BLOCK)
        row, column = torch.arange(cut.shape[0])[:, None], torch.arange(cut.shape[1])
        white, even = (row + column) % 2 == 0, row % 2 == 0
        found.append(
            cut[{"training": white, "validation": ~white & even}.get(part, ~white & ~even)]
        )
    return found


@cache
@on_cpu
def patches(
    part: str, *, seed: int = 0, noise: float = 1.5
) -> tuple[Float[Tensor, "count 1 24 24"], Int[Tensor, " count"]]:
    """Return grey patches of scikit-image's photographs, and the number of each one's photograph.

    A patch is brought to mean 0 and standard deviation 1, and gets noise of a standard deviation
    drawn evenly between 0 and `noise`.
    """
    count = PARTS[part]
    generator = torch.Generator().manual_seed(3 * seed + [*PARTS].index(part))
    labels = torch.arange(count)[torch.randperm(count, generator=generator)] % len(PHOTOS)
    images = torch.empty(count, SIZE, SIZE)
    for image, label in zip(images, labels.tolist(), strict=True):
        from_here = squares(part)[label]
        square = from_here[torch.randint(len(from_here), (), generator=generator)]
        y, x = torch.randint(BLOCK - SIZE + 1, (2,), generator=generator).tolist()
        image.copy_(square[y : y + SIZE, x : x + SIZE])
    center = images - reduce(images, "b h w -> b 1 1", "mean")
    images = center / reduce(center.square(), "b h w -> b 1 1", "mean").sqrt().clamp(min=0.02)
    spread = noise * torch.rand(count, 1, 1, generator=generator)
    images = images + spread * torch.randn(count, SIZE, SIZE, generator=generator)
    return rearrange(images, "b h w -> b 1 h w"), labels


class ResidualBlock(nn.Module):
    """Two convolutions and a gate, added to what came in; a stride halves height and width."""

    def __init__(
        self, channels: int, out_channels: int, stride: int, gate: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels), nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels), gate(out_channels),
        )  # fmt: skip
        self.shortcut = (
            nn.Identity()
            if channels == out_channels
            else nn.Conv2d(channels, out_channels, 1, stride, bias=False)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out h2 w2"]:
        """Return the gated branch plus the shortcut."""
        return F.relu(self.branch(x) + self.shortcut(x))


class ResidualNetwork(nn.Module):
    """A convolution, four residual blocks of 16, 16, 32 and 32 channels, a mean, a linear layer."""

    def __init__(self, gate: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 5, 2, padding=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            ResidualBlock(16, 16, 1, gate), ResidualBlock(16, 16, 1, gate),
            ResidualBlock(16, 32, 2, gate), ResidualBlock(32, 32, 1, gate),
        )  # fmt: skip
        self.logits = nn.Linear(32, len(PHOTOS))

    def forward(self, x: Float[Tensor, "b 1 24 24"]) -> Float[Tensor, "b label"]:
        """Return one logit per photograph."""
        return self.logits(reduce(self.layers(x), "b c h w -> b c", "mean"))


def gated_layers(model: nn.Module) -> list[SqueezeExcitation]:
    """Return the layers of a network that have such a gate, from the image on."""
    return [layer for layer in model.modules() if isinstance(layer, SqueezeExcitation)]


@torch.no_grad()
def squeezes_and_gates(model: nn.Module, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Return, of each gated layer, the pooled channels and the gates of the images, both (b, c)."""
    squeezes: list[Tensor] = []
    gates: list[Tensor] = []

    def record(layer: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        squeezes.append(reduce(inputs[0], "b c h w -> b c", "mean"))
        gates.append(rearrange(layer.gate(inputs[0]), "b c 1 1 -> b c"))

    hooks = [layer.register_forward_hook(record) for layer in gated_layers(model)]
    model(images)
    for hook in hooks:
        hook.remove()
    return squeezes, gates


@torch.no_grad()
def logits_with_gates(model: nn.Module, images: Tensor, gates: list[Tensor]) -> Tensor:
    """Return the logits of a network whose gates are replaced: of each layer (b, c), or (1, c)."""
    hooks = [
        layer.register_forward_hook(
            lambda layer, inputs, output, gate=gate: inputs[0] * rearrange(gate, "b c -> b c 1 1")
        )
        for layer, gate in zip(gated_layers(model), gates, strict=True)
    ]
    logits = model(images)
    for hook in hooks:
        hook.remove()
    return logits


@torch.no_grad()
@on_cpu
def replacements(
    model: nn.Module, training: Tensor, testing: Tensor, labels: Int[Tensor, " b"]
) -> dict[str, list[Tensor]]:
    """Return gates to put in place of a trained network's own, by name.

    The mean is that over the training images, one constant for each channel. "one number a layer"
    is the mean of these over the channels: it keeps how loud the layer is, and nothing else.
    """
    _, seen = squeezes_and_gates(model, training)
    _, gates = squeezes_and_gates(model, testing)
    same, other = partners(labels.cpu())
    means = [reduce(gate, "b c -> 1 c", "mean") for gate in seen]
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(mean.shape[1], generator=generator) for mean in means]
    found = {
        "its own": gates,
        "mean of all images": means,
        "one number a layer": [mean.mean(1, keepdim=True).expand_as(mean) for mean in means],
        "ones": [torch.ones_like(mean) for mean in means],
        "means, shuffled": [m[:, order] for m, order in zip(means, orders, strict=True)],
        "another image's, same class": [gate[same] for gate in gates],
        "another image's, other class": [gate[other] for gate in gates],
    }
    for n in range(len(gates)):
        found[f"mean in block {n + 1} alone"] = [*gates[:n], means[n], *gates[n + 1 :]]
    return found


def partners(labels: Int[Tensor, " b"]) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
    """Return the number of another image for each, of its own class and of another one."""
    same, places = torch.empty_like(labels), torch.arange(len(labels))
    for label in labels.unique():
        own = places[labels == label]
        same[own] = own.roll(1)
    other = places.clone()
    for shift in range(1, len(labels)):
        equal = labels[other] == labels
        other[equal] = places.roll(shift)[equal]
    return same, other


def right(logits: Float[Tensor, "b label"], labels: Int[Tensor, " b"]) -> float:
    """Return the share of right answers."""
    return round((logits.argmax(-1) == labels).float().mean().item(), 4)


def class_means(values: Float[Tensor, "b c"], labels: Int[Tensor, " b"]) -> Tensor:
    """Return the mean over the images of each class, (classes, c)."""
    return torch.stack([values[labels == label].mean(0) for label in labels.unique()])


def by_class(values: Float[Tensor, "b c"], labels: Int[Tensor, " b"]) -> tuple[float, float]:
    """Return how far class means differ, and which share of the variance that is.

    The first is their standard deviation over the classes, averaged over the channels. For the
    second, variances are summed over the channels.
    """
    centers = class_means(values, labels)
    own = centers[labels.unique(return_inverse=True)[1]]
    share = own.var(0).sum() / values.var(0).sum()
    return round(centers.std(0).mean().item(), 4), round(share.item(), 4)


@on_cpu
def learn(
    *,
    arm: str,
    lr: float,
    steps: int,
    seed: int,
    measured: str = "test",
    noise: float = 1.5,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one network; return its share of right answers, with its own gates and with others."""
    torch.manual_seed(seed)
    model = ResidualNetwork(GATES[arm]).to(device)
    data = [part.to(device) for part in patches("training", seed=seed, noise=noise)]
    images, labels = (part.to(device) for part in patches(measured, seed=seed, noise=noise))
    untrained = by_block(copy.deepcopy(model).train(), images, labels) if arm == SE else {}
    losses = fit(
        model,
        lambda model, x, labels: F.cross_entropy(model(x), labels),
        tuple(data),
        steps=steps,
        batch_size=32,
        lr=lr,
        seed=seed,
    )
    with torch.no_grad():
        found: dict[str, Any] = {"right": right(model(images), labels)}
    bins = max(1, steps // 10)
    found["curve"] = [round(fmean(losses[n : n + bins]), 4) for n in range(0, steps, bins)]
    if arm == SE and measured == "test":
        found["replaced"] = {
            name: right(logits_with_gates(model, images, gates), labels)
            for name, gates in replacements(model, data[0], images, labels).items()
        }
        found["untrained"], found["trained"] = untrained, by_block(model, images, labels)
        gates = squeezes_and_gates(model, images)[1]
        found["size"] = [round(gate.mean().item(), 4) for gate in gates]
        if seed == 0:
            means = [class_means(gate, labels) for gate in gates]
            found["means"] = [[[round(x, 2) for x in c] for c in m.tolist()] for m in means]
    return found


def by_block(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """Return the sd of class means and its share of the variance, of squeeze and gate by block."""
    squeezes, gates = squeezes_and_gates(model, images)
    found = {
        what: [by_class(values, labels) for values in blocks]
        for what, blocks in (("squeeze", squeezes), ("gate", gates))
    }
    return {
        f"{what}, {measure}": [pair[n] for pair in pairs]
        for what, pairs in found.items()
        for n, measure in enumerate(("sd", "share"))
    }


SE = "squeeze-and-excitation"


def run(
    each: Each,
    *,
    seeds: int,
    steps: int,
    longer: int,
    rates: list[float],
    tuning_seeds: int,
    attack_seeds: int,
) -> dict[str, Any]:
    """Tune and train a network with gates and one without, replace the gates, attack what came."""
    cells = {arm: {"arm": arm, "steps": steps} for arm in ("none", SE)}
    tuning = tune(
        each,
        learn,
        {arm: {**cell, "measured": "validation"} for arm, cell in cells.items()},
        setting="lr",
        values=dict.fromkeys(cells, rates),
        seeds=tuning_seeds,
        score=lambda found: found["right"],
    )
    best = chosen(tuning)
    cells = {arm: {**cell, "lr": best[arm]} for arm, cell in cells.items()}
    runs = repeat_all(each, learn, cells, range(seeds), "results")
    right = {arm: [found["right"] for found in rows] for arm, rows in runs.items()}
    replaced = together([found["replaced"] for found in runs[SE]])
    comparisons = {f"{SE} - none": compare(right[SE], right["none"])}
    comparisons |= {
        f"{first} - {second}": compare(replaced[first], replaced[second])
        for first, second in COMPARED
    }
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning,
        "chosen": best,
        "seeds": list(range(seeds)),
        "results": {
            "right": right,
            "replaced": replaced,
            "size of gates": [found["size"] for found in runs[SE]],
            **{state: together([found[state] for found in runs[SE]])
               for state in ("untrained", "trained")},
            "mean gates": runs[SE][0]["means"],
        },
        "curve": {
            arm: mean_of(rows, "curve")
            for arm, rows in runs.items()
        },
        "comparisons": holm(comparisons),
        "attacks": attacks(each, cells[SE], seeds=attack_seeds, longer=longer),
    }  # fmt: skip


def together(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return for each name its value in each row."""
    return {name: [row[name] for row in rows] for name in rows[0]}


OWN, MEAN, NUMBER = "its own", "mean of all images", "one number a layer"
SAME, OTHER = "another image's, same class", "another image's, other class"
COMPARED = (
    (MEAN, OWN), (NUMBER, MEAN), ("ones", NUMBER), ("means, shuffled", NUMBER),
    (SAME, OWN), (OTHER, OWN), (OTHER, SAME), (SAME, MEAN),
    *((f"mean in block {n} alone", OWN) for n in (1, 2, 3, 4)),
)  # fmt: skip
QUESTION = (
    "Does a network that was trained with gates on photographs lose right answers if each of its "
    "gates is replaced by its mean over all images, and more if by one number for a whole layer?"
)
REFUTED_IF = "The corrected interval of the first loss, or of the second, holds 0."


def attacks(each: Each, cell: dict[str, Any], *, seeds: int, longer: int) -> list[dict[str, Any]]:
    """Return what was tried to overturn what the study says, and what came."""
    plan = {
        f"{longer} steps": ({**cell, "steps": longer}, 0),
        "three times the learning rate": ({**cell, "lr": round(3 * cell["lr"], 6)}, 0),
        "a third of the learning rate": ({**cell, "lr": round(cell["lr"] / 3, 6)}, 0),
        "another block of seeds": (cell, 500),
        "patches without noise": ({**cell, "noise": 0.0}, 0),
    }
    return [
        {
            "tried": what,
            "came": together(
                [
                    found["replaced"]
                    for found in repeat_one(
                        each, learn, tried, range(first, first + seeds), f"attack: {what}"
                    )
                ]
            ),
        }
        for what, (tried, first) in plan.items()
    ]


FULL: dict[str, Any] = {
    "seeds": 10,
    "steps": 300,
    "longer": 900,
    "rates": [0.001, 0.0032, 0.01, 0.032, 0.1],
    "tuning_seeds": 3,
    "attack_seeds": 2,
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "steps": 6,
    "longer": 7,
    "rates": [0.01],
    "tuning_seeds": 1,
    "attack_seeds": 1,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
