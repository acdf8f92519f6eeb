from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnbook import CrossAttention, MultiHeadAttention, attend, causal_mask
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


# Four projections of 10 words, 8 x 8; scores and context of 2 heads, 5 x 5 words, 4 features.
IN_WORDS = 4 * 10 * 8 * 8 + 2 * 2 * 2 * 5 * 5 * 4
WAYS = {
    "module": lambda m: m,
    "method": lambda m: m.attend,
    "forward": lambda m: m.forward,
    "lambda": lambda m: lambda x: m(x) + x,
    "partial": lambda m: functools.partial(m, is_causal=False),
    "partial of a method": lambda m: functools.partial(m.attend, bias=None),
    "compiled": functools.partial(torch.compile, backend="eager"),
    "lambda of compiled": lambda m: lambda x: torch.compile(m, backend="eager")(x) + x,
}


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("where", ["cpu", "meta"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_multiply_adds_of_whatever_can_be_called(way, where, grad):
    module, x = MultiHeadAttention(8, 2, device=where), torch.randn(2, 5, 8)
    assert IN_WORDS == 3360
    with torch.set_grad_enabled(grad):
        assert multiply_adds(way(module), x) == 3360
    assert {p.device.type for p in module.parameters()} == {where}


def test_multiply_adds_of_a_closure_over_everything(device):
    module, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(device), torch.ones(1)
    image = torch.randn(2, 3, 6, 6, device=device)
    before = module[1].running_mean.clone()
    assert multiply_adds(lambda: module(image).sum() * x.to(device)) == 2 * 4 * 4 * 4 * 27
    assert torch.equal(module[1].running_mean, before)
    # What moves its inputs moves them nowhere.
    assert multiply_adds(lambda x: module(x.to("cpu").to(device)), image) == 2 * 4 * 4 * 4 * 27
    query = torch.randn(1, 2, 7, 16, device=device)
    fused = multiply_adds(lambda: F.scaled_dot_product_attention(query, query, query))
    assert fused == 2 * 7 * 7 * 32


def test_multiply_adds_of_recurrent_layers():
    x = torch.randn(2, 5, 3)
    with torch.no_grad():
        assert multiply_adds(nn.GRU(3, 4, batch_first=True), x) == 2 * 5 * 3 * 4 * (3 + 4)


@pytest.mark.parametrize(
    "make, expected",
    [
        (lambda: nn.Linear(10, 10), 440),
        (lambda: MultiHeadAttention(8, 2), 4 * 4 * (8 * 8 + 8)),
        (lambda: torch.tensor([1.0, 2.0]), 8),
        (lambda: torch.tensor([1.0, 2.0]) * 2, 16),
        (lambda: {"a": [torch.tensor([1.0, 2.0])], "b": (torch.ones(3),)}, 20),
        (lambda: SimpleNamespace(inside=torch.as_tensor([1.0, 2.0])), 8),
        (lambda: None, 0),
    ],
)
def test_peak_bytes_of_what_is_constructed(make, expected):
    assert peak_bytes(make) == expected


def test_a_tensor_that_is_handed_through_is_older():
    x = torch.tensor([1.0, 2.0])
    assert peak_bytes(lambda: x) == peak_bytes(x.detach) == 0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: multiply_adds(3), "function has type int, but must be callable"),
        (lambda: peak_bytes(torch.ones(2)), "function has type Tensor, but must be callable"),
        (
            lambda: parameters(torch.ones(2)),
            "module has type Tensor, but must be a torch",
        ),
    ],
)
def test_what_cannot_be_counted_is_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()
