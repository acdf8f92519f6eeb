"""The study of ECA's neighbours: its gates are those that the chapter speaks of."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from attnbook import EfficientChannelAttention
from attnbook.studies import neighbours
from attnbook.studies.cue_strip import GatedNetwork


@pytest.fixture
def x():
    return torch.randn(3, 6, 4, 5)


def test_gates_are_one_another_with_weights_taken_out(x):
    full, band = neighbours.FullGate(6), neighbours.BandGate(6, 3)
    diagonal = neighbours.BandGate(6, 1)
    eca = EfficientChannelAttention(kernel_size=3)
    with torch.no_grad():
        band.weight.copy_(eca.conv.weight[0].expand(6, 3))
        full.linear.weight.copy_(diagonal.weight[:, 0].diag())
    assert_close(band(x), eca(x))
    assert_close(full(x), diagonal(x))
    diagonal.weight.data.fill_(1.0)
    assert_close(neighbours.Gate()(x), diagonal(x))


def test_eca_in_another_order_is_eca_of_the_reordered_image(x):
    order = torch.tensor([2, 0, 1, 5, 3, 4])
    ordered, eca = neighbours.OrderedECA(order), EfficientChannelAttention(kernel_size=3)
    eca.load_state_dict({"conv.weight": ordered.conv.weight})
    assert_close(ordered(x)[:, order], eca(x[:, order]))
    ordered.order = torch.arange(6)
    assert_close(ordered(x), eca(x))


def test_a_seed_has_one_shuffled_order():
    orders = []
    for _ in range(2):
        gate = neighbours.gates(seed=3)["ECA, shuffled"](16)
        assert isinstance(gate, neighbours.OrderedECA)
        orders.append(gate.order.tolist())
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == list(range(16)) != orders[0]


def test_shuffling_a_trained_network_leaves_it_as_it_was():
    model = GatedNetwork(neighbours.gates(seed=0)["ECA"]).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = neighbours.shuffled(model, [0, 1], orders=2, seed=0)
    assert len(found) == 2 and all(0 <= share <= 1 for share in found)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
