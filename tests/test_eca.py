"""eca.py: against timm, against its formula, by its properties, and in every setting."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close
from vision_contract import CompilerContract, LayersContract, output_and_gradients, random_image

from attnbook import EfficientChannelAttention, SqueezeExcitation, adaptive_kernel_size
from attnbook.eca import Band


class TestSettings(LayersContract, CompilerContract):
    def make(self, **kwargs):
        return EfficientChannelAttention(kernel_size=5, **kwargs)


# Against timm


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("channels", [2, 8, 64, 160, 256])
def test_timms_weights_give_timms_output_and_gradients(
    torchvision, device, channels, memory_format
):
    timm = pytest.importorskip("timm.layers")
    theirs = timm.EcaModule(channels, device=device, dtype=torch.float64)
    ours = EfficientChannelAttention(channels, device=device, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = random_image(device, 3, channels, 5, 7).to(memory_format=memory_format)
    assert_close(output_and_gradients(ours, x), output_and_gradients(theirs, x))
    assert ours(x).stride() == theirs(x).stride()


@pytest.mark.parametrize("kernel_size", [1, 3, 9])
def test_a_kernel_size_of_your_own_is_timms(torchvision, device, kernel_size):
    timm = pytest.importorskip("timm.layers")
    theirs = timm.EcaModule(kernel_size=kernel_size, device=device, dtype=torch.float64)
    ours = EfficientChannelAttention(kernel_size=kernel_size, device=device, dtype=torch.float64)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for channels in (1, 4, 24):  # fewer channels than the kernel is long, and more
        x = random_image(device, 2, channels, 3, 4)
        assert_close(output_and_gradients(ours, x), output_and_gradients(theirs, x))


@pytest.mark.parametrize("gamma, beta", [(2, 1), (1, 0), (1.5, 2), (4, -3)])
def test_the_adaptive_kernel_size_is_timms(torchvision, gamma, beta):
    timm = pytest.importorskip("timm.layers")
    for channels in range(1, 2050, 17):
        theirs = timm.EcaModule(channels, gamma=gamma, beta=beta, device="meta")
        ours = EfficientChannelAttention(channels, gamma=gamma, beta=beta, device="meta")
        assert ours.conv.weight.shape == theirs.conv.weight.shape


# Against the formula


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_gate_is_its_formula_for_each_channel(device, kernel_size):
    layer = EfficientChannelAttention(kernel_size=kernel_size, device=device, dtype=torch.float64)
    x = random_image(device, 2, 6, 3, 4).detach()
    w, reach = layer.conv.weight.flatten().tolist(), (kernel_size - 1) // 2
    gates = []
    for image in x.tolist():
        z = [sum(map(sum, channel)) / 12 for channel in image]
        logits = [
            sum(w[j] * z[c + j - reach] for j in range(kernel_size) if 0 <= c + j - reach < len(z))
            for c in range(len(z))
        ]
        gates.append([1 / (1 + math.exp(-logit)) for logit in logits])
    expected = torch.tensor(gates, dtype=torch.float64, device=device)[:, :, None, None]
    assert_close(layer.gate(x), expected)
    assert_close(layer(x), x * expected)


def test_gate_is_that_of_the_convolution_it_holds(device):
    layer = EfficientChannelAttention(kernel_size=5, device=device, dtype=torch.float64)
    x = random_image(device, 2, 9, 3, 4)
    logits = layer.conv(x.mean((2, 3))[:, None])[:, 0]
    assert_close(layer.gate(x)[:, :, 0, 0], torch.sigmoid(logits))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("channels, out", [(1, 1), (2, 3)])
def test_band_is_the_centred_convolution(device, channels, out, bias):
    conv = Band(channels, out, 5, padding=2, bias=bias, device=device, dtype=torch.float64)
    z = torch.randn(3, channels, 7, device=device, dtype=torch.float64)
    assert_close(conv(z), nn.Conv1d.forward(conv, z))
    assert_close(conv(z[0]), nn.Conv1d.forward(conv, z[0]))
    assert repr(conv) == repr(nn.Conv1d(channels, out, 5, padding=2, bias=bias))


@pytest.mark.parametrize(
    "channels, expected",
    [
        *[(channels, 3) for channels in (1, 2, 4, 8, 16, 32, 64, 127)],
        *[(channels, 5) for channels in (128, 256, 512, 1024, 2047)],
        *[(channels, 7) for channels in (2048, 4096, 2**15 - 1)],
        (2**15, 9),
    ],
)
def test_adaptive_kernel_size(channels, expected):
    assert adaptive_kernel_size(channels) == expected


@given(
    channels=st.integers(1, 2**20),
    gamma=st.floats(0.25, 4),
    beta=st.floats(-4, 4),
)
def test_adaptive_kernel_size_is_the_nearest_odd_number_from_3_on(channels, gamma, beta):
    size = adaptive_kernel_size(channels, gamma, beta)
    exact = abs((math.log2(channels) + beta) / gamma)
    assert size % 2 == 1
    assert size == 3 if exact < 3 else abs(size - exact) <= 1


# Properties


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 5))
def test_gates_lie_between_0_and_1(seed, scale):
    torch.manual_seed(seed)
    layer = EfficientChannelAttention(kernel_size=3, dtype=torch.float64)
    gate = layer.gate(scale * random_image("cpu", 2, 8, 3, 4))
    assert ((gate > 0) & (gate < 1)).all()


def test_forward_multiplies_by_the_gate(device):
    layer = EfficientChannelAttention(32, device=device)
    x = torch.randn(2, 32, 5, 7, device=device)
    assert torch.equal(layer(x), x * layer.gate(x))


def test_a_gate_depends_on_the_k_nearest_channels_alone(device):
    layer = EfficientChannelAttention(kernel_size=5, device=device, dtype=torch.float64)
    x = random_image(device, 1, 9, 1, 1)
    jacobian = torch.autograd.functional.jacobian(layer.gate, x).view(9, 9)
    places = torch.arange(9, device=device)
    assert torch.equal(jacobian != 0, (places[:, None] - places).abs() <= 2)


def test_shifting_the_channels_shifts_the_gates(device):
    layer = EfficientChannelAttention(kernel_size=3, device=device, dtype=torch.float64)
    x = random_image(device, 2, 9, 3, 4)
    gate, shifted = layer.gate(x), layer.gate(x.roll(1, dims=1))
    assert_close(shifted[:, 2:-1], gate[:, 1:-2])


def test_the_order_of_channels_matters_unlike_in_squeeze_excitation(device):
    layer = EfficientChannelAttention(kernel_size=3, device=device, dtype=torch.float64)
    x, order = random_image(device, 2, 9, 3, 4), torch.randperm(9).to(device)
    assert (layer.gate(x[:, order]) - layer.gate(x)[:, order]).abs().max() > 1e-3
    reversed_kernel = EfficientChannelAttention(kernel_size=3, device=device, dtype=torch.float64)
    reversed_kernel.conv.weight.data = layer.conv.weight.flip(-1).detach()
    assert_close(reversed_kernel.gate(x.flip(1)), layer.gate(x).flip(1))
    # Squeeze-and-excitation can follow any order: each of its weights belongs to a channel.
    se = SqueezeExcitation(9, 3, device=device, dtype=torch.float64)
    followed = SqueezeExcitation(9, 3, device=device, dtype=torch.float64)
    state = se.state_dict()
    for name, axis in [("fc1.weight", 1), ("fc2.weight", 0), ("fc2.bias", 0)]:
        state[name] = state[name].index_select(axis, order)
    followed.load_state_dict(state)
    assert_close(followed.gate(x[:, order]), se.gate(x)[:, order])


def test_the_gate_does_not_see_where_things_are(device):
    layer = EfficientChannelAttention(kernel_size=3, device=device, dtype=torch.float64)
    x = random_image(device, 2, 8, 3, 4)
    shuffled = x.flatten(2)[:, :, torch.randperm(12).to(device)].view_as(x)
    assert_close(layer.gate(shuffled), layer.gate(x))


def test_parameters_and_initial_values():
    torch.manual_seed(1)
    layer = EfficientChannelAttention(2048)
    torch.manual_seed(1)
    conv = nn.Conv1d(1, 1, 7, bias=False)
    assert set(layer.state_dict()) == {"conv.weight"}
    assert torch.equal(layer.conv.weight, conv.weight)
    assert layer.conv.padding == (3,)


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_derivatives(device, check):
    layer = EfficientChannelAttention(kernel_size=3, device=device, dtype=torch.float64)

    def run(x, weight):
        return torch.func.functional_call(layer, {"conv.weight": weight}, (x,))

    # A GPU may add up in any order.
    x = random_image(device, 2, 4, 2, 3)
    assert check(run, (x, layer.conv.weight), nondet_tol=1e-12)


# Errors


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (
            {},
            "channels=None and kernel_size=None: give exactly one of them; the kernel size follows",
        ),
        ({"channels": 64, "kernel_size": 3}, "channels=64 and kernel_size=3: give exactly one"),
        ({"kernel_size": 4}, "kernel_size=4 must be odd"),
        ({"kernel_size": 0}, "kernel_size=0 must be odd and at least 1"),
        ({"kernel_size": -3}, "kernel_size=-3 must be odd and at least 1"),
        ({"channels": 0}, "channels=0 must be at least 1"),
        ({"channels": 64, "gamma": 0}, "gamma=0 must be above 0"),
    ],
)
def test_wrong_sizes_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        EfficientChannelAttention(**kwargs)
