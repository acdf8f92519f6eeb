"""Does a spatial transformer pay for its multiply-adds on displaced digits, and what does it learn?

Axes as in `attnbook.spatial_transformer`: a pose is a theta, target to source, (2, 3).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import cache, partial
from statistics import fmean
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from attnbook.costs import multiply_adds, parameters
from attnbook.datasets import mnist, on_cpu
from attnbook.spatial_transformer import SpatialTransformer, affine_grid, init_identity
from attnbook.studies import main
from attnbook.studies.protocol import chosen, compare, holm, mean_of, repeat_all, tune
from attnbook.studies.runner import Each
from attnbook.training import fit

TESTING = 1000  # of the 5,000 digits
TRIED = 500  # of the other 4,000, to choose a rate


class Task(NamedTuple):
    """How digits are posed on a canvas: the ranges that poses are drawn from."""

    size: int  # pixels of the canvas's side
    turn: float  # degrees either way
    scale: tuple[float, float]
    shift: float  # of the digit's centre, either way, as a share of half the canvas
    digit: int = 28  # pixels of a side, of an upright digit
    scraps: int = 0  # pieces of other digits that lie about on the canvas


# The paper's tasks at half the resolution; RTS among scraps of other digits; and, for an attack,
# with digits farther from the middle of wider canvases: 7 and 14 pixels, 3.5 on RTS.
RTS = Task(size=21, turn=45.0, scale=(0.7, 1.2), shift=1 / 3, digit=14)
TASKS = {
    "RTS": RTS,
    "scraps": RTS._replace(scraps=2),
    "R": Task(size=14, turn=90.0, scale=(1.0, 1.0), shift=0.0, digit=14),
    "28 x 28": RTS._replace(size=28, shift=1 / 2),
    "42 x 42": RTS._replace(size=42, shift=2 / 3),
}


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
    turn = task.size / task.digit * torch.stack([cos, sin, -sin, cos], dim=-1)
    turn = rearrange(turn, "b (xy two) -> b xy two", xy=2)
    return torch.cat([turn, -turn @ centre], dim=-1)


def draw(
    digits: Float[Tensor, "b h w"], pose: Float[Tensor, "b 2 3"], size: int
) -> Float[Tensor, "b 1 i j"]:
    """Return the digits in their poses on canvases of `size` pixels a side."""
    grid = affine_grid(pose, size, size)
    return F.grid_sample(rearrange(digits, "b h w -> b 1 h w"), grid, align_corners=False)


SCRAP = 4  # pixels of a side


@on_cpu
def paint(
    digits: Float[Tensor, "b h w"],
    pose: Float[Tensor, "b 2 3"],
    task: Task,
    generator: torch.Generator,
) -> Float[Tensor, "b 1 i j"]:
    """Return the canvases of a task: digits in their poses, and scraps of any of the digits.

    A scrap is a piece from within a digit's picture, at a random place; where ink meets ink, the
    darker stays.
    """
    canvases = draw(digits, pose, task.size)
    side = torch.arange(SCRAP)

    def anywhere(size: int, margin: int) -> tuple[Tensor, Tensor]:
        corner = torch.randint(
            margin, size - SCRAP - margin + 1, (2, len(digits), 1), generator=generator
        )
        y, x = (corner + side).to(digits.device)
        return y[:, :, None], x[:, None, :]

    for _ in range(task.scraps):
        whose = torch.randint(len(digits), (len(digits),), generator=generator).to(digits.device)
        scrap = digits[(whose[:, None, None], *anywhere(task.digit, margin=2))]
        where = (torch.arange(len(digits), device=digits.device)[:, None, None], 0)
        place = (*where, *anywhere(task.size, margin=0))
        canvases[place] = torch.maximum(canvases[place], scrap)
    return canvases


@cache
@on_cpu
def split() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return 4,000 digits with labels to learn from and 1,000 to test with, always the same."""
    digits, labels = mnist()
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    train, test = order[TESTING:], order[:TESTING]
    return (digits[train], labels[train]), (digits[test], labels[test])


@cache
def small() -> dict[str, tuple[Tensor, Tensor]]:
    """Return digits of 14 x 14 pixels to learn from, to choose a rate with, and to test with."""
    (digits, labels), test = split()
    parts = {
        "train": (digits[TRIED:], labels[TRIED:]),
        "validation": (digits[:TRIED], labels[:TRIED]),
        "test": test,
    }
    return {name: (F.avg_pool2d(digits, 2), labels) for name, (digits, labels) in parts.items()}


