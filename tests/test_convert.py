"""convert.py: converted modules give the outputs of those that they were made from."""

from __future__ import annotations

import copy
import inspect
import json
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import nn
from torch.nn.utils import (
    parametrizations,
    parametrize,
    prune,
    remove_spectral_norm,
    remove_weight_norm,
    spectral_norm,
    weight_norm,
)
from torch.testing import assert_close

from attnbook import (
    CBAM,
    EfficientChannelAttention,
    SqueezeExcitation,
    cbam_from_official,
    from_timm,
    from_torch,
)
from attnbook.convert import resnet_from_timm


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


def squeeze_excite_of(_, **kwargs):
    blocks = pytest.importorskip("timm.models._efficientnet_blocks")
    return blocks.SqueezeExcite(40, **kwargs)


def eca_of(layers, **kwargs):
    return layers.EcaModule(40, **kwargs)


def cbam_of(layers, **kwargs):
    return layers.cbam.CbamModule(40, **kwargs)


@pytest.mark.parametrize(
    "make, kwargs, kind",
    [
        (squeeze_excitation_of, {}, SqueezeExcitation),
        (squeeze_excitation_of, {"bias": False, "rd_channels": 3}, SqueezeExcitation),
        (squeeze_excitation_of, {"gate_layer": "hard_sigmoid"}, SqueezeExcitation),
        (squeeze_excitation_of, {"act_layer": nn.Hardswish}, SqueezeExcitation),
        (squeeze_excitation_of, {"act_layer": nn.ReLU6}, SqueezeExcitation),
        (squeeze_excite_of, {"act_layer": "silu"}, SqueezeExcitation),
        (squeeze_excite_of, {"gate_layer": "hard_sigmoid"}, SqueezeExcitation),
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
    "make, message",
    [
        (lambda layers: layers.CecaModule(40), "EcaModule or CbamModule, not a CecaM"),
        (lambda layers: layers.cbam.LightCbamModule(40), "not a LightCbamModule"),
        (lambda layers: type("SEModule", (nn.Linear,), {})(2, 2), "not a SEModule"),
    ],
    ids=["CecaModule", "LightCbamModule", "of that name"],
)
def test_from_timm_refuses_other_modules(torchvision, make, message):
    with pytest.raises(TypeError, match=message):
        from_timm(make(pytest.importorskip("timm.layers")))


def test_from_timm_says_how_to_load_the_other_se_module(torchvision, device):
    senet = pytest.importorskip("timm.models.senet")
    theirs = randomised(senet.SEModule(64, 16)).to(device)
    other = r"of timm\.layers, not that of timm\.models\.senet; .*\(64, hidden_channels=4\)"
    with pytest.raises(TypeError, match=other):
        from_timm(theirs)
    ours = SqueezeExcitation(64, hidden_channels=4, device=device)
    ours.load_state_dict(theirs.state_dict())  # what the message says
    x = torch.randn(2, 64, 5, 6).to(device)
    assert_close(ours(x), theirs(x))


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


# Every option of their constructors: carried, or refused by name

# It gives equal output; where it cannot, the words by which it is refused stand instead.
CARRIED = None
NORM = partial(nn.BatchNorm2d, eps=0.1, momentum=0.3)
# By class and option: what the module is made with, and what comes of it.
OPTIONS = {
    "MultiheadAttention": {
        "embed_dim": ({"embed_dim": 12}, CARRIED),
        "num_heads": ({"num_heads": 4}, CARRIED),
        "dropout": ({"dropout": 0.5}, CARRIED),
        "bias": ({"bias": False}, CARRIED),
        "add_bias_kv": ({"add_bias_kv": True}, "add_bias_kv=True"),
        "add_zero_attn": ({"add_zero_attn": True}, "add_zero_attn=True"),
        "kdim": ({"kdim": 6}, CARRIED),
        "vdim": ({"vdim": 10}, CARRIED),
        "batch_first": ({"batch_first": True}, CARRIED),
        "device": ({"device": "meta"}, CARRIED),
        "dtype": ({"dtype": torch.float64}, CARRIED),
    },
    "SEModule": {
        "channels": ({"channels": 24}, CARRIED),
        "rd_ratio": ({"rd_ratio": 0.5}, CARRIED),
        "rd_channels": ({"rd_channels": 3}, CARRIED),
        "rd_divisor": ({"rd_divisor": 1}, CARRIED),
        "add_maxpool": ({"add_maxpool": True}, "add_maxpool=True"),
        "bias": ({"bias": False}, CARRIED),
        "act_layer": ({"act_layer": nn.SiLU}, CARRIED),
        "norm_layer": ({"norm_layer": NORM}, "norm_layer=BatchNorm2d"),
        "gate_layer": ({"gate_layer": "hard_sigmoid"}, CARRIED),
        "device": ({"device": "meta"}, CARRIED),
        "dtype": ({"dtype": torch.float64}, CARRIED),
    },
    "SqueezeExcite": {
        "in_chs": ({"in_chs": 24}, CARRIED),
        "rd_ratio": ({"rd_ratio": 0.5}, CARRIED),
        "rd_channels": ({"rd_channels": 3}, CARRIED),
        "act_layer": ({"act_layer": nn.SiLU}, CARRIED),
        "gate_layer": ({"gate_layer": "tanh"}, "gate_layer=Tanh"),
        "force_act_layer": ({"force_act_layer": nn.GELU}, "act_layer=GELU"),
        "rd_round_fn": ({"rd_round_fn": lambda width: int(width) + 1}, CARRIED),
        "device": ({"device": "meta"}, CARRIED),
        "dtype": ({"dtype": torch.float64}, CARRIED),
    },
    "EcaModule": {
        "channels": ({"channels": 300}, CARRIED),
        "kernel_size": ({"kernel_size": 5}, CARRIED),
        "gamma": ({"channels": 40, "gamma": 1}, CARRIED),
        "beta": ({"channels": 40, "beta": 5}, CARRIED),
        "act_layer": ({"channels": 40, "use_mlp": True, "act_layer": nn.SiLU}, "act_layer=SiLU"),
        "gate_layer": ({"gate_layer": "hard_sigmoid"}, "gate_layer=Hardsigmoid"),
        # timm reads these three with use_mlp only, which is refused.
        "rd_ratio": ({"rd_ratio": 0.5}, CARRIED),
        "rd_channels": ({"rd_channels": 3}, CARRIED),
        "rd_divisor": ({"rd_divisor": 1}, CARRIED),
        "use_mlp": ({"channels": 40, "use_mlp": True}, "use_mlp=True"),
        "device": ({"device": "meta"}, CARRIED),
        "dtype": ({"dtype": torch.float64}, CARRIED),
    },
    "CbamModule": {
        "channels": ({"channels": 48}, CARRIED),
        "rd_ratio": ({"rd_ratio": 0.5}, CARRIED),
        "rd_channels": ({"rd_channels": 3}, CARRIED),
        "rd_divisor": ({"rd_divisor": 8}, CARRIED),
        "spatial_kernel_size": ({"spatial_kernel_size": 3}, CARRIED),
        "act_layer": ({"act_layer": nn.SiLU}, "act_layer=SiLU"),
        "gate_layer": ({"gate_layer": "hard_sigmoid"}, "gate_layer=Hardsigmoid"),
        "mlp_bias": ({"mlp_bias": True}, CARRIED),
        "device": ({"device": "meta"}, CARRIED),
        "dtype": ({"dtype": torch.float64}, CARRIED),
    },
}
# What the options above are added to.
LEAST = {
    "MultiheadAttention": {"embed_dim": 8, "num_heads": 2},
    "SEModule": {"channels": 40},
    "SqueezeExcite": {"in_chs": 40},
    "EcaModule": {},
    "CbamModule": {"channels": 40},
}


def class_of(kind):
    if kind == "MultiheadAttention":
        return nn.MultiheadAttention
    layers = pytest.importorskip("timm.layers")
    blocks = pytest.importorskip("timm.models._efficientnet_blocks")
    # timm.layers has a SqueezeExcite of its own, another name of SEModule.
    return {**vars(layers), **vars(layers.cbam), "SqueezeExcite": blocks.SqueezeExcite}[kind]


def made(kind, device, **kwargs):
    """Return one of theirs, with random weights and moving averages that are not the first ones."""
    theirs = randomised(class_of(kind)(**{**LEAST[kind], "device": device, **kwargs}))
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2.0)
    return theirs


