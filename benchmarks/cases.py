"""What is measured beside what: each mechanism, its peers with the same weights, its floor.

A mechanism is a function of a size that returns a `Case`. Everything in a case maps the same input
to the same output, `floor` excepted, which only costs what the mechanism costs at the very least.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from attnbook import (
    CBAM,
    EfficientChannelAttention,
    MultiHeadAttention,
    RotaryEncoding,
    SpatialTransformer,
    SqueezeExcitation,
    rotary_angles,
)


@dataclass
class Variant:
    """A computation, and the modules whose parameters get gradients in a backward pass."""

    call: Callable[[Tensor], Tensor]
    modules: list[nn.Module] = field(default_factory=list)


@dataclass
class Case:
    mechanism: str
    size: str
    x: Tensor
    ours: Variant
    peers: dict[str, Variant]
    floor: Variant
    left_out: list[str]  # names of the peers that are not installed

    def variants(self) -> dict[str, Variant]:
        return {"attnbook": self.ours, **self.peers, "floor": self.floor}

    def to(self, device: torch.device) -> Case:
        """Move everything there, and return the case."""
        self.x = self.x.to(device)
        for variant in self.variants().values():
            for module in variant.modules:
                module.to(device)
        return self


def multi_head_attention(batch: int, length: int, *, dim: int = 512, heads: int = 8) -> Case:
    ours = MultiHeadAttention(dim, heads)

    def pytorch() -> Variant:
        theirs = nn.MultiheadAttention(dim, heads, batch_first=True)
        projections = (ours.q_proj, ours.k_proj, ours.v_proj)
        weights = {
            "in_proj_weight": torch.cat([projection.weight for projection in projections]),
            "in_proj_bias": torch.cat([projection.bias for projection in projections]),
            "out_proj.weight": ours.out_proj.weight,
            "out_proj.bias": ours.out_proj.bias,
        }
        theirs.load_state_dict(weights)
        return Variant(lambda x: theirs(x, x, x, need_weights=False)[0], [theirs])

    def timm() -> Variant:
        theirs = import_timm("timm.layers").Attention(dim, heads, qkv_bias=True)
        state = pytorch().modules[0].state_dict()
        for old, new in [("in_proj_", "qkv."), ("out_proj.", "proj.")]:
            state = {name.replace(old, new): value for name, value in state.items()}
        theirs.load_state_dict(state)
        return Variant(theirs, [theirs])

    def x_transformers(flash: bool) -> Callable[[], Variant]:
        def make() -> Variant:
            library = import_module("x_transformers.x_transformers")
            theirs = library.Attention(dim, heads=heads, dim_head=dim // heads, flash=flash)
            names = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
            for name, other in names.items():  # it has no biases; ours start at 0
                getattr(theirs, other).weight.data.copy_(getattr(ours, name).weight.data)
            return Variant(theirs, [theirs])

        return make

    # As many multiply-adds as the four projections, the scores and the averages take together.
    inner = 4 * dim + 2 * length
    left = nn.Linear(inner, batch * length, bias=False)
    right = nn.Linear(dim, inner, bias=False)
    return make_case(
        "multi_head_attention",
        f"B{batch} N{length}",
        torch.randn(batch, length, dim),
        Variant(ours, [ours]),
        {
            "PyTorch": pytorch,
            "timm": timm,
            "x-transformers": x_transformers(flash=False),
            "x-transformers, flash": x_transformers(flash=True),
        },
        floor=Variant(lambda x: left.weight @ right.weight, [left, right]),
    )


def squeeze_excitation(batch: int, channels: int, side: int, *, reduction: int = 16) -> Case:
    ours = SqueezeExcitation(channels, reduction)
    hidden = channels // reduction
    return make_case(
        "squeeze_excitation",
        f"B{batch} C{channels} {side}x{side}",
        torch.randn(batch, channels, side, side),
        Variant(ours, [ours]),
        {
            "timm": lambda: with_weights_of(
                ours, import_timm("timm.layers").SEModule(channels, rd_channels=hidden)
            ),
            "torchvision": lambda: with_weights_of(
                ours, import_torchvision("torchvision.ops").SqueezeExcitation(channels, hidden)
            ),
        },
    )


def eca(batch: int, channels: int, side: int) -> Case:
    ours = EfficientChannelAttention(channels)
    return make_case(
        "eca",
        f"B{batch} C{channels} {side}x{side}",
        torch.randn(batch, channels, side, side),
        Variant(ours, [ours]),
        {"timm": lambda: with_weights_of(ours, import_timm("timm.layers").EcaModule(channels))},
    )


def cbam(batch: int, channels: int, side: int, *, reduction: int = 16) -> Case:
    ours = CBAM(channels, reduction)
    hidden = channels // reduction
    return make_case(
        "cbam",
        f"B{batch} C{channels} {side}x{side}",
        torch.randn(batch, channels, side, side),
        Variant(ours, [ours]),
        {
            "timm": lambda: with_weights_of(
                ours, import_timm("timm.layers.cbam").CbamModule(channels, rd_channels=hidden)
            )
        },
    )


class Pose(nn.Module):
    """A localisation network without a network: one theta for each image, learned."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        identity = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0])
        self.theta = nn.Parameter(identity + 0.1 * torch.randn(batch, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.theta


def spatial_transformer(batch: int, channels: int, side: int) -> Case:
    pose = Pose(batch)

    def pytorch(x: Tensor) -> Tensor:
        theta = rearrange(pose(x), "b (xy three) -> b xy three", xy=2)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, align_corners=False)

    def kornia() -> Variant:
        warp_affine = import_module("kornia.geometry.transform").warp_affine
        normal = import_module("kornia.geometry.conversions").normal_transform_pixel
        # It takes the map from source to target, in pixels.
        theirs = Pose(batch)
        theta = rearrange(pose.theta.data, "b (xy three) -> b xy three", xy=2)
        last_row = repeat(torch.tensor([0.0, 0.0, 1.0]), "three -> b 1 three", b=batch)
        to_normal = normal(side, side, align_corners=False)
        in_pixels = to_normal.inverse() @ torch.cat([theta, last_row], dim=1).inverse() @ to_normal
        theirs.theta.data = rearrange(in_pixels[:, :2], "b xy three -> b (xy three)").contiguous()
        return Variant(
            lambda x: warp_affine(
                x,
                rearrange(theirs(x), "b (xy three) -> b xy three", xy=2),
                dsize=(side, side),
                align_corners=False,
            ),
            [theirs],
        )

    return make_case(
        "spatial_transformer",
        f"B{batch} C{channels} {side}x{side}",
        torch.randn(batch, channels, side, side),
        Variant(SpatialTransformer(pose), [pose]),
        {
            "PyTorch": lambda: Variant(pytorch, [pose]),
            "kornia": kornia,
        },
    )


def rotary(batch: int, length: int, *, heads: int = 8, dim: int = 64) -> Case:
    def timm() -> Variant:
        apply = import_timm("timm.layers").apply_rot_embed
        angles = repeat(rotary_angles(torch.arange(length), dim), "n pair -> n (pair two)", two=2)
        # Sines and cosines are made once, as timm's models do. The others make them at every call.
        table = nn.Module()
        table.register_buffer("sin", angles.sin())
        table.register_buffer("cos", angles.cos())
        return Variant(lambda x: apply(x, table.sin, table.cos), [table])

    def x_transformers() -> Variant:
        library = import_module("x_transformers.x_transformers")
        theirs = library.RotaryEmbedding(dim)
        return Variant(
            lambda x: library.apply_rotary_pos_emb(
                x, *theirs(torch.arange(x.shape[-2], device=x.device))
            ),
            [theirs],
        )

    return make_case(
        "rotary",
        f"B{batch} N{length}",
        torch.randn(batch, heads, length, dim),
        Variant(RotaryEncoding(dim)),
        {"timm": timm, "x-transformers": x_transformers},
    )


# The smallest first: it is what --quick runs; --compile runs the second.
IMAGES = [(16, 512, 7), (16, 64, 56), (16, 256, 28)]
SIZES: dict[Callable[..., Case], list[tuple[int, ...]]] = {
    multi_head_attention: [(8, 64), (8, 256), (4, 1024), (1, 4096)],
    squeeze_excitation: IMAGES,
    eca: IMAGES,
    cbam: IMAGES,
    spatial_transformer: [(16, 3, 64), (16, 32, 56), (16, 3, 224)],
    rotary: [(8, 256), (8, 1024)],
}
# Of these the peak memory is measured and no time: no peer has to fit.
MEMORY_SIZES: dict[Callable[..., Case], list[tuple[int, ...]]] = {
    multi_head_attention: [(8, 1024), (8, 2048)]
}


def make_case(
    mechanism: str,
    size: str,
    x: Tensor,
    ours: Variant,
    peers: dict[str, Callable[[], Variant]],
    *,
    floor: Variant | None = None,
) -> Case:
    made, left_out = {}, []
    for name, make in peers.items():
        try:
            made[name] = make()
        except ModuleNotFoundError:
            left_out.append(name)
    # Without a floor of its own: each number is read once and written once, in either pass.
    return Case(mechanism, size, x, ours, made, floor or Variant(lambda x: 2 * x), left_out)


def with_weights_of(ours: nn.Module, theirs: nn.Module) -> Variant:
    theirs.load_state_dict(ours.state_dict())
    return Variant(theirs, [theirs])


def import_torchvision(name: str) -> Any:
    """Import a module of torchvision, also where its operators were compiled for CUDA only.

    It then fails because two of them are not even declared; no peer here calls them.
    """
    try:
        return import_module(name)
    except RuntimeError:
        for loaded in [key for key in sys.modules if key.partition(".")[0] == "torchvision"]:
            del sys.modules[loaded]
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define("torchvision::nms", boxes)
        torch.library.define("torchvision::qnms", boxes)
        return import_module(name)


def import_timm(name: str) -> Any:
    import_torchvision("torchvision")  # which timm imports
    return import_module(name)
