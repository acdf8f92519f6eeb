"""squeeze_excitation.py: against timm and torchvision, against its formula, by its properties."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close
from vision_contract import (
    HALF,
    CompilerContract,
    LayersContract,
    output_and_gradients,
    random_image,
)

from attnbook import SqueezeExcitation
from attnbook.squeeze_excitation import Pointwise, mean

MEMORY = [torch.contiguous_format, torch.channels_last]


class TestSettings(LayersContract, CompilerContract):
    def make(self, **kwargs):
        return SqueezeExcitation(6, reduction=2, **kwargs)


# Against others


@pytest.mark.parametrize("memory_format", MEMORY, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("channels", [8, 64, 192])
def test_timms_weights_give_timms_output_and_gradients(
    torchvision, device, channels, bias, memory_format
):
    timm = pytest.importorskip("timm.layers")
    theirs = timm.SEModule(channels, bias=bias, device=device, dtype=torch.float64)
    hidden = theirs.fc1.out_channels
    ours = SqueezeExcitation(
        channels, hidden_channels=hidden, bias=bias, device=device, dtype=torch.float64
    )
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = random_image(device, 3, channels, 5, 7).to(memory_format=memory_format)
    assert_close(output_and_gradients(ours, x), output_and_gradients(theirs, x))
    assert ours(x).stride() == theirs(x).stride()


@pytest.mark.parametrize(
    "theirs_by, ours_by",
    [
        ({}, {}),
        ({"scale_activation": nn.Hardsigmoid}, {"gate_activation": F.hardsigmoid}),  # MobileNetV3
        ({"activation": nn.SiLU}, {"activation": F.silu}),  # EfficientNet
    ],
    ids=["as in the paper", "hard sigmoid", "SiLU"],
)
@pytest.mark.parametrize("memory_format", MEMORY, ids=str)
def test_torchvisions_weights_give_torchvisions_output_and_gradients(
    torchvision, device, memory_format, theirs_by, ours_by
):
    ops = pytest.importorskip("torchvision.ops")
    theirs = ops.SqueezeExcitation(24, 5, **theirs_by).to(device, torch.float64)
    ours = SqueezeExcitation(24, hidden_channels=5, device=device, dtype=torch.float64, **ours_by)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = random_image(device, 3, 24, 5, 7).to(memory_format=memory_format)
    assert_close(output_and_gradients(ours, x), output_and_gradients(theirs, x))


# One layer of a network, its prefix in the state_dict, and the functions that it needs.
NETWORKS = {
    "timm: efficientnet_b0": ("blocks.1.0.se.", {"act": F.silu}),
    "timm: seresnet50": ("layer1.0.se.", {}),
    "timm: regnety_002": ("s1.b1.se.", {}),
    "torchvision: efficientnet_b0": ("features.2.0.block.2.", {"act": F.silu}),
    "torchvision: mobilenet_v3_small": ("features.1.block.1.", {"gate_act": F.hardsigmoid}),
}


@pytest.mark.parametrize("which", NETWORKS)
def test_chapter_5_takes_a_layer_out_of_a_networks_weights(torchvision, which):
    library, name = which.split(": ")
    if library == "timm":
        theirs = pytest.importorskip("timm").create_model(name)
    else:
        theirs = getattr(pytest.importorskip("torchvision.models"), name)()
    chapter = Path(__file__).parents[1] / "book" / "squeeze_excitation.ipynb"
    cells = ["".join(cell["source"]) for cell in json.loads(chapter.read_text("utf-8"))["cells"]]
    code = [cell for cell in cells if "class SEBlock" in cell or "def gate_weights" in cell]
    names = {"nn": nn, "F": F, "torch": torch}
    exec("\n".join(code), names)
    prefix, functions = NETWORKS[which]
    layer = theirs.get_submodule(prefix.removesuffix("."))
    state = names["gate_weights"](theirs.state_dict(), prefix)
    hidden, channels = state["fc1.weight"].shape[:2]
    ours = names["SEBlock"](channels, hidden_channels=hidden, **functions)
    ours.load_state_dict(state, strict=True)
    x = torch.randn(2, channels, 5, 7)
    assert_close(ours(x), layer(x))


# Against the formula


def sigmoid(number):
    return 1 / (1 + math.exp(-number))


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_gate_is_its_formula_for_each_channel(device, bias):
    layer = SqueezeExcitation(6, reduction=2, bias=bias, device=device, dtype=torch.float64)
    x = random_image(device, 2, 6, 3, 4).detach()
    w1, w2 = (fc.weight.flatten(1).tolist() for fc in (layer.fc1, layer.fc2))
    b1, b2 = (fc.bias.tolist() if bias else [0.0] * 6 for fc in (layer.fc1, layer.fc2))
    gates = []
    for image in x.tolist():
        z = [sum(map(sum, channel)) / 12 for channel in image]
        hidden = [max(0.0, b1[i] + sum(w1[i][c] * z[c] for c in range(6))) for i in range(3)]
        gates.append(
            [sigmoid(b2[c] + sum(w2[c][i] * hidden[i] for i in range(3))) for c in range(6)]
        )
    expected = torch.tensor(gates, dtype=torch.float64, device=device)
    assert_close(layer.gate(x), expected[:, :, None, None])
    assert_close(layer(x), x * expected[:, :, None, None])


def test_a_gate_by_hand(device):
    layer = SqueezeExcitation(2, reduction=2, device=device)
    with torch.no_grad():
        layer.fc1.weight.copy_(torch.tensor([1.0, -1.0]).view(1, 2, 1, 1))
        layer.fc1.bias.fill_(0.5)
        layer.fc2.weight.copy_(torch.tensor([2.0, -2.0]).view(2, 1, 1, 1))
        layer.fc2.bias.copy_(torch.tensor([0.0, 1.0]))
    x = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]], device=device)
    # means 2 and 1, hidden 2 - 1 + 0.5 = 1.5, logits 3 and -3 + 1 = -2
    expected = torch.tensor([sigmoid(3), sigmoid(-2)], device=device).view(1, 2, 1, 1)
    assert_close(layer.gate(x), expected)


@pytest.mark.parametrize("shape", [(4, 5, 1, 1), (4, 5, 3, 2), (5, 3, 2)], ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_pointwise_is_the_1x1_convolution(device, bias, shape):
    conv = Pointwise(5, 3, 1, bias=bias, device=device, dtype=torch.float64)
    x = random_image(device, *shape)
    assert_close(conv(x), nn.Conv2d.forward(conv, x))
    assert repr(conv) == repr(nn.Conv2d(5, 3, 1, bias=bias))


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_types_are_averaged_in_float32(device, dtype):
    x = torch.randn(2, 6, 5, 7, device=device).to(dtype)
    assert_close(mean(x, (2, 3)), x.float().mean((2, 3)))


# Properties


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.01, 5))
def test_gates_lie_between_0_and_1_and_do_not_sum_to_1(seed, scale):
    torch.manual_seed(seed)
    layer = SqueezeExcitation(8, reduction=2, dtype=torch.float64)
    gate = layer.gate(scale * random_image("cpu", 2, 8, 3, 4))
    assert ((gate > 0) & (gate < 1)).all()
    assert (gate.sum(dim=1) > 1).all()


def test_forward_multiplies_by_the_gate(device):
    layer = SqueezeExcitation(32, device=device)
    x = torch.randn(2, 32, 5, 7, device=device)
    assert torch.equal(layer(x), x * layer.gate(x))


def test_a_permutation_of_channels_in_input_and_weights_permutes_the_output(device):
    layer, permuted = (
        SqueezeExcitation(8, reduction=2, device=device, dtype=torch.float64) for _ in range(2)
    )
    order = torch.randperm(8).to(device)
    state = layer.state_dict()
    state["fc1.weight"] = state["fc1.weight"][:, order]
    state["fc2.weight"], state["fc2.bias"] = state["fc2.weight"][order], state["fc2.bias"][order]
    permuted.load_state_dict(state)
    x = random_image(device, 2, 8, 3, 4)
    assert_close(permuted(x[:, order]), layer(x)[:, order])


def test_the_gate_does_not_see_where_things_are(device):
    layer = SqueezeExcitation(8, reduction=2, device=device, dtype=torch.float64)
    x = random_image(device, 2, 8, 3, 4)
    shuffled = x.flatten(2)[:, :, torch.randperm(12).to(device)].view_as(x)
    assert_close(layer.gate(shuffled), layer.gate(x))


def test_each_gate_depends_on_every_channel(device):
    layer = SqueezeExcitation(8, hidden_channels=8, device=device, dtype=torch.float64)
    with torch.no_grad():
        layer.fc1.bias.fill_(5.0)  # every hidden unit is on
    z = random_image(device, 1, 8, 1, 1)
    jacobian = torch.autograd.functional.jacobian(layer.gate, z).view(8, 8)
    assert (jacobian != 0).all()


def test_widths_and_initial_values(device):
    layer = SqueezeExcitation(40, reduction=16, device=device)
    assert layer.fc1.weight.shape == (2, 40, 1, 1)
    assert layer.fc2.weight.shape == (40, 2, 1, 1)
    assert sum(p.numel() for p in layer.parameters()) == 2 * 40 * 2 + 40 + 2
    assert SqueezeExcitation(8, hidden_channels=3).fc1.out_channels == 3
    assert SqueezeExcitation(8, reduction=1).fc1.out_channels == 8
    assert set(SqueezeExcitation(8, 4, bias=False).state_dict()) == {"fc1.weight", "fc2.weight"}
    torch.manual_seed(1)
    ours = SqueezeExcitation(8, reduction=2).state_dict()
    torch.manual_seed(1)
    pytorchs = {"fc1": nn.Conv2d(8, 4, 1), "fc2": nn.Conv2d(4, 8, 1)}
    assert_close(ours, nn.ModuleDict(pytorchs).state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_derivatives(device, check):
    layer = SqueezeExcitation(4, reduction=2, device=device, dtype=torch.float64)
    with torch.no_grad():
        layer.fc1.bias.fill_(1.0)  # away from the kink of the ReLU
    x = random_image(device, 2, 4, 2, 3)
    names = list(layer.state_dict())

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    # A GPU may add up in any order.
    assert check(run, (x, *layer.parameters()), nondet_tol=1e-12)


def test_weights_may_be_reparametrised(device):
    layer = SqueezeExcitation(8, reduction=2, device=device)
    x = torch.randn(2, 8, 3, 4, device=device)
    expected = layer(x)
    nn.utils.parametrizations.weight_norm(layer.fc1)
    assert_close(layer(x), expected)


# Errors


@pytest.mark.parametrize(
    "channels, kwargs, message",
    [
        (8, {}, "channels=8 cannot be reduced by reduction=16: .* hidden_channels"),
        (15, {"reduction": 16}, "channels=15 .* reduction=16: .* hidden_channels"),
        (8, {"reduction": 0}, "channels=8 .* reduction=0: .* hidden_channels"),
        (8, {"hidden_channels": 0}, "hidden_channels=0 must be at least 1"),
        (8, {"hidden_channels": -1}, "hidden_channels=-1 must be at least 1"),
    ],
)
def test_a_bottleneck_without_channels_is_refused(channels, kwargs, message):
    with pytest.raises(ValueError, match=message):
        SqueezeExcitation(channels, **kwargs)


def test_a_wrong_number_of_channels_is_refused(device):
    layer = SqueezeExcitation(32, device=device)
    for path in (layer, layer.gate):
        with pytest.raises(ValueError, match="x has 16 channels, but the layer expects 32"):
            path(torch.zeros(2, 16, 5, 7, device=device))
