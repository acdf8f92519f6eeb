"""cbam.py: against timm, against its formulas, by its properties, and in every setting."""

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

from attnbook import CBAM, ChannelAttention, SpatialAttention, SqueezeExcitation

MEMORY = [torch.contiguous_format, torch.channels_last]


class TestChannelSettings(LayersContract):
    def make(self, **kwargs):
        return ChannelAttention(6, reduction=2, **kwargs)


class TestSpatialSettings(LayersContract):
    # PyTorch's convolution and batch normalisation round between the steps.
    asked_tolerance = 1.0
    output_tolerance = 1.5
    float32_inside = False

    def make(self, **kwargs):
        return SpatialAttention(kernel_size=3, **kwargs)

    def test_autocast_keeps_the_dtype_of_the_gate(self, device):
        module, x = self.make(device=device), self.image(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            assert module.gate(x).dtype == x.dtype


class TestSettings(LayersContract, CompilerContract):
    asked_tolerance = 1.5
    output_tolerance = 2.0
    float32_inside = False
    inductor_fault = "torch 2.13 cannot order strides of unknown size: '2*s0*s53 < 2*s0'"

    def make(self, **kwargs):
        return CBAM(6, reduction=2, kernel_size=3, **kwargs)


# Against timm


@pytest.mark.parametrize("memory_format", MEMORY, ids=str)
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "channels, bias, kernel_size", [(16, False, 7), (40, True, 7), (64, True, 3), (8, False, 5)]
)
def test_timms_weights_give_timms_output_and_gradients(
    torchvision, device, channels, bias, kernel_size, train, memory_format
):
    timm = pytest.importorskip("timm.layers.cbam")
    theirs = timm.CbamModule(
        channels, mlp_bias=bias, spatial_kernel_size=kernel_size, device=device, dtype=torch.float64
    )
    ours = CBAM(
        channels,
        hidden_channels=theirs.channel.fc1.out_channels,
        kernel_size=kernel_size,
        bias=bias,
        device=device,
        dtype=torch.float64,
    )
    with torch.no_grad():
        theirs.spatial.conv.bn.running_mean.fill_(0.3)
        theirs.spatial.conv.bn.running_var.fill_(2.0)
        theirs.spatial.conv.bn.bias.fill_(-0.5)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.train(train), theirs.train(train)
    x = random_image(device, 3, channels, 5, 7).to(memory_format=memory_format)
    assert_close(output_and_gradients(ours, x), output_and_gradients(theirs, x))
    assert ours(x).stride() == theirs(x).stride()
    assert_close(ours.state_dict(), theirs.state_dict())  # running statistics included


def test_ties_share_the_gradient_as_in_timm(torchvision, device):
    timm = pytest.importorskip("timm.layers.cbam")
    theirs = timm.CbamModule(16, device=device, dtype=torch.float64).eval()
    ours = CBAM(16, device=device, dtype=torch.float64).eval()
    ours.load_state_dict(theirs.state_dict())
    x = random_image(device, 3, 16, 5, 7).detach().relu().requires_grad_()
    assert_close(output_and_gradients(ours, x), output_and_gradients(theirs, x))
    x = torch.zeros_like(x).requires_grad_()
    assert_close(output_and_gradients(ours, x), output_and_gradients(theirs, x))


# Against the formulas


