"""Weights that were trained elsewhere, in the modules of this package.

What is converted is a copy: no storage is shared, each parameter keeps its device, its dtype and
its `requires_grad`, each layer its `training` and the numbers of its batch normalisation. What
cannot be carried is refused by name. Hooks are not carried.

Equal output means equal up to rounding. On GPUs that round convolutions to TF32 (A100 and later)
float32 outputs agree to about 1e-3, unless torch.backends.cudnn.allow_tf32 is False.

torchvision's SqueezeExcitation loads by its state_dict. Mind the second argument of its
`se_layer(c, s)`: it is the number of hidden channels, where ours is `reduction`. In its place pass
`lambda channels, squeeze: SqueezeExcitation(channels, hidden_channels=squeeze)`. A state_dict does
not name the functions: torchvision's EfficientNet needs `activation=F.silu` besides, and its
MobileNetV3 `gate_activation=F.hardsigmoid`. Without them its weights load and give other gates.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils import parametrize

from attnbook.cbam import CBAM
from attnbook.eca import EfficientChannelAttention
from attnbook.multi_head_attention import MultiHeadAttention
from attnbook.precision import no_autocast
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
# The parts of timm's attentions that have a counterpart here, by the names of their classes; of two
# names either.
TIMM = {
    "SEModule": {
        "fc1": "Conv2d",
        "bn": "Identity",
        "act": "ReLU ReLU6 SiLU Hardswish",
        "fc2": "Conv2d",
        "gate": "Sigmoid Hardsigmoid",
    },
    "SqueezeExcite": {  # of EfficientNet; that of timm.layers is another name of SEModule
        "conv_reduce": "Conv2d",
        "act1": "ReLU ReLU6 SiLU Hardswish",
        "conv_expand": "Conv2d",
        "gate": "Sigmoid Hardsigmoid",
    },
    "EcaModule": {"conv": "Conv1d", "gate": "Sigmoid"},
    "CbamModule": {
        "channel": "ChannelAttn",
        "channel.fc1": "Conv2d",
        "channel.act": "ReLU",
        "channel.fc2": "Conv2d",
        "channel.gate": "Sigmoid",
        "spatial": "SpatialAttn",
        "spatial.conv": "ConvNormAct",
        "spatial.conv.conv": "Conv2d",
        "spatial.conv.bn": "BatchNormAct2d",
        "spatial.conv.bn.drop": "Identity",
        "spatial.conv.bn.act": "Identity",
        "spatial.gate": "Sigmoid",
    },
}
SENET = "timm.models.senet.SEModule"  # another class than SEModule of timm.layers
ACTIVATIONS = {"ReLU": F.relu, "ReLU6": F.relu6, "SiLU": F.silu, "Hardswish": F.hardswish}
GATES = {"Sigmoid": torch.sigmoid, "Hardsigmoid": F.hardsigmoid}
# The options that timm makes these parts by, where theirs are other names.
TIMM_OPTIONS = {"act": "act_layer", "act1": "act_layer", "bn": "norm_layer", "gate": "gate_layer"}
# Those of its ResNet, by names without their digits.
TIMM_RESNET = {
    "conv": "Conv2d",
    "bn": "BatchNorm2d",
    "act": "ReLU",
    "drop_block": "Identity",
    "aa": "Identity",
    "drop_path": "not there",
    "maxpool": "MaxPool2d",
    "fc": "Linear",
}


def from_torch(module: nn.MultiheadAttention) -> MultiHeadAttention:
    """Return a MultiHeadAttention with the weights of `module`, which gives equal output.

    It holds copies; dropout, `training` and each `requires_grad` are those of `module`, hooks are
    not carried. Three things are left to the caller. Inputs are batch first here: if
    `module.batch_first` is False, transpose them, and the output. A mask is True where a
    query may attend: pass `~key_padding_mask` as
    (batch, 1, keys) and `~attn_mask` as (queries, keys). Weights are asked for by `attend`.

    Raises:
        TypeError: it is no nn.MultiheadAttention, nor a subclass that computes the same.
        ValueError: it was made with add_bias_kv or add_zero_attn, which have no counterpart here;
            its weights are of several dtypes, or pruned or otherwise computed.

    >>> import torch
    >>> theirs = nn.MultiheadAttention(8, num_heads=2, batch_first=True)
    >>> x = torch.randn(3, 5, 8)
    >>> torch.allclose(from_torch(theirs)(x), theirs(x, x, x)[0], atol=1e-6)
    True
    """
    if getattr(type(module), "forward", None) is not nn.MultiheadAttention.forward:
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
    _check_plain(module)
    dtypes = {parameter.dtype for parameter in module.parameters()}
    if len(dtypes) > 1:
        raise ValueError(f"the weights are of several dtypes, {dtypes}: module.to(dtype) first")
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
    for name, parameter in converted.named_parameters():
        layer, _, kind = name.rpartition(".")
        source = getattr(module, f"{layer}_{kind}", None)  # if the three have three sizes
        if layer == "out_proj":
            source = getattr(module.out_proj, kind)
        elif source is None:
            source = getattr(module, f"in_proj_{kind}")
        parameter.requires_grad_(source.requires_grad)
    converted.train(module.training)
    converted.out_proj.training = module.out_proj.training
    return converted


def from_timm(module: nn.Module) -> SqueezeExcitation | EfficientChannelAttention | CBAM:
    """Return the counterpart of timm's SEModule, EcaModule or CbamModule, with its weights.

    It takes SqueezeExcite, too, the gate of timm's EfficientNet and MobileNetV3
    (timm.models._efficientnet_blocks). It holds copies, and gives equal output; `training`, each
    `requires_grad` and the settings of the batch normalisation are those of `module`, hooks are not
    carried. The state_dict of the first three also loads unchanged into a module of the right sizes
    and functions; this function reads both off the module. timm rounds the hidden channels of
    SEModule to the nearest multiple of 8, at least 8, where the paper divides the channels by 16.

    Raises:
        TypeError: it is none of these, nor a subclass that computes the same; the SEModule of
            timm.models.senet is another class, and the message says how to load its weights.
        ValueError: it was made with an option that has no counterpart here: another gate, another
            activation (in SE all but ReLU, ReLU6, SiLU and hard swish), a normalisation,
            add_maxpool, use_mlp; or its weights are pruned or otherwise computed.

    Example, where timm is installed: `from_timm(timm.layers.SEModule(64))`.
    """
    kind = _kind_in_timm(module)
    if kind == SENET:
        hidden, channels = module.get_parameter("fc1.weight").shape[:2]
        raise TypeError(
            f"from_timm takes the SEModule of timm.layers, not that of {SENET.rpartition('.')[0]}; "
            f"that one's state_dict loads into SqueezeExcitation({channels}, "
            f"hidden_channels={hidden})"
        )
    if kind not in TIMM:
        raise TypeError(
            "from_timm takes timm's SEModule, SqueezeExcite, EcaModule or CbamModule, "
            f"not a {type(module).__name__}"
        )
    _check_plain(module)
    foreign = {
        f"{TIMM_OPTIONS.get(last, last)}={type(part).__name__}"
        for name, part in module.named_modules()
        for last in [name.rpartition(".")[2]]
        if name and type(part).__name__ not in TIMM[kind].get(name, "").split()
    }
    for option, made in {"add_maxpool": "add_maxpool", "use_mlp": "conv2"}.items():
        if getattr(module, made, False):
            foreign.add(f"{option}=True")
    if foreign:
        raise ValueError(f"{kind} with {', '.join(sorted(foreign))} has no counterpart here")
    if kind == "SqueezeExcite":
        module = _named_as_here(module)
    state = module.state_dict()
    if kind in ("SEModule", "SqueezeExcite"):
        hidden, channels = state["fc1.weight"].shape[:2]
        converted = SqueezeExcitation(
            channels,
            hidden_channels=hidden,
            bias="fc1.bias" in state,
            activation=ACTIVATIONS[type(module.act).__name__],
            gate_activation=GATES[type(module.gate).__name__],
            device="meta",
        )
    elif kind == "EcaModule":
        size = state["conv.weight"].shape[-1]
        converted = EfficientChannelAttention(kernel_size=size, device="meta")
    else:
        hidden, channels = state["channel.fc1.weight"].shape[:2]
        size = state["spatial.conv.conv.weight"].shape[-1]
        bias = "channel.fc1.bias" in state
        converted = CBAM(
            channels, hidden_channels=hidden, kernel_size=size, bias=bias, device="meta"
        )
    _carry(module, converted)
    for name, part in converted.named_modules():
        other = module.get_submodule(name)
        if isinstance(part, (nn.Conv1d, nn.Conv2d)) and part.extra_repr() != other.extra_repr():
            raise ValueError(
                f"{kind} with {name} of {other.extra_repr()} has no counterpart here, where it is "
                f"of {part.extra_repr()}"
            )
    return converted


def resnet_from_timm(module: nn.Module) -> ResNet:
    """Return a ResNet with the weights of one of timm's, say seresnet50, which gives equal output.

    It holds copies; `training`, each `requires_grad` and the settings of each batch normalisation
    are those of `module`, hooks are not carried; `from_timm` converts the attention of each block.
    timm has many variants of ResNet, and the weights of some do not tell them apart: one image is
    run through copies of both networks, on the CPU and in float32, and the outputs compared.

    Raises:
        TypeError: it is no ResNet of timm's.
        ValueError: it was made with an option that has no counterpart here: another depth or stem,
            groups, dilation, another activation, attention or pooling, SyncBatchNorm, drop_rate,
            drop_path or drop_block; or its weights are pruned or otherwise computed.

    Example, where timm is installed: `resnet_from_timm(timm.create_model("seresnet50"))`.
    """
    if _kind_in_timm(module) != "ResNet":
        library = type(module).__module__.partition(".")[0]
        raise TypeError(
            f"resnet_from_timm takes a ResNet of timm's, not {library}'s {type(module).__name__}"
        )
    _check_plain(module)
    foreign = {
        name: type(part).__name__
        for name, part in module.named_modules()
        if ".se." not in name
        for expected in [TIMM_RESNET.get(name.rpartition(".")[2].rstrip("0123456789"))]
        if expected is not None and type(part).__name__ != expected
    }
    refused = {
        f"attn_layer={type(part).__name__}"
        for name, part in module.named_modules()
        if name.endswith(".se") and _kind_in_timm(part) not in TIMM
    }
    # What shows in training only; SyncBatchNorm gathers over processes.
    refused |= {
        f"{name}={kind}"
        for name, kind in foreign.items()
        if "drop_" in name or kind == "SyncBatchNorm"
    }
    if rate := getattr(module, "drop_rate", 0.0):
        refused.add(f"drop_rate={rate}")
    if refused:
        raise ValueError(f"ResNet with {', '.join(sorted(refused))} has no counterpart here")
    if not isinstance(module.get_submodule("fc"), nn.Linear):
        raise ValueError(f"ResNet with fc={foreign['fc']} has no counterpart here: num_classes=0?")
    theirs = copy.deepcopy(module).eval().float().cpu()
    for norm in theirs.modules():
        # timm's first weights of a branch's last normalisation: they would hide the branch.
        if isinstance(norm, nn.BatchNorm2d) and norm.affine and not norm.weight.any():
            nn.init.ones_(norm.weight)
    blocks = [[*theirs.get_submodule(f"layer{stage}").children()] for stage in (1, 2, 3, 4)]
    found = hasattr(blocks[0][0], "conv3"), tuple(map(len, blocks))
    depths = {(block.expansion == 4, depths): depth for depth, (block, depths) in DEPTHS.items()}
    if found not in depths:
        raise ValueError(f"blocks={found[1]} in four stages are none of the depths {[*DEPTHS]}")
    classes = len(theirs.get_parameter("fc.weight"))
    ours = ResNet(depths[found], classes=classes, device="meta")
    for stage, their_blocks in enumerate(blocks, start=1):
        our_blocks = ours.get_submodule(f"layer{stage}").children()
        for our_block, their_block in zip(our_blocks, their_blocks, strict=True):
            if isinstance(their_block.se, nn.Module):
                our_block.attention = from_timm(their_block.se)
    named = f": {', '.join(f'{name}={kind}' for name, kind in foreign.items())}" * bool(foreign)
    image = torch.linspace(-2, 2, 3 * 64 * 64, device="cpu").view(1, 3, 64, 64)
    try:
        _carry(theirs, ours)
        with torch.no_grad(), no_autocast(image.device):
            same = torch.allclose(ours(image), theirs(image), rtol=1e-2, atol=1e-3)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"its weights do not fit ResNet-{depths[found]}: {error}{named}"
        ) from error
    if not same:
        raise ValueError(
            f"its weights fit ResNet-{depths[found]}, but its output is another: it was made with "
            f"an option that has no counterpart here{named}"
        )
    _carry(module, ours)
    return ours


def cbam_from_official(state_dict: Mapping[str, Tensor]) -> CBAM:
    """Return a CBAM with the weights of one block of the authors' code, which gives equal output.

    `state_dict` is that of their class CBAM, with its spatial gate and with its default pooling
    (which the weights do not tell). It holds copies, all to be trained. Their fully connected
    layers become 1x1 convolutions, and as they stack the pooled maps as [maximum, mean], the
    two planes of the 7x7 kernel change places.
    The batch normalisation keeps their momentum, 0.01. The module is in training mode.

    Their code: https://github.com/Jongchan/attention-module, MODELS/cbam.py.

    Raises:
        TypeError: it is no state_dict.
        ValueError: the names are not those of one block: they have a prefix, say, or the block has
            no spatial gate.

    >>> cbam = CBAM(32, bias=True)
    >>> theirs = {name: cbam.state_dict()[ours] for ours, name in OFFICIAL_CBAM.items()}
    >>> for fc in ("ChannelGate.mlp.1.weight", "ChannelGate.mlp.3.weight"):
    ...     theirs[fc] = theirs[fc].flatten(1)
    >>> cbam_from_official(theirs)(torch.randn(4, 32, 8, 8)).shape
    torch.Size([4, 32, 8, 8])
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"state_dict has type {type(state_dict).__name__}, but must be a mapping from names to "
            "tensors: module.state_dict()"
        )
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
    state["spatial.conv.bn.num_batches_tracked"] = state_dict.get(
        batches, torch.zeros((), device="cpu")
    )
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