def converted(theirs):
    if isinstance(theirs, nn.MultiheadAttention):
        return from_torch(theirs)
    return resnet_from_timm(theirs) if hasattr(theirs, "layer4") else from_timm(theirs)


def assert_same_computation(ours, theirs):
    """Both give equal output, and keep equal statistics, whatever is random in them."""
    weight = next(theirs.parameters())
    if isinstance(theirs, nn.MultiheadAttention):
        inputs = [
            torch.randn(3, rows, size, dtype=torch.float64).to(weight)
            for rows, size in ((4, theirs.embed_dim), (5, theirs.kdim), (5, theirs.vdim))
        ]
        torch.manual_seed(1)
        output = ours(*inputs)
        torch.manual_seed(1)
        swap = "b n e -> b n e" if theirs.batch_first else "b n e -> n b e"
        swapped = (rearrange(tensor, swap) for tensor in inputs)
        expected = theirs(*swapped, need_weights=False)[0]
        if not theirs.batch_first:
            expected = rearrange(expected, "n b e -> b n e")
    else:
        channels = next(size for size in (weight.shape[1], 40) if size > 1)
        x = torch.randn(3, channels, 6, 5, dtype=torch.float64).to(weight)
        output, expected = ours(x), theirs(x)
        assert_close([*ours.buffers()], [*theirs.buffers()])
    assert (output.device, output.shape) == (expected.device, expected.shape)
    if weight.device.type != "meta":
        assert_close(output, expected)


