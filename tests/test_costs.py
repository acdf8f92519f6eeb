from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnbook import CrossAttention, attend, causal_mask
from attnbook.costs import multiply_adds, parameters, peak_bytes


def test_parameters_counts_shared_ones_once():
    layer = nn.Linear(3, 4)
    assert parameters(layer) == 3 * 4 + 4
    assert parameters(nn.Sequential(layer, nn.ReLU(), layer)) == 16
    assert parameters(CrossAttention(8, 6, head_dim=5)) == (8 + 6 + 6 + 3) * 5


def test_multiply_adds_of_products_and_convolutions(device):
    x = torch.empty(2, 3, 10, 10, device=device)
    convolution = nn.Conv2d(3, 4, 5, device=device)
    assert multiply_adds(convolution, x) == 2 * 4 * 6 * 6 * 3 * 25
    query, key = torch.empty(7, 16), torch.empty(9, 16)
    assert multiply_adds(lambda q, k: q @ k.T, query, key) == 7 * 9 * 16


def test_fused_attention_is_not_free():
    query, key, value = torch.empty(1, 2, 7, 16), torch.empty(1, 2, 9, 16), torch.empty(1, 2, 9, 16)
    count = 2 * 7 * 9 * (16 + 16)
    assert multiply_adds(F.scaled_dot_product_attention, query, key, value) == count
    assert multiply_adds(lambda q, k, v: attend(q, k, v)[0], query, key, value) == count


def test_tensors_made_inside_are_on_the_meta_device_too():
    def causal(x: Tensor) -> Tensor:
        return attend(x, x, x, mask=causal_mask(len(x)))[0]

    assert multiply_adds(causal, torch.empty(5, 4)) == 5 * 5 * 8


def test_the_module_counted_stays_where_it_is():
    layer = nn.Linear(3, 4)
    multiply_adds(layer, torch.empty(1, 3))
    assert layer.weight.device.type == "cpu"


def test_peak_bytes(device):
    x = torch.zeros(1000, device=device)
    assert peak_bytes(lambda: x * 2) == 4000
    assert peak_bytes(lambda: x.view(10, 100).t()) == 0  # a view holds nothing of its own
    assert peak_bytes(lambda: x.add_(1)) == 0
    assert peak_bytes(lambda: (x * 2 * 2) * 2) == 8000  # the oldest is gone when the newest comes


def test_peak_bytes_counts_what_the_backward_pass_keeps(device):
    x = torch.zeros(1000, device=device, requires_grad=True)
    with torch.no_grad():
        without = peak_bytes(lambda: x.exp().exp().exp())
    assert without == 8000
    assert peak_bytes(lambda: x.exp().exp().exp()) == 12_000
