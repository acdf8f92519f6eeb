"""What papers print about the size and the cost of their networks, and the rules they count by.

Printed cells are quoted as they stand. Costs are those of one image of 224 x 224.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attnbook import costs
from attnbook.eca import adaptive_kernel_size
from attnbook.resnet import DEPTHS, ResNet

# Woo et al. (2018), https://arxiv.org/abs/1807.06521: millions of parameters, GFLOPs; without a
# gate, with SE, with CBAM.
CBAM_TABLE_4 = {
    18: "11.69 1.814, 11.78 1.814, 11.78 1.815",
    34: "21.80 3.664, 21.96 3.664, 21.96 3.665",
    50: "25.56 3.858, 28.09 3.860, 28.09 3.864",
    101: "44.55 7.570, 49.33 7.575, 49.33 7.581",
}
# Hu et al. (2017), https://arxiv.org/abs/1709.01507: GFLOPs without and with SE; and millions of
# parameters of ResNet-50 by reduction, without a gate first.
SENET_TABLE_2 = {50: (3.86, 3.87), 101: (7.58, 7.60), 152: (11.30, 11.32)}
SENET_TABLE_10 = {None: 25.6, 2: 45.7, 4: 35.7, 8: 30.7, 16: 28.1, 32: 26.9}
# Wang et al. (2019), https://arxiv.org/abs/1910.03151: "M" of parameters, GFLOPs; without a gate,
# with SE, with ECA.
ECA_TABLE_3 = {
    50: "24.37 3.86, 26.77 3.87, 24.37 3.86",
    101: "42.49 7.34, 47.01 7.35, 42.49 7.35",
    152: "57.40 10.82, 63.68 10.85, 57.40 10.83",
}
# Vaswani et al. (2017), https://arxiv.org/abs/1706.03762: what a row changes, and its millions of
# parameters.
TRANSFORMER_TABLE_3: dict[str, tuple[dict[str, Any], int]] = {
    "base": ({}, 65),
    "keys of 16": ({"d": 16}, 58),
    "keys of 32": ({"d": 32}, 60),
    "2 layers": ({"layers": 2}, 36),
    "4 layers": ({"layers": 4}, 50),
    "8 layers": ({"layers": 8}, 80),
    "width 256": ({"width": 256, "d": 32, "d_v": 32}, 28),
    "width 1024": ({"width": 1024, "d": 128, "d_v": 128}, 168),
    "hidden 1024": ({"hidden": 1024}, 53),
    "hidden 4096": ({"hidden": 4096}, 90),
    "big": ({"width": 1024, "hidden": 4096, "heads": 16}, 213),
}


def image() -> torch.Tensor:
    """Return an image of the size that all these papers count for, without numbers in it."""
    return torch.empty(1, 3, 224, 224, device="meta")


@cache
def bare(depth: int, stride_in_1x1: bool = False) -> tuple[int, int]:
    """Return the parameters and multiply-adds of a ResNet without attention, by counting them."""
    network = ResNet(depth, stride_in_1x1=stride_in_1x1, device="meta")
    return costs.parameters(network), costs.multiply_adds(network, image())


def blocks(depth: int) -> list[tuple[int, int]]:
    """Return for each block of a ResNet its channels at the end, and its places.

    >>> blocks(18)[0], blocks(50)[-1]
    ((64, 3136), (2048, 49))
    """
    block, counts = DEPTHS[depth]
    sizes = [(64 * 2**stage * block.expansion, (56 // 2**stage) ** 2) for stage in range(4)]
    return [size for size, count in zip(sizes, counts, strict=True) for _ in range(count)]


def gate_costs(gate: str, c: int, n: int, r: int = 16) -> tuple[int, int]:
    """Return the parameters and multiply-adds of a gate for c channels and n places.

    Gates are "none", "SE", "SE, no biases", "ECA" and "CBAM", which is that of its authors' code.

    >>> gate_costs("SE", 256, 784)
    (8464, 8192)
    """
    if gate == "none":
        return 0, 0
    if gate == "ECA":
        k = adaptive_kernel_size(c)
        return k, k * c
    biases, matrices = c + c // r, 2 * c * (c // r)
    if gate == "CBAM":  # two poolings go through the matrices, 7 x 7 windows over two maps
        return matrices + biases + 2 * 7**2 + 2, 2 * matrices + 2 * 7**2 * n
    return matrices + (biases if gate == "SE" else 0), matrices


def resnet_costs(
    depth: int, gate: str, *, stride_in_1x1: bool = False, r: int = 16
) -> tuple[int, int]:
    """Return the parameters and multiply-adds of a ResNet with a gate in every block."""
    parameters, products = bare(depth, stride_in_1x1)
    for c, n in blocks(depth):
        more = gate_costs(gate, c, n, r)
        parameters, products = parameters + more[0], products + more[1]
    return parameters, products


@cache
def elements(depth: int, stride_in_1x1: bool = False) -> Counter[str]:
    """Return how many numbers each operator of a ResNet without attention returns in all."""
    with _Elements() as mode:
        ResNet(depth, stride_in_1x1=stride_in_1x1, device="meta").eval()(image())
    return mode.count


def eca_operations(depth: int, gate: str) -> dict[str, int]:
    """Return the operations by kind, as the counter that ECA-Net's authors used counts them.

    It is thop from 25 June to 6 August 2019: 4 operations for each number in a batch normalisation;
    1 for each in a ReLU, where of a module that a block uses several times the last use counts; 3
    for each maximum of 3 x 3 numbers, and none from 17 July on; in an average each number and the
    division; and in linear layers the additions, too. The stride is in the 3x3 convolution.

    >>> eca_operations(50, "none")["max pooling"]
    602112
    """
    ends = blocks(depth)
    channels, places = ends[-1]
    relus = 64 * 112**2 + sum(c * n for c, n in ends)
    averages, additions = channels * (places + 1), 1000 * (channels - 1)
    if gate != "none":
        averages += sum(c * (n + 1) for c, n in ends)
    if gate == "SE, no biases":
        relus += sum(c // 16 for c, _ in ends)
        additions += sum((c - 1) * (c // 16) + (c // 16 - 1) * c for c, _ in ends)
    return {
        "multiply-adds": resnet_costs(depth, gate)[1],
        "batch norms": 4 * elements(depth)["native_batch_norm"],
        "ReLUs": relus,
        "max pooling": 3 * 64 * 56**2,
        "averages": averages,
        "additions in linear layers": additions,
    }


class _Elements(TorchDispatchMode):
    """Counts the numbers that each operator returns while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, tuple) else result
        if isinstance(first, torch.Tensor):
            self.count[func.overloadpacket.__name__] += first.numel()
        return result


def transformer_parameters(
    rows: int,
    *,
    layers: int = 6,
    width: int = 512,
    hidden: int = 2048,
    heads: int = 8,
    d: int = 64,
    d_v: int = 64,
    biases: bool = True,
) -> int:
    """Return the parameters of a Transformer: `layers` of encoder and decoder, and one embedding.

    The embedding has `rows`, and is shared by both sides and the last layer. `biases` are those of
    the attention.

    >>> transformer_parameters(37_000)
    63082496
    """
    attention = 2 * width * heads * (d + d_v)
    if biases:
        attention += heads * (2 * d + d_v) + width
    feed_forward = 2 * width * hidden + hidden + width
    norms = 5 * 2 * width
    return layers * (3 * attention + 2 * feed_forward + norms) + rows * width