@pytest.mark.parametrize(
    "kind, option", [(kind, option) for kind, options in OPTIONS.items() for option in options]
)
def test_each_option_is_carried_or_refused_by_name(torchvision, device, kind, option):
    parameters = inspect.signature(class_of(kind)).parameters
    assert set(parameters) == set(OPTIONS[kind]), "an option is not in the table, or is no more"
    kwargs, refused = OPTIONS[kind][option]
    assert kwargs[option] not in (parameters[option].default, LEAST[kind].get(option))
    theirs = made(kind, **{"device": device, **kwargs})
    if refused:
        with pytest.raises(ValueError, match=refused):
            converted(theirs)
        return
    for training in (False, True):
        assert_same_computation(converted(theirs.train(training)), theirs)


@pytest.mark.parametrize(
    "kwargs, refused",
    [
        ({"in_chans": 1}, "conv1.weight"),
        ({"output_stride": 16}, "its output is another"),
        ({"global_pool": "max"}, "its output is another"),
        ({"stem_type": "deep", "stem_width": 32}, "conv1=Sequential"),
        ({"replace_stem_pool": True}, "maxpool=Sequential"),
        ({"avg_down": True}, "downsample"),
        ({"act_layer": nn.SiLU}, "act1=SiLU"),
        ({"aa_layer": nn.AvgPool2d}, "aa=AvgPool2d"),
        ({"norm_layer": NORM}, CARRIED),
        ({"norm_layer": partial(nn.SyncBatchNorm, momentum=0.3)}, "bn1=SyncBatchNorm"),
        ({"drop_rate": 0.1}, "drop_rate=0.1"),
        ({"drop_path_rate": 0.1}, "drop_path=DropPath"),
        ({"drop_block_rate": 0.1}, "drop_block=DropBlock"),
        ({"zero_init_last": False}, CARRIED),
        ({"block_args": {"attn_layer": "se"}}, CARRIED),
        ({"block_args": {"attn_layer": "cbam"}, "norm_layer": NORM}, CARRIED),
        ({"block_args": {"attn_layer": "ese"}}, "attn_layer=EffectiveSEModule"),
    ],
    ids=str,
)
def test_options_of_timms_resnet_are_carried_or_refused_by_name(
    torchvision, device, kwargs, refused
):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("resnet18", num_classes=5, **kwargs)
    if refused:
        with pytest.raises(ValueError, match=refused):
            resnet_from_timm(theirs)
        return
    theirs.to(device, torch.float64)
    x = torch.randn(3, 3, 64, 64, dtype=torch.float64, device=device)
    for training in (False, True):
        ours = resnet_from_timm(theirs.train(training))
        assert_close(ours(x), theirs(x))
        buffers = {name.replace(".se.", ".attention."): b for name, b in theirs.named_buffers()}
        assert_close(dict(ours.named_buffers()), buffers)


def test_what_a_residual_branch_of_zeros_would_hide_is_seen(torchvision):
    """timm starts the last normalisation of each branch with zeros: what is before it is mute."""
    theirs = pytest.importorskip("timm").create_model("resnet18", num_classes=5)
    resnet_from_timm(theirs)
    theirs.layer2[1].act1 = nn.SiLU()
    with pytest.raises(ValueError, match=r"layer2\.1\.act1=SiLU"):
        resnet_from_timm(theirs)


