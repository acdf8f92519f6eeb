"""published.py: the formulas against networks that are counted live, and the printed cells."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from attnbook import CBAM, EfficientChannelAttention, SqueezeExcitation, costs
from attnbook.published import (
    CBAM_TABLE_4,
    ECA_TABLE_3,
    TRANSFORMER_TABLE_3,
    bare,
    blocks,
    eca_operations,
    elements,
    image,
    resnet_costs,
    transformer_parameters,
)
from attnbook.resnet import DEPTHS, ResNet

MAKERS = {
    "none": None,
    "SE": SqueezeExcitation,
    "SE, no biases": lambda c: SqueezeExcitation(c, bias=False),
    "ECA": EfficientChannelAttention,
    "CBAM": lambda c: CBAM(c, bias=True),
}


@pytest.mark.parametrize("gate", MAKERS)
def test_formulas_give_what_is_counted(gate):
    network = ResNet(18, MAKERS[gate], device="meta")
    counted = costs.parameters(network), costs.multiply_adds(network, image())
    assert resnet_costs(18, gate) == counted


def test_blocks_are_those_of_the_network():
    for depth, (block, counts) in DEPTHS.items():
        assert len(blocks(depth)) == sum(counts)
        assert blocks(depth)[-1] == (512 * block.expansion, 49)


def test_elements_are_those_of_either_stride():
    first, second = elements(50, True), elements(50)
    assert first["native_batch_norm"] < second["native_batch_norm"]
    assert first["convolution"] == first["native_batch_norm"]


def test_the_stride_changes_the_products_only():
    (parameters, products), (same, fewer) = bare(50), bare(50, True)
    assert parameters == same and products > fewer
    assert resnet_costs(50, "none", stride_in_1x1=True) == (same, fewer)


def test_other_reductions():
    more = resnet_costs(18, "SE, no biases", r=8)[0] - bare(18)[0]
    assert more == 2 * (resnet_costs(18, "SE, no biases")[0] - bare(18)[0])


@pytest.mark.parametrize("depth", [18, 50])
def test_cbams_table(depth):
    ours = [resnet_costs(depth, gate, stride_in_1x1=depth >= 50) for gate in ("none", "SE", "CBAM")]
    assert ", ".join(f"{p / 1e6:.2f} {m / 1e9:.3f}" for p, m in ours) == CBAM_TABLE_4[depth]


# What thop counts at its commit 0417072, by `profile(model, inputs=(image,))`, on the authors' own
# ResNet (models/eca_resnet.py of BangguWu/ECANet; kernels 5, 5, 5, 7): without a gate, with SE
# without biases, with ECA. It sums in float32. Its wheel of 1 July 2019 counts the same.
THOP = {
    50: (4142713856, 4153263104, 4148336128),
    101: (7878818816, 7897236480, 7887957504),
    152: (11620543488, 11646845952, 11633988608),
}


@pytest.mark.parametrize("depth", THOP)
def test_ecas_counter_and_table(depth):
    gates = ("none", "SE, no biases", "ECA")
    flops = [sum(eca_operations(depth, gate).values()) for gate in gates]
    assert flops == pytest.approx(THOP[depth], rel=1e-7)
    sizes = [resnet_costs(depth, gate)[0] / 2**20 for gate in gates]
    ours = [f"{size:.2f} {count / 2**30:.2f}" for size, count in zip(sizes, flops, strict=True)]
    assert ", ".join(ours) == ECA_TABLE_3[depth]


def test_transformer():
    theirs = nn.Transformer(64, 4, 3, 3, 128, batch_first=True, device="meta")
    biases, last_norms = 3 * 3 * 4 * 64, 2 * 2 * 64
    sizes: dict[str, Any] = {
        "layers": 3,
        "width": 64,
        "hidden": 128,
        "heads": 4,
        "d": 16,
        "d_v": 16,
    }
    assert transformer_parameters(0, **sizes) == costs.parameters(theirs) - last_norms
    without = transformer_parameters(0, **sizes, biases=False)
    assert without == costs.parameters(theirs) - last_norms - biases
    assert transformer_parameters(10) - transformer_parameters(0) == 5120
    assert transformer_parameters(0, d_v=65) - transformer_parameters(0) == 18 * 8 * (2 * 512 + 1)


def test_transformers_table():
    met = [
        row
        for row, (sizes, printed) in TRANSFORMER_TABLE_3.items()
        if round(transformer_parameters(40_960 + 32, **sizes) / 1e6) == printed
    ]
    assert met == [row for row in TRANSFORMER_TABLE_3 if row != "big"]
