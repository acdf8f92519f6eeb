"""resnet.py: against torchvision and timm, against the papers' counts, by its properties."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from children import CHECKS
from torch import nn
from torch.testing import assert_close

from attnbook import (
    CBAM,
    EfficientChannelAttention,
    SpatialAttention,
    SpatialTransformer,
    SqueezeExcitation,
    init_identity,
)
from attnbook.convert import resnet_from_timm
from attnbook.costs import multiply_adds, parameters
from attnbook.resnet import (
    DEPTHS,
    BasicBlock,
    Block,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
)


def image(device, batch=2, size=64, dtype=torch.float32):
    return torch.randn(batch, 3, size, size, dtype=torch.float64).to(device, dtype)


def moving(model):
    """Give batch normalisations running statistics that are not those of the start."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            nn.init.normal_(module.bias, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


ATTENTIONS = {
    "none": None,
    "squeeze-and-excitation": lambda channels: SqueezeExcitation(channels, 4),
    "ECA": EfficientChannelAttention,
    "CBAM": lambda channels: CBAM(channels, 4),
}


# Looked into


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)
def test_torchvision_extracts_its_features(torchvision, attention):
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    model = resnet18(attention, classes=5).eval()
    nodes = {"layer1": "early", "layer4.1.attention": "gated", "fc": "logits"}
    features = extraction.create_feature_extractor(model, nodes)
    x, seen = image("cpu", size=32), {}
    for name, key in nodes.items():
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, key=key: seen.update({key: output})
        )
    model(x)
    found = features(x)
    assert found.keys() == seen.keys()
    for key, feature in found.items():
        assert_close(feature, seen[key])


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck], ids=lambda block: block.__name__)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_blocks_call_the_layers_they_hold(torchvision, check, block):
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)

    def make():
        module = block(8, 8, 2, ATTENTIONS["squeeze-and-excitation"]).double()
        with torch.no_grad():
            for parameter in module.attention.parameters():
                parameter.abs_()  # no hidden unit is off, since what it sees is positive
            for layer in module.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.bias.fill_(0.5)
        return module

    check(make, lambda module: module(x))


# Against others


@pytest.mark.parametrize("depth, training", [(18, True), (50, False)])
def test_torchvisions_weights_give_torchvisions_output(torchvision, device, depth, training):
    models = pytest.importorskip("torchvision.models")
    theirs = moving(getattr(models, f"resnet{depth}")(weights=None, num_classes=10))
    theirs = theirs.to(device, torch.float64).train(training)
    ours = ResNet(depth, classes=10, device=device, dtype=torch.float64).train(training)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = image(device, dtype=torch.float64)
    assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_every_depth_has_torchvisions_weights(torchvision, depth):
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        theirs = getattr(models, f"resnet{depth}")(weights=None).state_dict()
    ours = ResNet(depth, device="meta").state_dict()
    assert {name: w.shape for name, w in ours.items()} == {k: w.shape for k, w in theirs.items()}


def test_initial_values_are_torchvisions(torchvision):
    models = pytest.importorskip("torchvision.models")
    theirs, ours = models.resnet18(weights=None).state_dict(), resnet18().state_dict()
    for name, weight in theirs.items():
        if weight.ndim == 4:  # thousands of normal numbers with equal standard deviations
            assert_close(ours[name].std(), weight.std(), rtol=0.05, atol=0)
            assert abs(ours[name].mean()) < 0.05 * weight.std()
        elif not name.startswith("fc"):
            assert torch.equal(ours[name], weight)


@pytest.mark.parametrize(
    "name, training", [("resnet18", False), ("seresnet18", True), ("seresnet50", False)]
)
def test_timms_network_converts(torchvision, device, name, training):
    timm = pytest.importorskip("timm")
    theirs = moving(timm.create_model(name, num_classes=10)).to(device, torch.float64)
    ours = resnet_from_timm(theirs.train(training))
    assert ours.training == theirs.training == training
    x = image(device, dtype=torch.float64)
    before = theirs(x)
    assert_close(ours(x), before)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    assert_close(theirs(x), before)  # it holds copies


def test_timms_attentions_convert_with_their_network(torchvision, device):
    timm = pytest.importorskip("timm")
    for layer, kind in [("eca", EfficientChannelAttention), ("cbam", CBAM)]:
        theirs = timm.create_model("resnet18", num_classes=3, block_args={"attn_layer": layer})
        ours = resnet_from_timm(theirs.to(device).eval())
        assert isinstance(ours.layer3[1].attention, kind)
        x = image(device)
        assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    "name, kwargs, message",
    [
        ("resnet26", {}, r"blocks=\(2, 2, 2, 2\) in four stages are none"),
        ("resnet18d", {}, "do not fit ResNet-18"),
        ("resnext50_32x4d", {}, "do not fit ResNet-50"),
        ("resnet18", {"act_layer": nn.SiLU}, "fit ResNet-18, but its output is another"),
        ("resnet50", {"output_stride": 8}, "fit ResNet-50, but its output is another"),
    ],
)
def test_variants_of_timm_are_refused(torchvision, name, kwargs, message):
    timm = pytest.importorskip("timm")
    with pytest.raises(ValueError, match=message):
        resnet_from_timm(timm.create_model(name, num_classes=3, **kwargs))


def test_only_timms_networks_convert():
    with pytest.raises(TypeError, match="takes a ResNet of timm's, not torch's Linear"):
        resnet_from_timm(nn.Linear(2, 2))