# What a copy keeps, and what it refuses to copy

KEPT = {
    "MultiheadAttention": {},
    "MultiheadAttention of three sizes": {"kdim": 6, "vdim": 10},
    "SEModule": {},
    "SqueezeExcite": {"act_layer": nn.SiLU},
    "EcaModule": {"kernel_size": 5},
    "CbamModule": {"mlp_bias": True},
    "ResNet": {},
}


@pytest.fixture(params=KEPT)
def theirs(request, torchvision, device):
    kind, kwargs = request.param.partition(" ")[0], KEPT[request.param]
    if kind != "ResNet":
        return made(kind, device, **kwargs)
    create = pytest.importorskip("timm").create_model
    return create("resnet18", num_classes=5, block_args={"attn_layer": "cbam"}).to(device)


def their_name(name, theirs):
    """Return the name in their module of what has this name in ours."""
    layer, _, kind = name.rpartition(".")
    if hasattr(theirs, "conv_reduce"):
        return name.replace("fc1", "conv_reduce").replace("fc2", "conv_expand")
    if layer in ("q_proj", "k_proj", "v_proj"):
        own = f"{layer}_{kind}"
        return own if getattr(theirs, own, None) is not None else f"in_proj_{kind}"
    return name.replace("attention", "se")


def test_requires_grad_is_kept_of_each_parameter(theirs):
    names = [name for name, _ in theirs.named_parameters()]
    # Of a network every third at once, since it has many and its conversion runs it.
    chosen = [names[i::3] for i in range(3)] if len(names) > 20 else [[name] for name in names]
    for frozen in chosen:
        theirs.requires_grad_(True)
        for name in frozen:
            theirs.get_parameter(name).requires_grad_(False)
        for name, parameter in converted(theirs).named_parameters():
            assert parameter.requires_grad == (their_name(name, theirs) not in frozen), name


def test_training_is_kept_of_each_module(theirs):
    names = [name for name, _ in theirs.named_modules()]
    chosen = [names[i::3] for i in range(3)] if len(names) > 20 else [[name] for name in names]
    for training in (True, False):
        for others in chosen:
            theirs.train(training)
            for name in others:
                theirs.get_submodule(name).training = not training
            for name, part in converted(theirs).named_modules():
                source = their_name(name, theirs)
                if source in names:
                    assert part.training == theirs.get_submodule(source).training, name


def test_a_batch_norm_in_eval_mode_inside_a_training_module_stays_so(torchvision, device):
    theirs = made("CbamModule", device).train()
    theirs.spatial.conv.bn.eval()
    ours = converted(theirs)
    assert_same_computation(ours, theirs)
    assert ours.spatial.conv.bn.num_batches_tracked == 0
    assert_same_computation(ours.train(), theirs.train())
    assert ours.spatial.conv.bn.num_batches_tracked == 1


@pytest.mark.parametrize(
    "numbers",
    [
        {"eps": 0.1},
        {"momentum": 0.7},
        {"momentum": None},
        {"affine": False},
        {"track_running_stats": False},
        {"eps": 0.1, "momentum": 0.7},
    ],
    ids=str,
)
def test_numbers_of_batch_norm_are_carried(torchvision, device, numbers):
    theirs = made("CbamModule", device)
    kind = type(theirs.spatial.conv.bn)
    theirs.spatial.conv.bn = kind(1, apply_act=False, **numbers).to(device)
    for training in (True, False):
        ours = converted(theirs.train(training))
        for _ in range(2):
            assert_same_computation(ours, theirs)


def reparametrised(part, name, how):
    if how == "prune":
        prune.random_unstructured(part, name, amount=1)
        return partial(prune.remove, part, name)
    if how == "parametrised":
        parametrizations.weight_norm(part, name)
        return partial(parametrize.remove_parametrizations, part, name)
    if how == "orthogonal":
        parametrizations.orthogonal(part, name)
        return partial(parametrize.remove_parametrizations, part, name)
    if how == "old weight_norm":
        with pytest.warns(FutureWarning, match="deprecated"):
            weight_norm(part, name)
        return partial(remove_weight_norm, part, name)
    spectral_norm(part, name)
    return partial(remove_spectral_norm, part, name)


