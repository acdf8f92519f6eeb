"""ResNet, with a place in every block for an attention over channels or places.

torchvision's weights load unchanged, those of timm's networks through
`attnbook.convert.resnet_from_timm`.

Axes: b batch, c channels, h height, w width of the input; i height, j width of the output.

Paper: He et al. (2015), Deep Residual Learning for Image Recognition,
https://arxiv.org/abs/1512.03385, table 1. Names and initial values are torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from einops import reduce
from jaxtyping import Float
from torch import Tensor, fx, nn

from attnbook.checks import check_flag, check_image, check_size
from attnbook.module import Module

# Makes the attention of a block from the number of its channels: SqueezeExcitation, CBAM, ...
MakeAttention = Callable[[int], nn.Module]


def convolution(channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """Return a centred convolution without bias, its weights from N(0, 2 / (out_channels k^2)).

    >>> convolution(3, 8, 3, stride=2)(torch.zeros(1, 3, 8, 8)).shape
    torch.Size([1, 8, 4, 4])
    """
    conv = nn.Conv2d(
        channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False
    )
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class Block(Module):
    """A residual block: attention looks at what the convolutions add, before it is added.

    output = ReLU(attention(branch(x)) + downsample(x))

    `downsample` is a 1x1 convolution with the block's stride, and a batch normalisation, where the
    branch changes the shape, else nothing.

    Raises:
        ValueError: the attention changes the shape of its input.
    """

    expansion = 1  # channels that leave the block, for each channel of its 3x3 convolution

    def __init__(
        self, channels: int, width: int, stride: int, attention: MakeAttention | None
    ) -> None:
        """Make what all blocks have: the attention and the downsampled copy.

        Args:
            channels: channels that enter.
            width: channels of the 3x3 convolution.
            stride: how far apart the places are that the output keeps.
            attention: makes a module from a number of channels; None, no attention.
        """
        super().__init__()
        out_channels = width * self.expansion
        self.attention = nn.Identity() if attention is None else attention(out_channels)
        self.downsample = nn.Sequential()
        if stride != 1 or channels != out_channels:
            self.downsample = nn.Sequential(
                convolution(channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels)
            )

    def branch(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out i j"]:
        """Return what the convolutions make of x, (batch, channels, height, width)."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out i j"]:
        """Return x, (batch, channels, height, width), with the attended branch added."""
        branch = self.branch(x)
        attended = self.attention(branch)
        check_kept(attended, branch)
        return F.relu(attended + self.downsample(x))


def check_kept(attended: Tensor, branch: Tensor) -> None:
    """Raise ValueError unless the attention kept the shape."""
    if attended.shape != branch.shape:
        raise ValueError(
            f"the attention returned shape {tuple(attended.shape)} for an input of shape "
            f"{tuple(branch.shape)}, but must keep it"
        )