# --- The networks ---------------------------------------------------------------------------------


def dense(size: int, hidden: int) -> nn.Sequential:
    """Return two hidden layers and a classifier, all fully connected."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(size**2, hidden), nn.ReLU(),
        nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Linear(hidden, 10),
    )  # fmt: skip


def convolutional(size: int, channels: int, hidden: int) -> nn.Sequential:
    """Return two convolutions, pooling between them, one hidden layer and a classifier."""
    side = (size - 4) // 2 - 2
    return nn.Sequential(
        nn.Conv2d(1, channels, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(2 * channels * side**2, hidden), nn.ReLU(),
        nn.Linear(hidden, 10),
    )  # fmt: skip


def warped_dense(size: int, hidden: int, *, wide: int = 32, identity: bool = True) -> nn.Sequential:
    """Return a fully connected network behind a fully connected spatial transformer.

    `hidden` and `wide` are the widths of the two hidden layers of each.

    With `identity` the transformer starts as the identity, as in the paper; without, its last layer
    starts as PyTorch starts every linear layer.
    """
    last = nn.Linear(wide, 6)
    localisation = nn.Sequential(
        nn.Flatten(),
        nn.Linear(size**2, wide), nn.ReLU(),
        nn.Linear(wide, wide), nn.ReLU(),
        init_identity(last) if identity else last,
    )  # fmt: skip
    return nn.Sequential(SpatialTransformer(localisation, size=(14, 14)), dense(14, hidden))


def warped_convolutional(size: int, hidden: int) -> nn.Sequential:
    """Return a convolutional network behind a convolutional spatial transformer."""
    side = (size // 2 - 4) // 2
    localisation = nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * side**2, 32), nn.ReLU(),
        init_identity(nn.Linear(32, 6)),
    )  # fmt: skip
    reader = convolutional(14, 8, hidden)
    return nn.Sequential(SpatialTransformer(localisation, size=(14, 14)), reader)


def normalised(network: nn.Sequential) -> nn.Sequential:
    """Return the network with a batch normalisation before each ReLU."""
    layers: list[nn.Module] = []
    for layer in network:
        if isinstance(layer, nn.ReLU):
            before = layers[-1]
            if isinstance(before, nn.Conv2d):
                layers.append(nn.BatchNorm2d(before.out_channels))
            elif isinstance(before, nn.Linear):
                layers.append(nn.BatchNorm1d(before.out_features))
        layers.append(layer)
    return nn.Sequential(*layers)


def strided(size: int, channels: int, hidden: int) -> nn.Sequential:
    """Return three convolutions, two of them with a stride, a hidden layer and a classifier."""
    side = ((size - 5) // 2 + 1 - 3) // 2 + 1 - 2
    return nn.Sequential(
        nn.Conv2d(1, channels, 5, stride=2), nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, stride=2), nn.ReLU(),
        nn.Conv2d(2 * channels, 4 * channels, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * channels * side**2, hidden), nn.ReLU(),
        nn.Linear(hidden, 10),
    )  # fmt: skip


class ZoomAndShift(nn.Module):
    """Makes of three numbers, a zoom and a shift, the six of a map."""

    def forward(self, x: Float[Tensor, "b 3"]) -> Float[Tensor, "b 6"]:
        """Return each row (zoom, right, down) as (zoom, 0, right, 0, zoom, down)."""
        zoom, right, down = x.unbind(-1)
        zero = torch.zeros_like(zoom)
        return torch.stack([zoom, zero, right, zero, zoom, down], dim=-1)


def shifted_dense(size: int, hidden: int) -> nn.Sequential:
    """Return a fully connected network behind a transformer that predicts a zoom and a shift."""
    last = nn.Linear(32, 3)
    nn.init.zeros_(last.weight)
    last.bias.data.copy_(torch.tensor([1.0, 0.0, 0.0]))
    localisation = nn.Sequential(
        nn.Flatten(),
        nn.Linear(size**2, 32), nn.ReLU(),
        nn.Linear(32, 32), nn.ReLU(),
        last, ZoomAndShift(),
    )  # fmt: skip
    return nn.Sequential(SpatialTransformer(localisation, size=(14, 14)), dense(14, hidden))


class MiddleOfInk(nn.Module):
    """A localisation that learns nothing: a window around the middle of the ink."""

    def __init__(self, window: int = 14) -> None:
        super().__init__()
        self.window = window  # pixels of a side

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 6"]:
        """Return a shift to the mean position of the ink, and a fixed zoom."""
        size = x.shape[-1]
        place = affine_grid(torch.eye(2, 3, device=x.device), size, size)  # (y, x, 2)
        middle = einsum(x[:, 0], place, "b y x, y x xy -> b xy") / x.sum((1, 2, 3))[:, None]
        zoom = torch.full_like(middle[:, :1], self.window / size)
        return ZoomAndShift()(torch.cat([zoom, middle], dim=-1))


class LargestPiece(nn.Module):
    """Leaves of each picture its largest piece of ink: pixels that touch, at corners, too."""

    ink = 0.15  # a pixel is ink above this

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Return the pictures with all but their largest pieces at 0; without ink, as they are."""
        from scipy import ndimage  # noqa: PLC0415 (its import takes as long as that of torch)

        touching = torch.zeros(3, 3, 3, 3)  # within a picture, never with the one before or behind
        touching[1, 1] = 1
        named: Any = ndimage.label((x > self.ink).cpu().numpy(), touching.numpy())
        names = torch.from_numpy(named[0]).long().flatten(1)  # 0 is the paper
        sizes = names.flatten().bincount()
        sizes[0] = 0
        largest = names.gather(1, sizes[names].argmax(1, keepdim=True))
        return x * (names == largest).view(x.shape).to(x.device)


