"""What a spatial transformer learns on turned, scaled and displaced digits; four networks.

Axes as in `attnbook.spatial_transformer`: a pose is a theta, target to source, (2, 3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnbook.costs import parameters
from attnbook.datasets import mnist, on_cpu
from attnbook.spatial_transformer import SpatialTransformer, affine_grid, init_identity
from attnbook.studies import main
from attnbook.training import fit

DIGIT = 28  # pixels of a side, of a digit and of what a transformer puts out
TESTING = 1000  # of the 5,000 digits


class Task(NamedTuple):
    """How digits are posed on a canvas: the ranges that poses are drawn from."""

    size: int  # pixels of the canvas's side
    turn: float  # degrees either way
    scale: tuple[float, float]
    shift: float  # of the digit's centre, either way, as a share of half the canvas


RTS = Task(size=42, turn=45.0, scale=(0.7, 1.2), shift=1 / 3)
R = Task(size=28, turn=90.0, scale=(1.0, 1.0), shift=0.0)


@on_cpu
def poses(
    task: Task, count: int, generator: torch.Generator, degrees: Float[Tensor, " b"] | None = None
) -> Float[Tensor, "b 2 3"]:
    """Return for each picture the map from its canvas to the digit that is drawn on it.

    A digit is turned (clockwise, by `degrees` where given), scaled and then moved; the map undoes
    this in reverse, since it says where each pixel of the canvas is read.
    """
    low, high = task.scale
    angle = task.turn * (2 * torch.rand(count, generator=generator) - 1)
    angle = (angle if degrees is None else degrees).deg2rad()
    scale = low + (high - low) * torch.rand(count, generator=generator)
    centre = task.shift * (2 * torch.rand(count, 2, 1, generator=generator) - 1)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    turn = task.size / DIGIT * torch.stack([cos, sin, -sin, cos], dim=-1)
    turn = rearrange(turn, "b (xy two) -> b xy two", xy=2)
    return torch.cat([turn, -turn @ centre], dim=-1)


def draw(
    digits: Float[Tensor, "b h w"], pose: Float[Tensor, "b 2 3"], size: int
) -> Float[Tensor, "b 1 i j"]:
    """Return the digits in their poses on canvases of `size` pixels a side."""
    grid = affine_grid(pose, size, size)
    return F.grid_sample(rearrange(digits, "b h w -> b 1 h w"), grid, align_corners=False)


@cache
@on_cpu
def split() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return 4,000 digits with labels to learn from and 1,000 to test with, always the same."""
    digits, labels = mnist()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    train, test = order[TESTING:], order[:TESTING]
    return (digits[train], labels[train]), (digits[test], labels[test])


# --- Four networks --------------------------------------------------------------------------------


def dense(size: int, hidden: int) -> nn.Sequential:
    """Return two hidden layers and a classifier, all fully connected."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(size**2, hidden), nn.ReLU(),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10),
    )  # fmt: skip


def convolutional(size: int, hidden: int) -> nn.Sequential:
    """Return two convolutions with pooling, one hidden layer and a classifier."""
    side = ((size - 4) // 2 - 4) // 2
    return nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * side**2, hidden), nn.ReLU(), nn.Linear(hidden, 10),
    )  # fmt: skip


def warped(
    hidden: nn.Sequential, last: nn.Linear, reader: nn.Module, *, identity: bool = True
) -> nn.Sequential:
    """Return a spatial transformer, localised by `hidden` and `last`, and a reader behind it.

    With `identity` the transformer starts as the identity, as in the paper; without, its last layer
    starts as PyTorch starts every linear layer.
    """
    if identity:
        init_identity(last)
    localisation = nn.Sequential(hidden, last)
    return nn.Sequential(SpatialTransformer(localisation, size=(DIGIT, DIGIT)), reader)


def warped_dense(size: int, hidden: int, *, identity: bool = True) -> nn.Sequential:
    """Return a fully connected network behind a fully connected spatial transformer."""
    layers = nn.Sequential(
        nn.Flatten(), nn.Linear(size**2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU()
    )
    return warped(layers, nn.Linear(32, 6), dense(DIGIT, hidden), identity=identity)


def warped_convolutional(size: int, hidden: int) -> nn.Sequential:
    """Return a convolutional network behind a convolutional spatial transformer."""
    side = ((size // 2 - 4) // 2 - 4) // 2
    layers = nn.Sequential(
        nn.AvgPool2d(2), nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * side**2, 32), nn.ReLU(),
    )  # fmt: skip
    return warped(layers, nn.Linear(32, 6), convolutional(DIGIT, hidden))


# Hidden layers as wide as makes every network of a task the same size, to within one per cent.
NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "FCN": lambda: dense(RTS.size, 55),
    "ST-FCN": lambda: warped_dense(RTS.size, 51),
    "ST-FCN, default start": lambda: warped_dense(RTS.size, 51, identity=False),
    "CNN": lambda: convolutional(RTS.size, 122),
    "ST-CNN": lambda: warped_convolutional(RTS.size, 352),
}


@on_cpu
def train(
    network: Callable[[], nn.Sequential],
    task: Task,
    *,
    seed: int,
    steps: int,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Return the network trained on the task; every batch of 100 digits draws new poses.

    40 steps see every digit once. The seed draws weights, the order of the digits, and poses, all
    on the CPU.
    """
    torch.manual_seed(seed)
    model, generator = network().to(device), torch.Generator().manual_seed(seed)

    def loss(model: nn.Module, digits: Tensor, labels: Tensor) -> Tensor:
        pose = poses(task, len(digits), generator).to(digits.device)
        return F.cross_entropy(model(draw(digits, pose, task.size)), labels)

    training = tuple(tensor.to(device) for tensor in split()[0])
    fit(model, loss, training, steps=steps, batch_size=100, lr=5e-3, clip=5.0, seed=seed)
    return model