class BasicBlock(Block):
    """Two 3x3 convolutions; the first one strides."""

    def __init__(
        self, channels: int, width: int, stride: int = 1, attention: MakeAttention | None = None
    ) -> None:
        """Make the layers of the block.

        Args:
            channels: channels that enter.
            width: channels of the 3x3 convolution.
            stride: how far apart the places are that the output keeps; 1.
            attention: makes a module from a number of channels; None, no attention.
        """
        super().__init__(channels, width, stride, attention)
        self.conv1, self.bn1 = convolution(channels, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = convolution(width, width, 3), nn.BatchNorm2d(width)

    def branch(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out i j"]:
        """Return what the convolutions make of x, (batch, channels, height, width)."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(Block):
    """A 1x1 convolution to few channels, a 3x3 one, a 1x1 one to four times as many.

    The paper strides in the first of them; torchvision and timm, a little better and a little
    dearer, in the second.
    """

    expansion = 4

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int = 1,
        attention: MakeAttention | None = None,
        *,
        stride_in_1x1: bool = False,
    ) -> None:
        """Make the layers of the block.

        Args:
            channels: channels that enter.
            width: channels of the 3x3 convolution.
            stride: how far apart the places are that the output keeps; 1.
            attention: makes a module from a number of channels; None, no attention.
            stride_in_1x1: whether the first 1x1 convolution strides, as in the paper; False.
        """
        super().__init__(channels, width, stride, attention)
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1, self.bn1 = convolution(channels, width, 1, first), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = convolution(width, width, 3, second), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = convolution(width, 4 * width, 1), nn.BatchNorm2d(4 * width)

    def branch(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b out i j"]:
        """Return what the convolutions make of x, (batch, channels, height, width)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


# Which blocks, and how many of them in each of the four stages.
DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(Module):
    """A 7x7 convolution, four stages of blocks at falling resolution, and a linear classifier.

    `resnet18` to `resnet152` are this class with its depth filled in. `attention(channels)` makes
    the attention of one block. torchvision's state_dict loads unchanged if there is none; timm's
    networks go through `attnbook.convert.resnet_from_timm`.

    >>> from attnbook import SqueezeExcitation
    >>> model = resnet50(SqueezeExcitation, device="meta")
    >>> sum(parameter.numel() for parameter in model.parameters())
    28088024
    """

    def __init__(
        self,
        depth: int,
        attention: MakeAttention | None = None,
        *,
        stride_in_1x1: bool = False,
        classes: int = 1000,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the network with PyTorch's random weights, as torchvision's.

        Args:
            depth: 18, 34, 50, 101 or 152 layers.
            attention: makes a module from a number of channels, one for each block: a class, say;
                None, no attention.
            stride_in_1x1: whether the first convolution of a block strides, as in the paper; False.
            classes: logits of an image; 1000.
            device: where the parameters lie; PyTorch's default device.
            dtype: type of the parameters; PyTorch's default type.

        Raises:
            TypeError: the attention is a module where a maker of modules is needed, or a size is no
                whole number.
            ValueError: the depth is none of the five, its blocks have no 1x1 convolution to stride
                in, or classes is below 1.
        """
        super().__init__()
        check_size("depth", depth, least=-math.inf)
        check_size("classes", classes)
        check_flag("stride_in_1x1", stride_in_1x1)
        if depth not in DEPTHS:
            raise ValueError(f"depth={depth} is not one of {sorted(DEPTHS)}")
        if isinstance(attention, nn.Module):
            raise TypeError(
                f"attention is one {type(attention).__name__}, but every block needs its own: pass "
                "what makes one for a number of channels, such as the class"
            )
        if attention is not None and not callable(attention):
            raise TypeError(
                f"attention={attention!r} has type {type(attention).__name__}, but must be what "
                "makes a module for a number of channels, such as the class, or None"
            )
        block, depths = DEPTHS[depth]
        if stride_in_1x1 and block is BasicBlock:
            raise ValueError(f"depth={depth} has no 1x1 convolution to stride in; 50 and above do")
        make = partial(Bottleneck, stride_in_1x1=True) if stride_in_1x1 else block
        with torch.get_default_device() if device is None else torch.device(device):
            self.conv1, self.bn1 = convolution(3, 64, 7, stride=2), nn.BatchNorm2d(64)
            channels, stages = 64, []
            for width, count in zip((64, 128, 256, 512), depths, strict=True):
                blocks = []
                for place in range(count):
                    stride = 2 if width > 64 and place == 0 else 1
                    blocks.append(make(channels, width, stride, attention))
                    channels = width * block.expansion
                stages.append(nn.Sequential(*blocks))
            self.layer1, self.layer2, self.layer3, self.layer4 = stages
            self.fc = nn.Linear(channels, classes)
        self.to(dtype=dtype)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Return the logits, (batch, classes), of the images x, (batch, 3, height, width).

        Raises:
            TypeError: x is not floating-point.
            ValueError: x has a wrong number of axes or channels, or an empty side.
        """
        check_image(x, channels=3)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(reduce(x, "b c h w -> b c", "mean"))


# To torch.fx each of these is one operation: they ask for dtypes and shapes, which a graph that is
# being traced does not know.
for function in ("check_image", "check_kept", "reduce"):
    fx.wrap(function)

resnet18 = partial(ResNet, 18)
resnet34 = partial(ResNet, 34)
resnet50 = partial(ResNet, 50)
resnet101 = partial(ResNet, 101)
resnet152 = partial(ResNet, 152)
