"""Where no gate helps: patches of twelve photographs, and what the gates do there all the same."""

from __future__ import annotations

from collections.abc import Callable
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
from attnbook.training import fit

PHOTOS = (
    *("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "immunohistochemistry", "page", "rocket"),
)
SIZE, BLOCK = 24, 48  # pixels: side of a patch, and of the squares that patches are cut from


@on_cpu
def patches(
    count: int, *, training: bool, seed: int = 0
) -> tuple[Float[Tensor, "count 1 24 24"], Int[Tensor, " count"]]:
    """Return grey patches of scikit-image's photographs, and the number of each one's photograph.

    Each photograph is a chequerboard of squares of 48 pixels: the white ones are for training, the
    black ones for testing, so that no pixel is in both. A patch is brought to mean 0 and standard
    deviation 1, and gets noise of a standard deviation drawn evenly between 0 and 1.5.
    """
    generator = torch.Generator().manual_seed(2 * seed + training)
    labels = torch.arange(count)[torch.randperm(count, generator=generator)] % len(PHOTOS)
    squares = []
    for name in PHOTOS:
        picture = getattr(skimage.data, name)()
        grey = torch.tensor(img_as_float(rgb2gray(picture) if picture.ndim == 3 else picture))
        cut = grey.float().unfold(0, BLOCK, BLOCK).unfold(1, BLOCK, BLOCK)
        white = (torch.arange(cut.shape[0])[:, None] + torch.arange(cut.shape[1])) % 2 == 0
        squares.append(cut[white if training else ~white])
    images = torch.empty(count, SIZE, SIZE)
    for image, label in zip(images, labels.tolist(), strict=True):
        square = squares[label][torch.randint(len(squares[label]), (), generator=generator)]
        y, x = torch.randint(BLOCK - SIZE + 1, (2,), generator=generator).tolist()
        image.copy_(square[y : y + SIZE, x : x + SIZE])
    center = images - reduce(images, "b h w -> b 1 1", "mean")
    images = center / reduce(center.square(), "b h w -> b 1 1", "mean").sqrt().clamp(min=0.02)
    spread = 1.5 * torch.rand(count, 1, 1, generator=generator)
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


@on_cpu
def train(
    gate: Callable[[int], nn.Module], data: tuple[Tensor, Tensor], *, epochs: int, seed: int
) -> ResidualNetwork:
    """Return a network trained on patches, with the gate in each of its blocks."""
    torch.manual_seed(seed)
    model = ResidualNetwork(gate)
    fit(
        model,
        lambda model, x, labels: F.cross_entropy(model(x), labels),
        data,
        steps=max(6, epochs * len(data[0]) // 64),
        batch_size=64,
        lr=3e-3,
        seed=seed,
    )
    return model


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


def replacements(model: nn.Module, training: Tensor, testing: Tensor) -> dict[str, list[Tensor]]:
    """Return gates to put in place of a trained network's own, by name.

    "mean" is the mean over the training images, one constant for each channel; "another image's"
    are those of the image before, and "ones" open everything.
    """
    _, seen = squeezes_and_gates(model, training)
    _, gates = squeezes_and_gates(model, testing)
    return {
        "as it is": gates,
        "mean": [reduce(gate, "b c -> 1 c", "mean") for gate in seen],
        "another image's": [gate.roll(1, dims=0) for gate in gates],
        "ones": [torch.ones_like(gate) for gate in gates],
    }


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
def run(*, gates: list[str], seeds: int, count: int, testing: int, epochs: int) -> dict[str, Any]:
    """Train each network on the same patches with each seed; then look at the gates of SE."""
    results: dict[str, Any] = {"right": {name: [] for name in gates}, "replaced": {}, "classes": {}}
    for seed in range(seeds):
        data = patches(count, training=True, seed=seed)
        images, labels = patches(testing, training=False, seed=seed)
        models = {name: train(GATES[name], data, epochs=epochs, seed=seed) for name in gates}
        for name, model in models.items():
            with torch.no_grad():
                results["right"][name].append(right(model(images), labels))
        model = models["squeeze-and-excitation"]
        for name, chosen in replacements(model, data[0], images).items():
            found = right(logits_with_gates(model, images, chosen), labels)
            results["replaced"].setdefault(name, []).append(found)
        torch.manual_seed(seed)
        untrained = ResidualNetwork(GATES["squeeze-and-excitation"])
        untrained.train()  # its norms have no statistics yet but the batch's own
        for state, network in (("trained", model), ("untrained", untrained)):
            layers = zip(*squeezes_and_gates(network, images), strict=True)  # statistics yet
            rows = [(by_class(z, labels), by_class(s, labels)) for z, s in layers]
            for i, what in enumerate(("squeeze", "gate")):
                kept = results["classes"].setdefault(f"{what}, {state}", {"sd": [], "share": []})
                kept["sd"].append([row[i][0] for row in rows])
                kept["share"].append([row[i][1] for row in rows])
        if seed == 0:
            means = [class_means(gate, labels) for gate in squeezes_and_gates(model, images)[1]]
            results["mean gates"] = [[[round(x, 2) for x in c] for c in m.tolist()] for m in means]
    return results


FULL: dict[str, Any] = {
    "gates": ["none", "constant", "squeeze-and-excitation"],
    "seeds": 10,
    "count": 3000,
    "testing": 1200,
    "epochs": 6,
}
QUICK: dict[str, Any] = {
    "gates": ["none", "squeeze-and-excitation"],
    "seeds": 1,
    "count": 64,
    "testing": 48,
    "epochs": 1,
}

if __name__ == "__main__":
    main(run, full=FULL, quick=QUICK)