def _kind_in_timm(module: nn.Module) -> str | None:
    """Return the name of the class of timm's that computes what `module` computes.

    Two classes are named SEModule: that of timm.models.senet is returned as SENET.
    """
    for kind in type(module).__mro__:
        if kind.__module__.partition(".")[0] == "timm":
            name = SENET if f"{kind.__module__}.{kind.__name__}" == SENET else kind.__name__
            return name if type(module).forward is kind.forward else None
    return None


def _named_as_here(module: nn.Module) -> nn.Module:
    """Return the parts of timm's SqueezeExcite, not copied, by the names of SEModule."""
    names = {"fc1": "conv_reduce", "act": "act1", "fc2": "conv_expand", "gate": "gate"}
    parts = nn.ModuleDict({ours: module.get_submodule(name) for ours, name in names.items()})
    parts.training = module.training
    return parts


def _check_plain(module: nn.Module) -> None:
    """Raise ValueError if a weight is computed at each call, and not one that can be copied."""
    for name, part in module.named_modules():
        computed = [key for key in part._parameters if key.endswith(("_orig", "_g"))]
        if computed or parametrize.is_parametrized(part):
            raise ValueError(
                f"a weight of {name or 'the module'} is pruned or parametrised: make it permanent "
                "first, with prune.remove, parametrize.remove_parametrizations, "
                "remove_weight_norm or remove_spectral_norm"
            )