def sigmoid(number):
    return 1 / (1 + math.exp(-number))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_channel_gate_is_its_formula_for_each_channel(device, bias):
    layer = ChannelAttention(6, reduction=2, bias=bias, device=device, dtype=torch.float64)
    x = random_image(device, 2, 6, 3, 4).detach()
    w1, w2 = (fc.weight.flatten(1).tolist() for fc in (layer.fc1, layer.fc2))
    b1, b2 = (fc.bias.tolist() if bias else [0.0] * 6 for fc in (layer.fc1, layer.fc2))

    def mlp(z):
        hidden = [max(0.0, b1[i] + sum(w1[i][c] * z[c] for c in range(6))) for i in range(3)]
        return [b2[c] + sum(w2[c][i] * hidden[i] for i in range(3)) for c in range(6)]

    gates = []
    for image in x.tolist():
        average = mlp([sum(map(sum, channel)) / 12 for channel in image])
        maximum = mlp([max(map(max, channel)) for channel in image])
        gates.append([sigmoid(a + m) for a, m in zip(average, maximum, strict=True)])
    expected = torch.tensor(gates, dtype=torch.float64, device=device)[:, :, None, None]
    assert_close(layer.gate(x), expected)
    assert_close(layer(x), x * expected)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_spatial_gate_is_its_formula_for_each_place(device, kernel_size):
    layer = SpatialAttention(kernel_size, device=device, dtype=torch.float64).eval()
    conv, norm = layer.conv
    with torch.no_grad():
        norm.weight.fill_(1.5), norm.bias.fill_(-0.25)
        norm.running_mean.fill_(0.5), norm.running_var.fill_(4.0)
    x = random_image(device, 2, 6, 3, 4).detach()
    w, reach = conv.weight[0].tolist(), kernel_size // 2
    expected = torch.zeros(2, 1, 3, 4, dtype=torch.float64, device=device)
    for b, image in enumerate(x.tolist()):
        for i in range(3):
            for j in range(4):
                logit = 0.0
                for di in range(kernel_size):
                    for dj in range(kernel_size):
                        row, column = i + di - reach, j + dj - reach
                        if 0 <= row < 3 and 0 <= column < 4:
                            values = [channel[row][column] for channel in image]
                            logit += w[0][di][dj] * sum(values) / 6 + w[1][di][dj] * max(values)
                logit = 1.5 * (logit - 0.5) / math.sqrt(4.0 + norm.eps) - 0.25
                expected[b, 0, i, j] = sigmoid(logit)
    assert_close(layer.gate(x), expected)
    assert_close(layer(x), x * expected)


def test_cbam_gates_the_channels_first(device):
    layer = CBAM(6, reduction=2, device=device, dtype=torch.float64).eval()
    x = random_image(device, 2, 6, 5, 7)
    gated = x * layer.channel.gate(x)
    assert_close(layer(x), gated * layer.spatial.gate(gated))
    other_order = layer.channel(layer.spatial(x))
    assert (other_order - layer(x)).abs().max() > 1e-4


@pytest.mark.parametrize("make", [ChannelAttention, SpatialAttention, CBAM])
def test_forward_multiplies_by_the_gate(device, make):
    layer = make(**({} if make is SpatialAttention else {"channels": 32}))
    layer = layer.to(device, torch.float64).eval()
    x = random_image(device, 2, 32, 5, 7)
    assert_close(layer(x), x * layer.gate(x))


# Properties


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 5))
def test_gates_lie_between_0_and_1(seed, scale):
    torch.manual_seed(seed)
    layer = CBAM(8, reduction=2, dtype=torch.float64)
    x = scale * random_image("cpu", 2, 8, 3, 4)
    for gate in (layer.gate(x), layer.channel.gate(x), layer.spatial.gate(x)):
        assert ((gate > 0) & (gate < 1)).all()


def test_channel_gate_follows_a_permutation_of_channels(device):
    layer, permuted = (
        ChannelAttention(8, reduction=2, bias=True, device=device, dtype=torch.float64)
        for _ in range(2)
    )
    order = torch.randperm(8).to(device)
    state = layer.state_dict()
    for name, axis in [("fc1.weight", 1), ("fc2.weight", 0), ("fc2.bias", 0)]:
        state[name] = state[name].index_select(axis, order)
    permuted.load_state_dict(state)
    x = random_image(device, 2, 8, 3, 4)
    assert_close(permuted.gate(x[:, order]), layer.gate(x)[:, order])


def test_spatial_gate_does_not_see_the_order_of_channels(device):
    layer = SpatialAttention(device=device, dtype=torch.float64).eval()
    x = random_image(device, 2, 8, 5, 7)
    assert_close(layer.gate(x[:, torch.randperm(8).to(device)]), layer.gate(x))


def test_channel_gate_does_not_see_where_things_are(device):
    layer = ChannelAttention(8, reduction=2, device=device, dtype=torch.float64)
    x = random_image(device, 2, 8, 3, 4)
    shuffled = x.flatten(2)[:, :, torch.randperm(12).to(device)].view_as(x)
    assert_close(layer.gate(shuffled), layer.gate(x))


def test_spatial_gate_moves_with_the_image(device):
    layer = SpatialAttention(kernel_size=3, device=device, dtype=torch.float64).eval()
    x = torch.zeros(1, 4, 9, 9, dtype=torch.float64, device=device)
    x[:, :, 2:5, 2:5] = torch.randn(4, 3, 3, dtype=torch.float64)
    moved = x.roll((2, 1), dims=(2, 3))
    assert_close(
        layer.gate(moved)[..., 3:, 2:], layer.gate(x).roll((2, 1), dims=(2, 3))[..., 3:, 2:]
    )
    assert (layer.gate(x) - layer.gate(moved)).abs().max() > 1e-3