def centred(reader: nn.Sequential) -> nn.Sequential:
    """Return the reader behind a window around the middle of the ink."""
    return nn.Sequential(SpatialTransformer(MiddleOfInk(), size=(14, 14)), reader)


def centred_on_piece(window: int, reader: Callable[[], nn.Sequential]) -> nn.Sequential:
    """Return the reader behind a window around the middle of the largest piece of ink."""
    looks = nn.Sequential(LargestPiece(), MiddleOfInk(window))
    return nn.Sequential(SpatialTransformer(looks, size=(14, 14)), reader())


class OneMap(nn.Module):
    """A localisation that does not look: it learns one map for all images."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.eye(2, 3).flatten())

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 6"]:
        """Return the same six numbers for each image."""
        return repeat(self.bias, "six -> b six", b=len(x))


def cropped_dense(hidden: int) -> nn.Sequential:
    """Return a fully connected network behind one learned crop, the same for all images."""
    return nn.Sequential(SpatialTransformer(OneMap(), size=(14, 14)), dense(14, hidden))


def behind(network: nn.Sequential) -> nn.Sequential:
    """Return a network behind a transformer with what reads normalised, and what looks not."""
    transformer, reader = network
    assert isinstance(reader, nn.Sequential)
    return nn.Sequential(transformer, normalised(reader))


# Hidden layers as wide as makes every network take 60,000 multiply-adds, to within one per cent.
Networks = dict[str, Callable[[], nn.Sequential]]
DISPLACED: Networks = {
    "FCN": lambda: dense(21, 108),
    "ST-FCN": lambda: warped_dense(21, 129),
    "ST-FCN, default start": lambda: warped_dense(21, 129, identity=False),
    "ST-FCN, three numbers": lambda: shifted_dense(21, 129),
    "ink's middle + FCN": lambda: centred(dense(14, 158)),
    "one map + FCN": lambda: cropped_dense(160),
    "CNN": lambda: convolutional(21, 4, 70),
    "ST-CNN": lambda: warped_convolutional(21, 119),
    "FCN, batch norm": lambda: normalised(dense(21, 108)),
    "ST-FCN, batch norm": lambda: behind(warped_dense(21, 129)),
    "ink's middle + FCN, batch norm": lambda: centred(normalised(dense(14, 158))),
    "CNN, batch norm": lambda: normalised(strided(21, 8, 48)),
    "ST-CNN, batch norm": lambda: behind(warped_convolutional(21, 119)),
    "ink's middle + CNN, batch norm": lambda: centred(normalised(convolutional(14, 8, 176))),
}
NETWORKS: dict[str, Networks] = {
    "RTS": DISPLACED,
    "scraps": {
        name: DISPLACED[name]
        for name in DISPLACED
        if name not in ("one map + FCN", "ST-FCN, three numbers", "ST-FCN, default start")
    },
    "R": {
        "FCN": lambda: dense(14, 163),
        "ST-FCN": lambda: warped_dense(14, 145),
        "ST-FCN, default start": lambda: warped_dense(14, 145, identity=False),
        "CNN": lambda: convolutional(14, 8, 192),
    },
}
PIECE = "a window around the largest piece of ink"
NARROW = "a window of 12 pixels around the largest piece of ink"
FARTHER = "digits farther from the middle"
BEHIND_WINDOWS: Networks = {
    "ink's middle + FCN": lambda: dense(14, 158),
    "ink's middle + FCN, batch norm": lambda: normalised(dense(14, 158)),
    "ink's middle + CNN, batch norm": lambda: normalised(convolutional(14, 8, 176)),
}
# Other networks under the names of those above, for attacks.
INSTEAD: dict[str, dict[str, Networks]] = {
    "a localisation network three times as wide": {
        task: {
            "ST-FCN": partial(warped_dense, size, hidden, wide=96),
            "ST-FCN, default start": partial(warped_dense, size, hidden, wide=96, identity=False),
        }
        for task, size, hidden in (("RTS", 21, 129), ("R", 14, 145))
    },
    "a convolutional network of four times the multiply-adds": {
        task: {"CNN, batch norm": lambda: normalised(strided(21, 17, 96))}
        for task in ("RTS", "scraps")
    },
    **{
        what: {
            "scraps": {
                name: partial(centred_on_piece, window, reader)
                for name, reader in BEHIND_WINDOWS.items()
            }
        }
        for what, window in ((PIECE, 14), (NARROW, 12))
    },
    # Wide canvases take more multiply-adds: 71,000 and 102,000, again the same for both networks.
    FARTHER: {
        "28 x 28": {"FCN": partial(dense, 28, 82), "ST-FCN": partial(warped_dense, 28, 129)},
        "42 x 42": {"FCN": partial(dense, 42, 56), "ST-FCN": partial(warped_dense, 42, 129)},
    },
}


def work(network: nn.Sequential, task: Task) -> int:
    """Return the multiply-adds for one image, those of grid and sampler included."""
    counted = multiply_adds(network.eval(), torch.zeros(1, 1, task.size, task.size, device="cpu"))
    first = network[0]
    if not isinstance(first, SpatialTransformer) or first.size is None:
        return counted
    return counted + 8 * first.size[0] * first.size[1]


@on_cpu
def train(
    network: Callable[[], nn.Sequential],
    task: Task,
    *,
    seed: int,
    steps: int,
    lr: float,
    device: torch.device | str = "cpu",
) -> tuple[nn.Sequential, list[float]]:
    """Return the network trained on the task, and its losses.

    Every batch of 100 digits draws new poses: that is all the augmentation there can be. 35 steps
    see every digit once. The seed draws weights, the order of the digits, and poses, all on the
    CPU, so networks with the same seed see the same pictures.
    """
    torch.manual_seed(seed)
    model, generator = network().to(device), torch.Generator().manual_seed(seed)

    def loss(model: nn.Module, digits: Tensor, labels: Tensor) -> Tensor:
        pose = poses(task, len(digits), generator).to(digits.device)
        return F.cross_entropy(model(paint(digits, pose, task, generator)), labels)

    known = tuple(tensor.to(device) for tensor in small()["train"])
    losses = fit(model, loss, known, steps=steps, batch_size=100, lr=lr, clip=5.0, seed=seed)
    return model.eval(), losses


# --- What is measured -----------------------------------------------------------------------------


def angle(theta: Float[Tensor, "b 2 3"]) -> Float[Tensor, " b"]:
    """Return the angle, in radians, of the rotation nearest to each map.

    Of a map that mirrors, what it returns is first mirrored back, left to right.
    """
    sign = torch.where(torch.linalg.det(theta[:, :, :2]) < 0, -1, 1)
    first = sign[:, None] * theta[:, :, 0]
    return torch.atan2(theta[:, 0, 1] - first[:, 1], first[:, 0] + theta[:, 1, 1])


def angle_spread(angles: Float[Tensor, " b"], labels: Int[Tensor, " b"]) -> float:
    """Return the circular standard deviation in a class, averaged over the classes, in degrees."""
    spreads = []
    for label in labels.unique():
        inside = angles[labels == label]
        length = torch.stack([inside.cos().mean(), inside.sin().mean()]).norm()
        spreads.append((-2 * length.log()).sqrt().rad2deg())
    return torch.stack(spreads).mean().item()


def habits(
    theta: Float[Tensor, "b 2 3"], pose: Float[Tensor, "b 2 3"], labels: Int[Tensor, " b"]
) -> dict[str, float]:
    """Return what maps do to digits whose poses are known.

    "turned", degrees: spread of the angles in which digits of a class leave the transformer.
    "off centre", as a share of the canvas's side: distance from the middle of the digit to the
    middle of what is read, root of the mean square. "zoom": sqrt |det L|, mean: the side of what is
    read, as a share of the canvas's. "mirrored": share of the maps that flip the image.
    """
    both = pose[:, :, :2] @ theta[:, :, :2]
    centre = -torch.linalg.solve(pose[:, :, :2], pose[:, :, 2])
    distance = (theta[:, :, 2] - centre).square().sum(-1).mean().sqrt() / 2
    area = torch.linalg.det(theta[:, :, :2])
    return {
        "turned": round(angle_spread(angle(both), labels), 2),
        "off centre": round(distance.item(), 4),
        "zoom": round(area.abs().sqrt().mean().item(), 4),
        "mirrored": round((area < 0).float().mean().item(), 4),
    }


def posed(task: Task, part: str, copies: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return digits, each in several poses, with their labels and poses, always the same."""
    digits, labels = small()[part]
    digits, labels = repeat(digits, "b h w -> (c b) h w", c=copies), labels.repeat(copies)
    pose = poses(task, len(digits), torch.Generator().manual_seed(1000))
    return digits, labels, pose


