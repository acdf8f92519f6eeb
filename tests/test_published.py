"""published.py: the formulas against networks that are counted live, and the printed cells."""

from __future__ import annotations

import pytest
from torch import nn

from attnbook import CBAM, EfficientChannelAttention, SqueezeExcitation, costs
from attnbook.published import (
    CBAM_TABLE_4,
    ECA_TABLE_3,
    bare,
    blocks,
    eca_flops,
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


def test_ecas_table():
    for gate, cell in zip(
        ("none", "SE, no biases", "ECA"), ECA_TABLE_3[50].split(", "), strict=True
    ):
        size, flops = map(float, cell.split())
        assert round(resnet_costs(50, gate)[0] / 2**20, 2) == size
        assert abs(eca_flops(50, gate) / 2**30 - flops) < 0.01


def test_transformer():
    theirs = nn.Transformer(64, 4, 3, 3, 128, batch_first=True, device="meta")
    biases, last_norms = 3 * 3 * 4 * 64, 2 * 2 * 64
    ours = transformer_parameters(0, layers=3, width=64, hidden=128, heads=4, d=16, d_v=16)
    assert ours == costs.parameters(theirs) - biases - last_norms
    assert transformer_parameters(10) - transformer_parameters(0) == 5120
