"""Does a network that knows what a neighbour is learn from fewer images than one of attention?

Networks of about one size, on MNIST. Cut for want of processor time: at most 1,000 images and 300
steps, rates tuned with two seeds; attacks (three seeds) and moved images at 1,000 images alone.
"""

from __future__ import annotations

from functools import cache, partial
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange, Reduce
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnbook.costs import multiply_adds
from attnbook.datasets import mnist, on_cpu
from attnbook.self_attention import SelfAttention
from attnbook.studies import main
from attnbook.studies.protocol import chosen, compare, holm, mean_of, repeat_one, tune
from attnbook.studies.runner import Each
from attnbook.training import fit

TEST, VALIDATION, SHIFT = 1000, 1000, 3
TESTS = {"images as they are": "plain", "moved images": "moved"}


def convolutional() -> nn.Module:
    """Return three 3 x 3 convolutions, each seeing all places with the same nine weights."""
    return nn.Sequential(
        Rearrange("b y x -> b 1 y x"),
        nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        Reduce("b channel y x -> b channel", "mean"),
        nn.Linear(32, 10),
    )


class Block(nn.Module):
    """Attention, then a network on each token; `residual` adds what goes in to both."""

    def __init__(self, dim: int, hidden_dim: int, *, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.attention_norm, self.network_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = SelfAttention(dim)
        self.network = nn.Sequential(
            nn.Linear(dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, dim)
        )

    def forward(self, x: Float[Tensor, "b i x"]) -> Float[Tensor, "b i x"]:
        """Return one vector for each token."""
        found = self.attention(self.attention_norm(x))
        x = x + found if self.residual else found
        found = self.network(self.network_norm(x))
        return x + found if self.residual else found


class Positions(nn.Module):
    """Adds a learned vector to each position; drawn from N(0, 1/4)."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(length, dim) / 2)

    def forward(self, x: Float[Tensor, "b i x"]) -> Float[Tensor, "b i x"]:
        """Return x with the position's vector added."""
        return x + self.vectors


def answer(tokens: int, dim: int, *, side_by_side: bool) -> list[nn.Module]:
    """Return the layers that read the answer off the mean of the tokens, or off all side by side.

    Side by side, each place has weights of its own, and so more of them learn.
    """
    if side_by_side:
        return [Rearrange("b i x -> b (i x)"), nn.Linear(tokens * dim, 10)]
    return [Reduce("b i x -> b x", "mean"), nn.Linear(dim, 10)]


def attentive(side: int = 7, *, side_by_side: bool = False) -> nn.Module:
    """Return two blocks on patches of `side` x `side` pixels."""
    tokens = (28 // side) ** 2
    return nn.Sequential(
        Rearrange("b (row y) (column x) -> b (row column) (y x)", y=side, x=side),
        nn.Linear(side**2, 32),
        Positions(tokens, 32),
        Block(32, 40),
        Block(32, 40),
        nn.LayerNorm(32),
        *answer(tokens, 32, side_by_side=side_by_side),
    )


def on_patches(*, side_by_side: bool = False) -> nn.Module:
    """Return two 3 x 3 convolutions on the patches that the attention has."""
    return nn.Sequential(
        Rearrange("b y x -> b 1 y x"),
        nn.Conv2d(1, 26, 7, stride=7, bias=False),
        nn.BatchNorm2d(26),
        nn.ReLU(),
        nn.Conv2d(26, 26, 3, padding=1, bias=False),
        nn.BatchNorm2d(26),
        nn.ReLU(),
        nn.Conv2d(26, 26, 3, padding=1, bias=False),
        nn.BatchNorm2d(26),
        nn.ReLU(),
        Rearrange("b channel row column -> b (row column) channel"),
        *answer(16, 26, side_by_side=side_by_side),
    )


def linear() -> nn.Module:
    """Return a softmax regression on the pixels: the simplest rival."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


NETWORKS = {
    "convolution": convolutional,
    "attention": attentive,
    "linear": linear,
    "attention, patches of 4 x 4": partial(attentive, 4),
    "attention, side by side": partial(attentive, side_by_side=True),
    "convolution on patches": on_patches,
    "convolution on patches, side by side": partial(on_patches, side_by_side=True),
}
# An arm is a network, and whether the images that it is trained on are moved.
ARMS = {
    "convolution": ("convolution", False),
    "attention": ("attention", False),
    "convolution, moved": ("convolution", True),
    "attention, moved": ("attention", True),
    "linear": ("linear", False),
    "attention, side by side": ("attention, side by side", False),
    "convolution on patches": ("convolution on patches", False),
    "convolution on patches, side by side": ("convolution on patches, side by side", False),
}


def shifted(images: Float[Tensor, "b y x"], shifts: Int[Tensor, "2 b"]) -> Float[Tensor, "b y x"]:
    """Move each image by its own (down, right), at most SHIFT pixels; what comes in is black."""
    height, width = images.shape[1:]
    padded = F.pad(images, (SHIFT,) * 4, value=float(images.min()))
    down, right = rearrange(SHIFT - shifts, "way b -> way b 1")
    rows = down + torch.arange(height, device=images.device)
    columns = right + torch.arange(width, device=images.device)
    image = rearrange(torch.arange(len(images), device=images.device), "b -> b 1 1")
    return padded[image, rearrange(rows, "b y -> b y 1"), rearrange(columns, "b x -> b 1 x")]


@on_cpu
def random_shifts(count: int) -> Int[Tensor, "2 count"]:
    """Draw a shift for each of `count` images."""
    return torch.randint(-SHIFT, SHIFT + 1, (2, count))


def loss(model: nn.Module, images: Tensor, labels: Tensor, *, moved: bool) -> Tensor:
    """Cross-entropy, of the images as they are or each shifted at random."""
    if moved:
        images = shifted(images, random_shifts(len(images)).to(images.device))
    return F.cross_entropy(model(images), labels)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that are recognised."""
    return (model(images).argmax(-1) == labels).float().mean().item()


@cache
@on_cpu
def parts() -> dict[str, tuple[Tensor, Tensor]]:
    """Return (images, labels) to train on, for validation and for the test, in one fixed order."""
    images, labels = mnist()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    images, labels = (images[order] - 0.13) / 0.31, labels[order]
    cuts = {"test": slice(TEST), "validation": slice(TEST, TEST + VALIDATION)}
    cuts["training"] = slice(TEST + VALIDATION, None)
    return {part: (images[cut], labels[cut]) for part, cut in cuts.items()}


@on_cpu
def learn(
    *,
    network: str,
    moved: bool,
    n: int,
    lr: float,
    steps: int,
    seed: int,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one network on n images that the seed draws; return its shares of right answers.

    Each is given for images as they are and moved ones: of those for validation, and of the test.
    """
    pool, order = parts(), torch.Generator().manual_seed(100_000 + seed)
    drawn = torch.randperm(len(pool["training"][0]), generator=order)[:n]
    images, labels = (rows[drawn].to(device) for rows in pool["training"])
    torch.manual_seed(seed)
    model = NETWORKS[network]().to(device)
    losses = fit(
        model, partial(loss, moved=moved), (images, labels), steps=steps, batch_size=min(64, n),
        lr=lr, seed=seed,
    )  # fmt: skip
    found: dict[str, Any] = {"training": round(accuracy(model, images, labels), 4)}
    torch.manual_seed(0)  # the same shifts for all
    for part in ("validation", "test"):
        images, labels = (rows.to(device) for rows in pool[part])
        other = shifted(images, random_shifts(len(images)).to(device))
        found[part] = {
            test: round(accuracy(model, rows, labels), 4)
            for test, rows in (("plain", images), ("moved", other))
        }
    bins = max(1, steps // 20)
    found["curve"] = [round(fmean(losses[k : k + bins]), 4) for k in range(0, steps, bins)]
    return found


def run(
    each: Each,
    *,
    seeds: int,
    sizes: list[int],
    steps: int,
    longer: int,
    rates: list[float],
    tuning_seeds: int,
    attack_seeds: int,
) -> dict[str, Any]:
    """Tune and train each network on each number of images, compare them, then attack what came.

    Each arm has a learning rate of its own for each number of images and each of the two tests.
    Images are moved, in training or in the test, at the largest number alone.
    """
    most = max(sizes)
    cells = {
        f"{arm}, {n}": {"network": network, "moved": moved, "n": n, "steps": steps}
        for arm, (network, moved) in ARMS.items()
        for n in sizes
        if n == most or not moved
    }
    tuning, runs = {}, {}
    for test, measure in TESTS.items():
        tested = {
            name: cell for name, cell in cells.items() if measure == "plain" or cell["n"] == most
        }
        tuning[test] = tuned(each, tested, measure, rates, tuning_seeds)
        best = chosen(tuning[test])
        runs[test] = {
            name: repeat_one(each, learn, {**cell, "lr": best[name]}, range(seeds), "results")
            for name, cell in tested.items()
        }
    right = {
        test: {name: [row["test"][TESTS[test]] for row in rows] for name, rows in of.items()}
        for test, of in runs.items()
    }
    pairs = [("convolution", "attention"), ("convolution, moved", "attention, moved")]
    pairs += [("attention, moved", "attention"), ("attention", "linear")]
    pairs += [("attention, side by side", rival) for rival in ("attention", "linear")]
    pairs += [("convolution", "attention, side by side"), ("convolution on patches", "attention")]
    pairs += [("convolution on patches, side by side", "attention, side by side")]
    comparisons = {
        f"{test}, {n}: {arm} - {rival}": compare(
            right[test][f"{arm}, {n}"], right[test][f"{rival}, {n}"]
        )
        for test in TESTS
        for n in sizes
        for arm, rival in pairs
        if f"{arm}, {n}" in right[test]
    }
    labels = parts()["test"][1]
    named = {f"{name}, {test}": by for test in TESTS for name, by in tuning[test].items()}
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": named,
        "chosen": chosen(named),
        "seeds": list(range(seeds)),
        "results": right,
        "right on the training images": {
            test: {
                name: round(fmean(row["training"] for row in rows), 4) for name, rows in of.items()
            }
            for test, of in runs.items()
        },
        "guess": round(labels.bincount().max().item() / len(labels), 4),
        "size": {name: size(make()) for name, make in NETWORKS.items()},
        "curve": {
            f"{name}, {test}": mean_of(rows, "curve")
            for test, of in runs.items()
            for name, rows in of.items()
        },
        "comparisons": holm(comparisons),
        "attacks": attacks(
            each, cells, chosen(tuning["images as they are"]), rates, n=most, steps=steps,
            tuning_seeds=tuning_seeds, seeds=attack_seeds, longer=longer,
        ),
    }  # fmt: skip


QUESTION = (
    "With equal tuning, is a network of convolutions right more often on MNIST than a network of "
    "attention with as many parameters, at each of 50, 200 and 1,000 training images?"
)
REFUTED_IF = (
    "At any of the three, on images as they are, the corrected interval of convolution minus "
    "attention holds 0 or lies below it."
)


@on_cpu
def size(model: nn.Module) -> dict[str, int]:
    """Return how many parameters learn, and the multiply-adds for one image."""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "multiply-adds": multiply_adds(model.eval(), torch.zeros(1, 28, 28)),
    }


def tuned(
    each: Each, cells: dict[str, dict[str, Any]], measure: str, rates: list[float], seeds: int
) -> dict[str, dict[str, float]]:
    """Return the validation score of each learning rate, on images as they are or moved."""
    return tune(
        each, learn, cells, setting="lr", values=dict.fromkeys(cells, rates), seeds=seeds,
        score=lambda found: found["validation"][measure],
    )  # fmt: skip


def attacks(
    each: Each,
    cells: dict[str, dict[str, Any]],
    best: dict[str, float],
    rates: list[float],
    *,
    n: int,
    steps: int,
    tuning_seeds: int,
    seeds: int,
    longer: int,
) -> list[dict[str, Any]]:
    """Return what was tried on images as they are, and the shares right that came."""
    usual = {
        arm: {**cells[f"{arm}, {n}"], "lr": best[f"{arm}, {n}"]}
        for arm in ("convolution", "attention", "attention, side by side", "convolution on patches")
    }
    rate = {factor: {arm: float(f"{cell['lr'] * factor:.3g}") for arm, cell in usual.items()}
            for factor in (3, 1 / 3)}  # fmt: skip
    plan = {
        f"{longer} steps": {arm: {**cell, "steps": longer} for arm, cell in usual.items()},
        "three times the learning rate": {
            arm: {**cell, "lr": rate[3][arm]} for arm, cell in usual.items()
        },
        "a third of the learning rate": {
            arm: {**cell, "lr": rate[1 / 3][arm]} for arm, cell in usual.items()
        },
    }
    found = []
    for what, jobs in plan.items():
        came = {
            arm: [
                row["test"] for row in repeat_one(each, learn, job, range(seeds), f"attack: {what}")
            ]
            for arm, job in jobs.items()
        }
        found.append({"tried": what, "came": came})
    finer = {"attention, patches of 4 x 4": {
        "network": "attention, patches of 4 x 4", "moved": False, "n": n, "steps": steps,
    }}  # fmt: skip
    tuning = tuned(each, finer, "plain", rates, tuning_seeds)
    ((name, cell),) = finer.items()
    cell = {**cell, "lr": chosen(tuning)[name]}
    rows = repeat_one(each, learn, cell, range(seeds), "attack: patches")
    found.append({"tried": "patches of 4 x 4, with a learning rate of their own",
                  "came": {name: [row["test"] for row in rows]}, "tuning": tuning})  # fmt: skip
    return found


FULL: dict[str, Any] = {
    "seeds": 10,
    "sizes": [50, 200, 1000],
    "steps": 300,
    "longer": 1200,
    "rates": [0.0032, 0.01, 0.032, 0.1, 0.32],
    "tuning_seeds": 2,
    "attack_seeds": 3,
}
QUICK: dict[str, Any] = {
    "seeds": 2,
    "sizes": [20],
    "steps": 6,
    "longer": 7,
    "rates": [0.01],
    "tuning_seeds": 1,
    "attack_seeds": 1,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