def _carry(theirs: nn.Module, ours: nn.Module) -> None:
    """Give `ours` copies of all that `theirs` holds, and the settings of its layers.

    Raises:
        ValueError: names or shapes of the weights differ.
    """
    parts = {
        name.replace(".se", ".attention"): part
        for name, part in theirs.named_modules(remove_duplicate=False)
    }
    for name, norm in [*ours.named_modules()]:
        other = parts.get(name)
        if isinstance(norm, nn.BatchNorm2d) and isinstance(other, nn.BatchNorm2d):
            same = nn.BatchNorm2d(
                other.num_features,
                other.eps,
                other.momentum,
                other.affine,
                other.track_running_stats,
                device="meta",
            )
            ours.set_submodule(name, same)
    shapes, expected = (
        {name.replace(".se.", ".attention."): tuple(w.shape) for name, w in m.state_dict().items()}
        for m in (theirs, ours)
    )
    if shapes != expected:
        different = dict(sorted(shapes.items() ^ expected.items()))
        raise ValueError(f"names or shapes differ: {', '.join(different)}")
    ours.train(theirs.training)
    for name, part in ours.named_modules():
        if name not in parts:
            continue
        other = parts[name]
        part.training = other.training
        for key, parameter in other.named_parameters(recurse=False):
            copied = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
            part.register_parameter(key, copied)
        for key, buffer in other.named_buffers(recurse=False):
            part.register_buffer(key, buffer.clone())