@on_cpu
def canvases_of(task: Task, part: str, copies: int) -> Float[Tensor, "b 1 i j"]:
    """Return the canvases with the digits of `posed`, always the same."""
    digits, _, pose = posed(task, part, copies)
    return paint(digits, pose, task, torch.Generator().manual_seed(2000))


BINS = [(0, 30), (30, 60), (60, 90), (90, 120), (120, 150), (150, 180)]  # degrees, either way


@on_cpu
def error_by_angle(model: nn.Module, task: Task, device: torch.device | str) -> list[float]:
    """Return the error on held-out digits for each range of angles, either way."""
    digits, labels = small()["test"]
    errors = []
    for low, high in BINS:
        generator = torch.Generator().manual_seed(high)
        angles = low + (high - low) * torch.rand(len(digits), generator=generator)
        signs = torch.randint(2, (len(digits),), generator=generator) * 2 - 1
        pose = poses(task, len(digits), generator, degrees=signs * angles)
        errors.append(error(model, draw(digits, pose, task.size).to(device), labels))
    return errors


def error(model: nn.Module, canvases: Tensor, labels: Tensor) -> float:
    """Return the share of pictures that are named wrongly, in per cent."""
    guess = model(canvases).argmax(-1).cpu()
    return round(100 * (guess != labels).float().mean().item(), 2)