@pytest.mark.parametrize(
    "how", ["prune", "parametrised", "orthogonal", "old weight_norm", "old spectral_norm"]
)
@pytest.mark.parametrize(
    "kind, layer, weight",
    [
        ("MultiheadAttention", "", "in_proj_weight"),
        ("MultiheadAttention", "out_proj", "weight"),
        ("SEModule", "fc2", "weight"),
        ("SqueezeExcite", "conv_expand", "weight"),
        ("EcaModule", "conv", "weight"),
        ("CbamModule", "channel.fc1", "weight"),
        ("CbamModule", "spatial.conv.conv", "weight"),
        ("ResNet", "layer1.0.conv1", "weight"),
        ("ResNet", "layer3.0.downsample.0", "weight"),
        ("ResNet", "fc", "weight"),
    ],
)
def test_a_computed_weight_is_refused_until_it_is_removed(torchvision, kind, layer, weight, how):
    if kind == "ResNet":
        theirs = pytest.importorskip("timm").create_model("resnet18", num_classes=5)
    else:
        theirs = made(kind, "cpu").eval()
    remove = reparametrised(theirs.get_submodule(layer), weight, how)
    message = f"a weight of {layer or 'the module'} is pruned or parametrised: .*remove"
    with pytest.raises(ValueError, match=message):
        converted(theirs)
    remove()
    if kind != "ResNet":
        assert_same_computation(converted(theirs), theirs)


def memory(module):
    """Return where the tensors of a module lie: the address of the first byte of each storage."""
    tensors = [*module.parameters(), *module.buffers()]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def test_no_storage_is_shared(theirs, tmp_path):
    """A file of safetensors holds no two names of one tensor, unless the two are told to be one."""
    ours = converted(theirs)
    assert not memory(ours) & memory(theirs)
    names = ours.state_dict().keys()
    assert len(memory(ours)) == len(names)
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_model(ours, str(tmp_path / "ours.safetensors"))
    assert safetensors.load_file(tmp_path / "ours.safetensors").keys() == names
    again = copy.deepcopy(ours)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    safetensors.load_model(again, tmp_path / "ours.safetensors")
    assert_close(again.state_dict(), ours.state_dict(), rtol=0, atol=0)


def test_a_layer_that_stands_in_two_places_is_carried_to_both(torchvision, device):
    theirs = pytest.importorskip("timm").create_model(
        "resnet18", num_classes=5, block_args={"attn_layer": "se"}
    )
    theirs.layer1[1].conv1, theirs.layer1[1].se = theirs.layer1[0].conv1, theirs.layer1[0].se
    theirs.layer1[1].bn1 = theirs.layer1[0].bn1
    theirs.to(device, torch.float64).eval().requires_grad_(False)
    ours = resnet_from_timm(theirs)
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    assert len(memory(ours)) == len(ours.state_dict())
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, device=device)
    assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("kind", LEAST)
def test_a_subclass_converts_unless_it_computes_something_else(torchvision, device, kind):
    same = type("Same", (class_of(kind),), {"extra": 1})
    theirs = made(kind, device).eval()
    theirs.__class__ = same
    assert_same_computation(converted(theirs), theirs)
    theirs.__class__ = type("Other", (same,), {"forward": lambda self, x: x})
    with pytest.raises(TypeError, match="not a Other"):
        converted(theirs)


def test_block_of_chapter_2_is_timms_with_the_edits_that_it_names(torchvision):
    vision = pytest.importorskip("timm.models.vision_transformer")
    chapter = Path(__file__).parents[1] / "book" / "self_attention.ipynb"
    cells = ["".join(cell["source"]) for cell in json.loads(chapter.read_text("utf-8"))["cells"]]
    starts = ("class CausalAttention", "class PlainBlock")
    code = "\n".join(cell for cell in cells if cell.startswith(starts))
    causal, open_to_all = "rate, mask is None)", "rate, False)"
    assert code.count(causal) == 1
    names = {"nn": nn, "F": F, "causal_padded": lambda padding: None}
    exec(code.replace(causal, open_to_all), names)
    theirs, ours = vision.Block(16, 4, qkv_bias=True).eval(), names["PlainBlock"](16, 4).eval()
    state = {
        name.replace("attn.proj", "attn.out")
        .replace("attn.", "attention.")
        .replace("mlp.fc1", "network.0")
        .replace("mlp.fc2", "network.2"): value
        for name, value in theirs.state_dict().items()
    }
    ours.load_state_dict(state)
    ours.norm1.eps = ours.norm2.eps = 1e-6
    x = torch.randn(2, 7, 16)
    assert_close(ours(x), theirs(x))