def test_channel_gate_sees_a_maximum_that_squeeze_excitation_does_not(device):
    cbam = ChannelAttention(4, hidden_channels=4, bias=True, device=device)
    se = SqueezeExcitation(4, hidden_channels=4, device=device)
    with torch.no_grad():
        cbam.fc1.bias.fill_(5.0)  # every hidden unit is on
    flat = torch.ones(1, 4, 2, 2, device=device)
    peak = torch.tensor([[4.0, 0.0], [0.0, 0.0]], device=device).expand_as(flat)
    assert_close(se.gate(peak), se.gate(flat))
    assert (cbam.gate(peak) - cbam.gate(flat)).abs().max() > 1e-3


def test_the_mlp_is_shared_and_its_last_bias_counts_twice(device):
    layer = ChannelAttention(4, hidden_channels=3, bias=True, device=device)
    assert set(layer.state_dict()) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    with torch.no_grad():
        for fc in (layer.fc1, layer.fc2):
            fc.weight.zero_(), fc.bias.fill_(0.5)
    gate = layer.gate(torch.randn(1, 4, 2, 2, device=device))
    assert_close(gate, torch.full_like(gate, sigmoid(1.0)))


def test_gate_updates_the_running_statistics_while_training_only(device):
    layer, x = CBAM(16, device=device), random_image(device, 2, 16, 5, 7, dtype=torch.float32)
    norm = layer.spatial.conv.bn
    layer.eval().gate(x)
    assert norm.num_batches_tracked == 0
    layer.train().gate(x)
    assert norm.num_batches_tracked == 1
    assert norm.running_var != 1


def test_parameters_and_initial_values():
    torch.manual_seed(1)
    layer = CBAM(32, reduction=8)
    torch.manual_seed(1)
    pytorchs = {
        "channel.fc1": nn.Conv2d(32, 4, 1, bias=False),
        "channel.fc2": nn.Conv2d(4, 32, 1, bias=False),
        "spatial.conv.conv": nn.Conv2d(2, 1, 7, padding=3, bias=False),
        "spatial.conv.bn": nn.BatchNorm2d(1, momentum=0.1),
    }
    expected = {
        f"{name}.{key}": value
        for name, module in pytorchs.items()
        for key, value in module.state_dict().items()
    }
    assert_close(dict(layer.state_dict()), expected, rtol=0, atol=0)
    assert layer.spatial.conv.bn.momentum == 0.1
    assert sum(p.numel() for p in layer.parameters()) == 2 * 32 * 4 + 2 * 49 + 2
    assert CBAM(32, bias=True).channel.fc2.bias.shape == (32,)
    assert CBAM(8, hidden_channels=3).channel.fc1.out_channels == 3


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_derivatives(device, check):
    layer = CBAM(4, reduction=2, kernel_size=3, bias=True, device=device, dtype=torch.float64)
    with torch.no_grad():
        layer.channel.fc1.bias.fill_(3.0)  # away from the kink of the ReLU
    layer.eval()
    x = random_image(device, 2, 4, 2, 3)
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    # A GPU may add up in any order.
    assert check(run, (x, *layer.parameters()), nondet_tol=1e-12)


# Errors


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CBAM(8), "channels=8 cannot be reduced by reduction=16: .* hidden_channels"),
        (lambda: ChannelAttention(8), "channels=8 .* reduction=16: .* hidden_channels"),
        (lambda: CBAM(8, hidden_channels=0), "hidden_channels=0 must be at least 1"),
        (lambda: CBAM(16, kernel_size=4), "kernel_size=4 must be odd"),
        (lambda: SpatialAttention(2), "kernel_size=2 must be odd"),
        (lambda: SpatialAttention(kernel_size=0), "kernel_size=0 must be odd and at least 1"),
    ],
)
def test_wrong_sizes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_wrong_number_of_channels_is_refused(device):
    x = torch.zeros(2, 16, 5, 7, device=device)
    for layer in (CBAM(32, device=device), ChannelAttention(32, device=device)):
        for path in (layer, layer.gate):
            with pytest.raises(ValueError, match="x has 16 channels, but the layer expects 32"):
                path(x)
    with pytest.raises(ValueError, match=r"x of shape \(2, 0, 5, 7\) has an empty side"):
        SpatialAttention(device=device)(x[:, :0])
