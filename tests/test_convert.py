"""convert.py: converted modules give the outputs of those that they were made from."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import nn
from torch.testing import assert_close

from attnbook import (
    CBAM,
    EfficientChannelAttention,
    SqueezeExcitation,
    cbam_from_official,
    from_timm,
    from_torch,
)


def randomised(module):
    """Give every parameter a random value: biases of zero would hide where they go."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) / 2)
    return module


# nn.MultiheadAttention


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 6}, {"vdim": 10}, {"kdim": 6, "vdim": 10}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_from_torch_gives_equal_output(device, batch_first, bias, sizes, dtype, training):
    theirs = nn.MultiheadAttention(
        8, 2, bias=bias, batch_first=batch_first, device=device, dtype=dtype, **sizes
    )
    ours = from_torch(randomised(theirs).train(training))
    assert ours.training == training
    assert all(
        (parameter.dtype, parameter.device.type) == (dtype, device.type)
        for parameter in ours.parameters()
    )
    x, y, z = (
        torch.randn(3, rows, size, dtype=torch.float64).to(device, dtype)
        for rows, size in ((4, 8), (5, theirs.kdim), (5, theirs.vdim))
    )
    permitted = torch.ones(4, 5, dtype=torch.bool, device=device).tril(1)
    swap = "n b e -> b n e"
    inputs = (x, y, z) if batch_first else (rearrange(tensor, swap) for tensor in (x, y, z))
    expected, expected_weights = theirs(*inputs, attn_mask=~permitted)
    expected = expected if batch_first else rearrange(expected, swap)
    output, weights = ours.attend(x, y, z, mask=permitted)
    close = {"rtol": 0.05, "atol": 0.05} if dtype == torch.bfloat16 else {}
    assert_close([ours(x, y, z, mask=permitted), output], [expected, expected], **close)
    assert_close(reduce(weights, "b h i j -> b i j", "mean"), expected_weights, **close)


def test_from_torch_keeps_the_dropout_and_copies_the_weights(device):
    theirs = randomised(nn.MultiheadAttention(8, 2, dropout=0.25, device=device))
    ours = from_torch(theirs)
    assert (ours.dropout, ours.num_heads, ours.num_kv_heads) == (0.25, 2, 2)
    before = theirs.in_proj_weight.clone()
    with torch.no_grad():
        ours.q_proj.weight.zero_()
    assert torch.equal(theirs.in_proj_weight, before)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True), ValueError, "add_bias_kv=True"),
        (lambda: nn.MultiheadAttention(8, 2, add_zero_attn=True), ValueError, "add_zero_attn=True"),
        (lambda: nn.Linear(8, 2), TypeError, "takes an nn.MultiheadAttention, not a Linear"),
    ],
    ids=["bias_k", "zero", "type"],
)
def test_from_torch_refuses_what_has_no_counterpart(make, error, message):
    with pytest.raises(error, match=message):
        from_torch(make())


# timm


def squeeze_excitation_of(layers, **kwargs):
    return layers.SEModule(40, **kwargs)


def eca_of(layers, **kwargs):
    return layers.EcaModule(40, **kwargs)


def cbam_of(layers, **kwargs):
    return layers.cbam.CbamModule(40, **kwargs)


@pytest.mark.parametrize(
    "make, kwargs, kind",
    [
        (squeeze_excitation_of, {}, SqueezeExcitation),
        (squeeze_excitation_of, {"bias": False, "rd_channels": 3}, SqueezeExcitation),
        (eca_of, {}, EfficientChannelAttention),
        (eca_of, {"gamma": 1}, EfficientChannelAttention),
        (cbam_of, {}, CBAM),
        (cbam_of, {"mlp_bias": True, "spatial_kernel_size": 3}, CBAM),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_from_timm_gives_equal_output(torchvision, device, make, kwargs, kind, dtype, training):
    layers = pytest.importorskip("timm.layers")
    theirs = randomised(make(layers, device=device, dtype=dtype, **kwargs)).train(training)
    ours = from_timm(theirs)
    assert type(ours) is kind
    assert ours.training == training
    assert all(p.dtype == dtype and p.device.type == device.type for p in ours.parameters())
    x = torch.randn(3, 40, 6, 5, dtype=torch.float64).to(device, dtype)
    assert_close(ours(x), theirs(x))
    before = theirs(x)
    with torch.no_grad():
        next(ours.parameters()).zero_()
    assert torch.equal(theirs(x), before)


@pytest.mark.parametrize(
    "make, kwargs, message",
    [
        (squeeze_excitation_of, {"add_maxpool": True}, "SEModule with add_maxpool=True has no"),
        (squeeze_excitation_of, {"act_layer": nn.SiLU}, "SEModule with act=SiLU has no"),
        (squeeze_excitation_of, {"norm_layer": nn.BatchNorm2d}, "with bn=BatchNorm2d has no"),
        (squeeze_excitation_of, {"gate_layer": "hard_sigmoid"}, "with gate=Hardsigmoid has no"),
        (eca_of, {"gate_layer": "hard_sigmoid"}, "EcaModule with gate=Hardsigmoid has no"),
        (eca_of, {"use_mlp": True}, "EcaModule with .*conv2=Conv1d.* has no"),
        (cbam_of, {"act_layer": nn.SiLU}, "CbamModule with act=SiLU has no"),
        (cbam_of, {"gate_layer": "hard_sigmoid"}, "gate=Hardsigmoid, gate=Hardsigmoid has no"),
    ],
)
def test_from_timm_refuses_options_without_a_counterpart(torchvision, make, kwargs, message):
    layers = pytest.importorskip("timm.layers")
    with pytest.raises(ValueError, match=message):
        from_timm(make(layers, **kwargs))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda layers: layers.CecaModule(40), "SEModule, EcaModule or CbamModule, not a CecaM"),
        (lambda layers: layers.cbam.LightCbamModule(40), "not a LightCbamModule"),
        (lambda layers: type("SEModule", (nn.Linear,), {})(2, 2), "not a SEModule"),
    ],
    ids=["CecaModule", "LightCbamModule", "of that name"],
)
def test_from_timm_refuses_other_modules(torchvision, make, message):
    with pytest.raises(TypeError, match=message):
        from_timm(make(pytest.importorskip("timm.layers")))