# --- What is measured -----------------------------------------------------------------------------


@torch.no_grad()
def error(
    model: nn.Module,
    task: Task,
    digits: Float[Tensor, "b h w"],
    labels: Int[Tensor, " b"],
    pose: Float[Tensor, "b 2 3"],
) -> float:
    """Return the share of posed digits that are named wrongly, in per cent."""
    guess = model(draw(digits, pose, task.size)).argmax(-1)
    return round(100 * (guess != labels).float().mean().item(), 2)


def angle(theta: Float[Tensor, "b 2 3"]) -> Float[Tensor, " b"]:
    """Return the angle, in radians, of the rotation nearest to each map."""
    return torch.atan2(theta[:, 0, 1] - theta[:, 1, 0], theta[:, 0, 0] + theta[:, 1, 1])


def angle_spread(angles: Float[Tensor, " b"], labels: Int[Tensor, " b"]) -> float:
    """Return the circular standard deviation in a class, averaged over the classes, in degrees."""
    spreads = []
    for label in labels.unique():
        inside = angles[labels == label]
        length = torch.stack([inside.cos().mean(), inside.sin().mean()]).norm()
        spreads.append((-2 * length.log()).sqrt().rad2deg())
    return torch.stack(spreads).mean().item()


@torch.no_grad()
def habits(
    transformer: SpatialTransformer,
    task: Task,
    digits: Float[Tensor, "b h w"],
    labels: Int[Tensor, " b"],
    pose: Float[Tensor, "b 2 3"],
) -> dict[str, float]:
    """Return what a transformer does to digits whose poses are known.

    "turned", degrees: spread of the angles in which digits of a class leave the transformer.
    "off centre", pixels of the canvas: distance from the middle of the digit to the middle of what
    the transformer reads, root of the mean square. "zoom": sqrt |det L|, mean; below 1 enlarges.
    "mirrored": share of the maps that flip the image.
    """
    theta = transformer.theta(draw(digits, pose, task.size))
    both = pose[:, :, :2] @ theta[:, :, :2]
    centre = -torch.linalg.solve(pose[:, :, :2], pose[:, :, 2])
    distance = (theta[:, :, 2] - centre).square().sum(-1).mean().sqrt() * task.size / 2
    area = torch.linalg.det(theta[:, :, :2])
    return {
        "turned": round(angle_spread(angle(both), labels), 2),
        "off centre": round(distance.item(), 3),
        "zoom": round(area.abs().sqrt().mean().item(), 4),
        "mirrored": round((area < 0).float().mean().item(), 4),
    }


@on_cpu
def unwarped(task: Task) -> SpatialTransformer:
    """Return a spatial transformer that leaves every image as it is."""
    last = init_identity(nn.Linear(task.size**2, 6))
    return SpatialTransformer(nn.Sequential(nn.Flatten(), last))


@on_cpu
def compare(
    networks: dict[str, Callable[[], nn.Sequential]], task: Task, *, seeds: int, steps: int
) -> tuple[dict[str, Any], dict[str, list[nn.Module]]]:
    """Train every network with every seed; return what was measured, and the networks."""
    _, (digits, labels) = split()
    digits, labels = digits.repeat(2, 1, 1), labels.repeat(2)
    pose = poses(task, len(digits), torch.Generator().manual_seed(1000))
    found: dict[str, Any] = {"untouched": habits(unwarped(task), task, digits, labels, pose)}
    trained: dict[str, list[nn.Module]] = {}
    for name, network in networks.items():
        models = [train(network, task, seed=seed, steps=steps) for seed in range(seeds)]
        trained[name] = models
        runs: dict[str, Any] = {"parameters": parameters(models[0])}
        runs["error"] = [error(model, task, digits, labels, pose) for model in models]
        if name.startswith("ST"):
            seen = [habits(model[0], task, digits, labels, pose) for model in models]  # type: ignore[index]
            runs |= {what: [one[what] for one in seen] for what in seen[0]}
        found[name] = runs
    return found, trained


def run(*, seeds: int, steps: int) -> dict[str, Any]:
    """Train four networks, and one from another start, on digits turned, scaled and displaced."""
    return compare(NETWORKS, RTS, seeds=seeds, steps=steps)[0]


FULL: dict[str, Any] = {"seeds": 5, "steps": 600}
QUICK: dict[str, Any] = {"seeds": 1, "steps": 6}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