@on_cpu
def learn(
    *,
    task: str,
    arm: str,
    lr: float,
    steps: int,
    seed: int,
    measured_on: str = "test",
    instead: str | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Train one network; return its error, and what its transformer does to the digits.

    The network is that of the arm, or the one that an attack puts `instead`.
    """
    posing, network = TASKS[task], (INSTEAD[instead] if instead else NETWORKS)[task][arm]
    model, losses = train(network, posing, seed=seed, steps=steps, lr=lr, device=device)
    bins = max(1, steps // 20)
    copies = 2 if measured_on == "test" else 4
    _, labels, pose = posed(posing, measured_on, copies)
    canvases = canvases_of(posing, measured_on, copies).to(device)
    with torch.no_grad():
        found: dict[str, Any] = {
            "error": error(model, canvases, labels),
            "curve": [round(fmean(losses[n : n + bins]), 4) for n in range(0, steps, bins)],
        }
        first = model[0]
        if isinstance(first, SpatialTransformer):
            found |= habits(first.theta(canvases).cpu(), pose, labels)
        if task == "R":
            found["error by angle"] = error_by_angle(model, posing, device)
    return found


@on_cpu
def nearer(
    *, task: str, arm: str, lr: float, steps: int, seed: int, early: int, device: str = "cpu"
) -> dict[str, float]:
    """Train one network with a transformer; return which share of the frames came nearer.

    Nearer to the middles of their digits than the middle of the canvas, after the `early` step and
    at the end.
    """
    calls, kept = itertools.count(), []

    def keep(module: nn.Module, _: tuple[Tensor, ...]) -> None:
        if next(calls) == early:
            kept.append(copy.deepcopy(module.get_submodule("0")).cpu())

    def network() -> nn.Sequential:
        made = NETWORKS[task][arm]()
        made.register_forward_pre_hook(keep)
        return made

    model, _ = train(network, TASKS[task], seed=seed, steps=steps, lr=lr, device=device)
    _, _, pose = posed(TASKS[task], "test", 2)
    canvases = canvases_of(TASKS[task], "test", 2)
    digit = -torch.linalg.solve(pose[:, :, :2], pose[:, :, 2])

    def apart(theta: Float[Tensor, "b 2 3"]) -> Float[Tensor, " b"]:
        across, down = (theta[:, :, 2] - digit).unbind(1)
        return torch.hypot(across, down)  # norm rounds by how its numbers lie in memory

    before, found = apart(torch.eye(2, 3).expand(len(pose), 2, 3)), {}
    for step, transformer in ((early, kept[0]), (steps, model[0].cpu())):
        assert isinstance(transformer, SpatialTransformer)
        with torch.no_grad():
            closer = apart(transformer.theta(canvases)) < before
        found[f"step {step}"] = round(closer.float().mean().item(), 4)
    return found


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
    """Tune and train networks of as many multiply-adds, with a spatial transformer and without.

    The learning rate of an arm is the one with the fewest errors on digits for validation.
    """
    cells = {
        f"{task}: {arm}": {"task": task, "arm": arm, "steps": steps}
        for task, arms in NETWORKS.items()
        for arm in arms
    }
    tuning = tune(
        each,
        learn,
        {name: {**cell, "measured_on": "validation"} for name, cell in cells.items()},
        setting="lr",
        values=dict.fromkeys(cells, rates),
        seeds=tuning_seeds,
        score=lambda found: -found["error"],
    )
    best = chosen(tuning)
    cells = {name: {**cell, "lr": best[name]} for name, cell in cells.items()}
    runs = repeat_all(each, learn, cells, range(seeds), "results")
    early = {f"RTS: {ST}": {**cells[f"RTS: {ST}"], "early": steps // 6}}
    return {
        "question": QUESTION,
        "refuted_if": REFUTED_IF,
        "tuning": tuning,
        "chosen": best,
        "seeds": list(range(seeds)),
        "results": {name: columns(rows) for name, rows in runs.items()},
        "untouched": {name: untouched(task) for name, task in TASKS.items()},
        "sizes": sizes(),
        "curve": {name: mean_of(rows, "curve") for name, rows in runs.items()},
        "nearer": columns(repeat_all(each, nearer, early, range(seeds), "nearer")[f"RTS: {ST}"]),
        "comparisons": compared({name: columns(rows) for name, rows in runs.items()}),
        "attacks": attacks(each, cells, seeds=attack_seeds, many=seeds, longer=longer),
    }


QUESTION = (
    "Does a network name displaced digits better if it spends a part of its multiply-adds on a "
    "spatial transformer, and does the transformer turn them upright?"
)
REFUTED_IF = (
    "On RTS, among scraps or on R the network of the same kind (fully connected, convolutional, "
    "with batch normalisation or without) is as good with as many multiply-adds without a "
    "transformer; or one learned crop for all images is as good, or a window around the middle of "
    "the ink, which learns nothing. Upright: the angles in which the digits of a class leave it "
    "are spread as widely as before."
)
ST, START, NORM = "ST-FCN", "ST-FCN, default start", ", batch norm"
PAIRS = {
    "RTS": [
        (ST, "FCN"),
        ("ST-CNN", "CNN"),
        (ST, "CNN"),
        (ST, "one map + FCN"),
        (ST, "ink's middle + FCN"),
        (START, ST),
        ("ST-FCN, three numbers", ST),
        (ST + NORM, "FCN" + NORM),
        (ST + NORM, "CNN" + NORM),
        (ST + NORM, "ink's middle + FCN" + NORM),
        ("ST-CNN" + NORM, "CNN" + NORM),
        ("ST-CNN" + NORM, "ink's middle + CNN" + NORM),
    ],
    "scraps": [
        (ST, "FCN"),
        ("ST-CNN", "CNN"),
        (ST, "CNN"),
        (ST, "ink's middle + FCN"),
        (ST + NORM, "FCN" + NORM),
        (ST + NORM, "CNN" + NORM),
        (ST + NORM, "ink's middle + FCN" + NORM),
        ("ST-CNN" + NORM, "CNN" + NORM),
        ("ST-CNN" + NORM, "ink's middle + CNN" + NORM),
    ],
    "R": [(ST, "FCN"), (ST, "CNN"), (START, ST)],
}
COMPARED = [
    *(("error", task, *pair) for task, pairs in PAIRS.items() for pair in pairs),
    ("turned", "RTS", START, ST),
    ("turned", "R", START, ST),
]


def compared(found: dict[str, dict[str, list[Any]]]) -> dict[str, dict[str, Any]]:
    """Return all comparisons, corrected for how many there are."""
    return holm({
        f"{what}, {task}: {first} - {second}": compare(
            found[f"{task}: {first}"][what], found[f"{task}: {second}"][what]
        )
        for what, task, first, second in COMPARED
    })  # fmt: skip


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return each measure of an arm as a list over the seeds, without the curves."""
    return {what: [row[what] for row in rows] for what in rows[0] if what != "curve"}


@on_cpu
def sizes() -> dict[str, dict[str, int]]:
    """Return the multiply-adds and the parameters of each network, and those that localise."""
    found = {}
    for task, arms in NETWORKS.items():
        for arm, network in arms.items():
            made = network()
            parts = {"multiply-adds": work(made, TASKS[task]), "parameters": parameters(made)}
            if isinstance(made[0], SpatialTransformer):
                parts["of them localisation"] = parameters(made[0])
            found[f"{task}: {arm}"] = parts
    return found


@on_cpu
def untouched(task: Task) -> dict[str, float]:
    """Return what is measured of a transformer that leaves every image as it is."""
    _, labels, pose = posed(task, "test", 2)
    return habits(torch.eye(2, 3).expand(len(pose), 2, 3), pose, labels)


def attacks(
    each: Each, cells: dict[str, dict[str, Any]], *, seeds: int, many: int, longer: int
) -> list[dict[str, Any]]:
    """Return what was tried to overturn what the study says, and what came.

    The longer training and the other learning rates have as many seeds as the study, and are
    compared as it is. So many have the windows around the largest piece of ink, too, which are
    trained for both lengths. Digits farther from the middle have three lengths, and two rates.
    """

    def at(factor: float) -> dict[str, dict[str, Any]]:
        return {n: {**cell, "lr": round(cell["lr"] * factor, 6)} for n, cell in cells.items()}

    def came(
        what: str, arms: dict[str, dict[str, Any]], block: range
    ) -> dict[str, dict[str, list[Any]]]:
        rows = repeat_all(each, learn, arms, block, f"attack: {what}")
        return {name: columns(of) for name, of in rows.items()}

    few, all_of = range(seeds), range(many)
    found = []
    for what, arms in {
        f"{longer} steps": {name: {**cell, "steps": longer} for name, cell in cells.items()},
        "three times the learning rate": at(3),
        "a third of the learning rate": at(1 / 3),
    }.items():
        rows = came(what, arms, all_of)
        found.append({"tried": what, "came": rows, "comparisons": compared(rows)})
    plan = {"another block of seeds": (cells, range(500, 500 + seeds))}
    for what, networks in INSTEAD.items():
        if what == FARTHER:
            continue
        arms = {
            f"{task}: {arm}": {**cells[f"{task}: {arm}"], "instead": what}
            for task, arms in networks.items()
            for arm in arms
        }
        plan[what] = arms, few
        if what in (PIECE, NARROW):
            plan[what] = arms, all_of
            plan[f"{what}, {longer} steps"] = (
                {name: {**cell, "steps": longer} for name, cell in arms.items()},
                all_of,
            )
    for many_steps in (cells[f"RTS: {ST}"]["steps"], longer, 4 * longer):
        plan[f"{FARTHER}, {many_steps} steps"] = (
            {
                f"{task}: {arm}, {name}": {
                    **tried[f"RTS: {arm}"], "task": task, "instead": FARTHER, "steps": many_steps
                }
                for task, arms in INSTEAD[FARTHER].items()
                for arm in arms
                for name, tried in (("its rate", cells), ("a third of its rate", at(1 / 3)))
            },
            few,
        )  # fmt: skip
    found += [{"tried": what, "came": came(what, *how)} for what, how in plan.items()]
    return found


FULL: dict[str, Any] = {
    "seeds": 10,
    "steps": 600,
    "longer": 2400,
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