# The official CBAM: its computation, from its names and shapes


def official_state(device, dtype=torch.float64, channels=32, hidden=2, count_batches=True):
    shapes = {
        "ChannelGate.mlp.1.weight": (hidden, channels),
        "ChannelGate.mlp.1.bias": (hidden,),
        "ChannelGate.mlp.3.weight": (channels, hidden),
        "ChannelGate.mlp.3.bias": (channels,),
        "SpatialGate.spatial.conv.weight": (1, 2, 7, 7),
        "SpatialGate.spatial.bn.weight": (1,),
        "SpatialGate.spatial.bn.bias": (1,),
        "SpatialGate.spatial.bn.running_mean": (1,),
        "SpatialGate.spatial.bn.running_var": (1,),
    }
    state = {name: torch.randn(shape, device=device).to(dtype) for name, shape in shapes.items()}
    state["SpatialGate.spatial.bn.running_var"].abs_()
    if count_batches:
        state["SpatialGate.spatial.bn.num_batches_tracked"] = torch.tensor(7, device=device)
    return state


def official_forward(state, x):
    def mlp(z):
        w1, b1, w2, b2 = (
            state[f"ChannelGate.mlp.{i}.{kind}"] for i in (1, 3) for kind in ("weight", "bias")
        )
        return F.linear(F.relu(F.linear(z, w1, b1)), w2, b2)

    x = x * torch.sigmoid(mlp(x.mean((2, 3))) + mlp(x.amax((2, 3))))[:, :, None, None]
    pooled = torch.stack([x.amax(1), x.mean(1)], dim=1)
    logits = F.conv2d(pooled, state["SpatialGate.spatial.conv.weight"], padding=3)
    mean, var, weight, bias = (
        state[f"SpatialGate.spatial.bn.{kind}"]
        for kind in ("running_mean", "running_var", "weight", "bias")
    )
    return x * torch.sigmoid(F.batch_norm(logits, mean, var, weight, bias))


@pytest.mark.parametrize("count_batches", [True, False])
def test_cbam_from_official_gives_equal_output(device, count_batches):
    state = official_state(device, count_batches=count_batches)
    before = {name: tensor.clone() for name, tensor in state.items()}
    ours = cbam_from_official(state)
    assert ours.training
    assert ours.spatial.conv.bn.momentum == 0.01
    assert ours.spatial.conv.bn.num_batches_tracked == (7 if count_batches else 0)
    x = torch.randn(3, 32, 9, 8, dtype=torch.float64, device=device)
    assert_close(ours.eval()(x), official_forward(state, x))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    assert_close(state, before, rtol=0, atol=0)


def test_cbam_from_official_keeps_device_and_dtype(device):
    ours = cbam_from_official(official_state(device, torch.float32, channels=24, hidden=3))
    assert ours.channel.fc1.weight.shape == (3, 24, 1, 1)
    assert {(p.dtype, p.device.type) for p in ours.parameters()} == {(torch.float32, device.type)}


def test_cbam_from_official_refuses_what_is_not_one_block(device):
    state = official_state(device)
    prefixed = {f"layer1.0.cbam.{name}": tensor for name, tensor in state.items()}
    channel_only = {name: state[name] for name in state if name.startswith("ChannelGate")}
    for other, message in [
        (prefixed, r"lacks \['ChannelGate.mlp.1.bias'.* has \['layer1.0.cbam.ChannelGate"),
        (channel_only, r"lacks \['SpatialGate.* has \[\] besides"),
        ({**state, "fc.weight": torch.zeros(1)}, r"lacks \[\] and has \['fc.weight'\] besides"),
    ]:
        with pytest.raises(ValueError, match=message):
            cbam_from_official(other)