# Against the papers' counts


@pytest.mark.parametrize(
    "depth, attention, count",
    [
        (18, None, 11_689_512),
        (34, None, 21_797_672),
        (50, None, 25_557_032),
        (101, None, 44_549_160),
        (152, None, 60_192_808),
        (50, SqueezeExcitation, 28_088_024),
        (50, lambda channels: SqueezeExcitation(channels, bias=False), 28_071_976),
        (50, EfficientChannelAttention, 25_557_032 + 86),
        (50, lambda channels: CBAM(channels, bias=True), 28_089_624),
        (152, lambda channels: CBAM(channels, bias=True), 66_826_848),
    ],
)
def test_parameters(depth, attention, count):
    assert parameters(ResNet(depth, attention, device="meta")) == count


def test_the_convolution_that_strides_decides_the_multiply_adds():
    """3.858 of the CBAM paper's table 4, and 4.089 with torchvision's placement."""
    x = torch.empty(1, 3, 224, 224, device="meta")
    counts = [multiply_adds(resnet50(stride_in_1x1=one, device="meta"), x) for one in (True, False)]
    assert counts == [3_857_973_248, 4_089_184_256]


# Properties


@pytest.mark.parametrize(
    "attention",
    [
        SqueezeExcitation,
        EfficientChannelAttention,
        CBAM,
        lambda channels: SpatialAttention(3),
        lambda channels: SpatialTransformer(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), init_identity(nn.Linear(channels, 6))
            )
        ),
    ],
)
def test_every_block_holds_an_attention_of_its_own(device, attention):
    model = resnet18(attention, classes=10, device=device)
    kind = type(model.layer1[0].attention)
    found = [module for module in model.modules() if type(module) is kind]
    assert len(found) == 8 and kind is not nn.Identity
    model(image(device)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_attention_sees_the_branch_before_the_addition(device, block):
    class Nothing(nn.Module):
        def forward(self, x):
            return 0 * x

    layer = block(block.expansion * 4, 4, attention=lambda channels: Nothing()).to(device)
    x = torch.randn(2, block.expansion * 4, 5, 5, device=device)
    assert torch.equal(layer(x), x.relu())
    doubled = block(block.expansion * 4, 4, attention=lambda channels: nn.Identity()).to(device)
    doubled.load_state_dict(layer.state_dict())
    assert_close(doubled(x), (doubled.branch(x) + x).relu())


@pytest.mark.parametrize("one", [False, True])
def test_stride_is_where_it_is_asked_for(one):
    strides = [
        (module.conv1.stride[0], module.conv2.stride[0], module.conv3.stride[0])
        for module in resnet50(stride_in_1x1=one, device="meta").modules()
        if isinstance(module, Bottleneck)
    ]
    assert sum(1 for stride in strides if stride == ((2, 1, 1) if one else (1, 2, 1))) == 3
    assert sum(1 for stride in strides if stride == (1, 1, 1)) == 13


def test_the_named_networks_are_those_of_their_depth():
    named = [resnet18, resnet34, resnet50, resnet101, resnet152]
    for depth, make in zip(DEPTHS, named, strict=True):
        assert parameters(make(device="meta")) == parameters(ResNet(depth, device="meta"))


def test_dtype_device_copies_and_pickles(device):
    model = resnet18(SqueezeExcitation, classes=4, device=device, dtype=torch.bfloat16).eval()
    assert {(p.dtype, p.device.type) for p in model.parameters()} == {(torch.bfloat16, device.type)}
    x = image(device, size=32, dtype=torch.bfloat16)
    assert model(x).dtype == torch.bfloat16
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))


def test_images_of_any_size(device):
    model = resnet18(classes=4, device=device).eval()
    for height, width in [(1, 1), (33, 64), (64, 20)]:
        assert model(torch.randn(2, 3, height, width, device=device)).shape == (2, 4)


# Errors


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"depth=20 is not one of \[18, 34, 50, 101, 152\]"):
        ResNet(20)
    with pytest.raises(ValueError, match="depth=34 has no 1x1 convolution to stride in"):
        resnet34(stride_in_1x1=True)
    with pytest.raises(TypeError, match="attention is one CBAM, but every block needs its own"):
        resnet18(CBAM(64))  # pyright: ignore[reportArgumentType]


def test_wrong_images_are_refused(device):
    model = resnet18(classes=4, device=device)
    with pytest.raises(ValueError, match="x has 1 channels, but the layer expects 3"):
        model(torch.randn(2, 1, 32, 32, device=device))
    with pytest.raises(ValueError, match="x has 3 axes, but needs 4"):
        model(torch.randn(3, 32, 32, device=device))
    with pytest.raises(TypeError, match=r"x has dtype torch.int64"):
        model(torch.zeros(2, 3, 32, 32, dtype=torch.long, device=device))


def test_an_attention_that_changes_the_shape_is_refused(device):
    """A gate that is returned instead of multiplied would be broadcast without a word."""

    class Gate(SqueezeExcitation):
        def forward(self, x):
            return self.gate(x)

    model = resnet18(Gate, classes=4, device=device)
    message = r"returned shape \(2, 64, 1, 1\) for an input of shape \(2, 64, 16, 16\)"
    with pytest.raises(ValueError, match=message):
        model(image(device))
    with pytest.raises(NotImplementedError):
        Block.branch(model.layer1[0], torch.zeros(1, 64, 4, 4, device=device))
