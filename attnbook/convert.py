"""Weights that were trained elsewhere, in the modules of this package."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from attnbook.cbam import CBAM
from attnbook.eca import EfficientChannelAttention
from attnbook.multi_head_attention import MultiHeadAttention
from attnbook.resnet import DEPTHS, ResNet
from attnbook.squeeze_excitation import SqueezeExcitation

# The names of CBAM's weights: here, and in the authors' code.
OFFICIAL_CBAM = {
    "channel.fc1.weight": "ChannelGate.mlp.1.weight",
    "channel.fc1.bias": "ChannelGate.mlp.1.bias",
    "channel.fc2.weight": "ChannelGate.mlp.3.weight",
    "channel.fc2.bias": "ChannelGate.mlp.3.bias",
    "spatial.conv.conv.weight": "SpatialGate.spatial.conv.weight",
    "spatial.conv.bn.weight": "SpatialGate.spatial.bn.weight",
    "spatial.conv.bn.bias": "SpatialGate.spatial.bn.bias",
    "spatial.conv.bn.running_mean": "SpatialGate.spatial.bn.running_mean",
    "spatial.conv.bn.running_var": "SpatialGate.spatial.bn.running_var",
}


def from_torch(module: nn.MultiheadAttention) -> MultiHeadAttention:
    """Return a MultiHeadAttention with the weights of `module`, which gives equal output.

    It holds copies, on the device, in the dtype and in the training mode of `module`. Three things
    are left to the caller. Inputs are batch first here: if `module.batch_first` is False, transpose
    them, and the output. A mask is True where a query may attend: pass `~key_padding_mask` as
    (batch, 1, keys) and `~attn_mask` as (queries, keys). Weights are asked for by `attend`.

    Raises:
        TypeError: it is no nn.MultiheadAttention.
        ValueError: it was made with add_bias_kv or add_zero_attn, which have no counterpart here.

    >>> import torch
    >>> theirs = nn.MultiheadAttention(8, num_heads=2, batch_first=True)
    >>> x = torch.randn(3, 5, 8)
    >>> torch.allclose(from_torch(theirs)(x), theirs(x, x, x)[0], atol=1e-6)
    True
    """
    if not isinstance(module, nn.MultiheadAttention):
        raise TypeError(f"from_torch takes an nn.MultiheadAttention, not a {type(module).__name__}")
    if module.bias_k is not None:
        raise ValueError(
            "add_bias_kv=True (bias_k and bias_v) cannot be converted: "
            "MultiHeadAttention has no learned extra key and value"
        )
    if module.add_zero_attn:
        raise ValueError(
            "add_zero_attn=True cannot be converted: MultiHeadAttention has no extra key of zeros"
        )
    weight = module.out_proj.weight
    converted = MultiHeadAttention(
        module.embed_dim,
        module.num_heads,
        kdim=module.kdim,
        vdim=module.vdim,
        bias=module.in_proj_bias is not None,
        dropout=module.dropout,
        device=weight.device,
        dtype=weight.dtype,
    )
    converted.load_state_dict(module.state_dict())
    return converted.train(module.training)


def from_timm(module: nn.Module) -> SqueezeExcitation | EfficientChannelAttention | CBAM:
    """Return the counterpart of timm's SEModule, EcaModule or CbamModule, with its weights.

    It holds copies, on the device, in the dtype and in the training mode of `module`, and gives
    equal output. The state_dict of these three also loads unchanged into a module of the right
    sizes; this function reads the sizes off the weights. timm rounds the hidden channels of SE to
    the nearest multiple of 8, at least 8, where the paper divides the channels by 16.

    Raises:
        TypeError: it is none of the three.
        ValueError: it was made with an option that has no counterpart here: another activation or
            gate, a normalisation, add_maxpool, use_mlp.

    Example, where timm is installed: `from_timm(timm.layers.SEModule(64))`.
    """
    kind, library = type(module).__name__, type(module).__module__.partition(".")[0]
    if library != "timm" or kind not in ("SEModule", "EcaModule", "CbamModule"):
        raise TypeError(f"from_timm takes timm's SEModule, EcaModule or CbamModule, not a {kind}")
    expected = {"act": "ReLU", "gate": "Sigmoid", "bn": "Identity", "conv2": "not there"}
    foreign = [
        f"{name}={type(child).__name__}"
        for part, parent in module.named_modules()
        if part in ("", "channel", "spatial")
        for name, child in parent.named_children()
        if type(child).__name__ != expected.get(name, type(child).__name__)
    ]
    if getattr(module, "add_maxpool", False):
        foreign.append("add_maxpool=True")
    if foreign:
        raise ValueError(f"{kind} with {', '.join(foreign)} has no counterpart here")
    state = module.state_dict()
    first = next(iter(state.values()))
    if kind == "SEModule":
        hidden, channels = state["fc1.weight"].shape[:2]
        bias = "fc1.bias" in state
        converted = SqueezeExcitation(channels, hidden_channels=hidden, bias=bias)
    elif kind == "EcaModule":
        converted = EfficientChannelAttention(kernel_size=state["conv.weight"].shape[-1])
    else:
        hidden, channels = state["channel.fc1.weight"].shape[:2]
        kernel_size = state["spatial.conv.conv.weight"].shape[-1]
        bias = "channel.fc1.bias" in state
        converted = CBAM(channels, hidden_channels=hidden, kernel_size=kernel_size, bias=bias)
    converted.to(device=first.device, dtype=first.dtype).load_state_dict(state)
    return converted.train(module.training)


def resnet_from_timm(module: nn.Module) -> ResNet:
    """Return a ResNet with the weights of one of timm's, say seresnet50, which gives equal output.

    It holds copies, on the device, in the dtype and in the training mode of `module`; `from_timm`
    converts the attention of each block. timm has many variants of ResNet, and the weights of some
    do not tell them apart: one image is run through both networks, and the outputs compared.

    Raises:
        TypeError: it is no ResNet of timm's.
        ValueError: it was made with an option that has no counterpart here: another depth or stem,
            groups, dilation, another activation or pooling.

    Example, where timm is installed: `resnet_from_timm(timm.create_model("seresnet50"))`.
    """
    kind, library = type(module).__name__, type(module).__module__.partition(".")[0]
    if (library, kind) != ("timm", "ResNet"):
        raise TypeError(f"resnet_from_timm takes a ResNet of timm's, not {library}'s {kind}")
    theirs = copy.deepcopy(module).eval()
    blocks = [[*theirs.get_submodule(f"layer{stage}").children()] for stage in (1, 2, 3, 4)]
    found = hasattr(blocks[0][0], "conv3"), tuple(map(len, blocks))
    depths = {(block.expansion == 4, depths): depth for depth, (block, depths) in DEPTHS.items()}
    if found not in depths:
        raise ValueError(f"blocks={found[1]} in four stages are none of the depths {[*DEPTHS]}")
    weight = theirs.get_parameter("fc.weight")
    ours = ResNet(depths[found], classes=len(weight)).to(weight).eval()
    for stage, their_blocks in enumerate(blocks, start=1):
        our_blocks = ours.get_submodule(f"layer{stage}").children()
        for our_block, their_block in zip(our_blocks, their_blocks, strict=True):
            if isinstance(their_block.se, nn.Module):
                our_block.attention = from_timm(their_block.se)
    state = {name.replace(".se.", ".attention."): w for name, w in theirs.state_dict().items()}
    image = torch.linspace(-2, 2, 3 * 64 * 64).view(1, 3, 64, 64).to(weight)
    try:
        ours.load_state_dict(state)
        with torch.no_grad():
            same = torch.allclose(ours(image), theirs(image), rtol=1e-2, atol=1e-3)
    except RuntimeError as error:
        raise ValueError(f"its weights do not fit ResNet-{depths[found]}: {error}") from error
    if not same:
        raise ValueError(
            f"its weights fit ResNet-{depths[found]}, but its output is another: it was made with "
            "an option that has no counterpart here"
        )
    return ours.train(module.training)


def cbam_from_official(state_dict: Mapping[str, Tensor]) -> CBAM:
    """Return a CBAM with the weights of one block of the authors' code, which gives equal output.

    `state_dict` is that of their class CBAM, with its spatial gate and with its default pooling
    (which the weights do not tell). Their fully connected layers become 1x1 convolutions, and as
    they stack the pooled maps as [maximum, mean], the two planes of the 7x7 kernel change places.
    The batch normalisation keeps their momentum, 0.01. The module is in training mode.

    Their code: https://github.com/Jongchan/attention-module, MODELS/cbam.py.

    Raises:
        ValueError: the names are not those of one block: they have a prefix, say, or the block has
            no spatial gate.

    >>> cbam = CBAM(32, bias=True)
    >>> theirs = {name: cbam.state_dict()[ours] for ours, name in OFFICIAL_CBAM.items()}
    >>> for fc in ("ChannelGate.mlp.1.weight", "ChannelGate.mlp.3.weight"):
    ...     theirs[fc] = theirs[fc].flatten(1)
    >>> cbam_from_official(theirs)(torch.randn(4, 32, 8, 8)).shape
    torch.Size([4, 32, 8, 8])
    """
    # Their first networks were saved before batch normalisation counted its batches.
    batches = "SpatialGate.spatial.bn.num_batches_tracked"
    needed, given = set(OFFICIAL_CBAM.values()), set(state_dict) - {batches}
    if needed != given:
        raise ValueError(
            "state_dict is not that of one block of the official CBAM: "
            f"it lacks {sorted(needed - given)} and has {sorted(given - needed)} besides"
        )
    state = {ours: state_dict[theirs] for ours, theirs in OFFICIAL_CBAM.items()}
    hidden, channels = state["channel.fc1.weight"].shape
    for fc in ("channel.fc1.weight", "channel.fc2.weight"):
        state[fc] = rearrange(state[fc], "out c -> out c 1 1")
    state["spatial.conv.conv.weight"] = state["spatial.conv.conv.weight"].flip(1)
    state["spatial.conv.bn.num_batches_tracked"] = state_dict.get(batches, torch.tensor(0))
    weight = state["spatial.conv.conv.weight"]
    converted = CBAM(
        channels,
        hidden_channels=hidden,
        kernel_size=weight.shape[-1],
        bias=True,
        device=weight.device,
        dtype=weight.dtype,
    )
    converted.load_state_dict(state)
    for part in converted.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.01
    return converted
