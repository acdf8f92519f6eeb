"""Squeeze-and-excitation: every channel of an image gets a gate, computed from all channels.

timm's and torchvision's weights load unchanged. They do not say which functions stand between the
matrices and behind them: see `activation` and `gate_activation`.

Axes: b batch, c channels, h height, w width; hidden, the channels of the bottleneck.

Paper: Hu, Shen, Albanie, Sun and Wu (2017), Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, fx, nn

from attnbook.checks import check_flag, check_image, check_size
from attnbook.module import Module
from attnbook.precision import no_autocast


class SqueezeExcitation(Module):
    """Multiply each channel by a gate between 0 and 1 that depends on the means of all channels.

    z_c = mean of channel c,    s = sigmoid(W2 ReLU(W1 z + b1) + b2),    output_c = s_c x_c

    Eqs. 2 to 4 of the paper. W1 is (hidden, c) and W2 is (c, hidden); the biases b1 and b2 are in
    the authors' network, not in their formula. Other networks have other functions in place of the
    ReLU or of the sigmoid: see `activation` and `gate_activation`. The weights are kept as 1x1
    convolutions `fc1` and `fc2`, so that those of timm and torchvision load; initial values are
    those of nn.Conv2d. For half types everything up to the gate is computed in float32, under
    autocast too.

    >>> layer = SqueezeExcitation(channels=64, reduction=16)
    >>> x = torch.randn(2, 64, 8, 8)
    >>> layer(x).shape, layer.gate(x).shape
    (torch.Size([2, 64, 8, 8]), torch.Size([2, 64, 1, 1]))
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        *,
        hidden_channels: int | None = None,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] | None = None,
        gate_activation: Callable[[Tensor], Tensor] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the two layers of the gate.

        Args:
            channels: channels of the image.
            reduction: the bottleneck has channels // reduction channels; 16 as in the paper.
            hidden_channels: channels of the bottleneck, said outright, not by `reduction`; None.
            bias: whether both layers add a bias; True.
            activation: what stands between the two matrices; None is F.relu, and EfficientNet has
                F.silu (timm's `act_layer`).
            gate_activation: what makes gates of W2 ReLU(W1 z + b1) + b2; None is torch.sigmoid, and
                MobileNetV3 has F.hardsigmoid (torchvision's `scale_activation`).
            device: where the parameters lie; PyTorch's default device.
            dtype: type of the parameters; PyTorch's default type.

        Raises:
            TypeError: a size is no whole number, bias is not True or False, or activation or
                gate_activation cannot be called.
            ValueError: a size is below 1, or the bottleneck would have no channel.
        """
        super().__init__()
        check_size("channels", channels)
        check_size("reduction", reduction, least=-math.inf)
        check_flag("bias", bias)
        functions = {"activation": activation, "gate_activation": gate_activation}
        for name, function in functions.items():
            if function is not None and not callable(function):
                raise TypeError(
                    f"{name}={function!r} has type {type(function).__name__}, "
                    "but must be a function of a tensor, such as torch.sigmoid"
                )
        if hidden_channels is None:
            if not 1 <= reduction <= channels:
                raise ValueError(
                    f"channels={channels} cannot be reduced by reduction={reduction}: the "
                    f"bottleneck needs at least one channel; pass another reduction or "
                    "hidden_channels"
                )
            hidden_channels = channels // reduction
        check_size("hidden_channels", hidden_channels)
        self.channels = channels
        self.activation = activation or F.relu
        self.gate_activation = gate_activation or torch.sigmoid
        self.fc1 = Pointwise(channels, hidden_channels, 1, bias=bias, device=device, dtype=dtype)
        self.fc2 = Pointwise(hidden_channels, channels, 1, bias=bias, device=device, dtype=dtype)

    def gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        """Return what each channel of x, (batch, channels, height, width), is multiplied by.

        It is (batch, channels, 1, 1), of the dtype of x.

        Raises:
            TypeError: x is not floating-point.
            ValueError: x has a wrong number of axes or channels, or an empty side.
        """
        check_image(x, self.channels)
        squeezed = mean(x, (2, 3))
        excited = self.gate_activation(self.mlp(squeezed))
        return rearrange(excited, "b c -> b c 1 1").to(x.dtype)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x, (batch, channels, height, width), times its gate; errors as of `gate`."""
        return x * self.gate(x)

    def mlp(self, pooled: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch c"]:
        """Return W2 ReLU(W1 z + b1) + b2 for each vector z of pooled channels, (..., channels).

        In place of ReLU it is `activation`, if one was given.
        """
        places = rearrange(pooled, "... c -> ... c 1 1")
        return rearrange(self.fc2(self.activation(self.fc1(places))), "... c 1 1 -> ... c")


class Pointwise(nn.Conv2d):
    """A 1x1 convolution of stride 1, computed as the linear layer that it is at each place.

    In a gate the image has one place, and a linear layer is faster. To whatever looks into a module
    (hooks, adapters, sharding, `repr`) it is the nn.Conv2d that it is in timm and torchvision.

    >>> layer, x = Pointwise(4, 3, 1), torch.randn(2, 4, 1, 1)
    >>> torch.allclose(layer(x), nn.Conv2d.forward(layer, x), atol=1e-6)
    True
    """

    def forward(self, input: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b out h w"]:
        """Return W z + b at each place of an image (batch, channels, height, width)."""
        return pointwise(input, self.weight, self.bias)

    def _get_name(self) -> str:
        return "Conv2d"


def pointwise(
    x: Float[Tensor, "*b c h w"], weight: Float[Tensor, "out c 1 1"], bias: Tensor | None
) -> Float[Tensor, "*b out h w"]:
    """Return W z + b for the channels z at each place of x, in the dtype of x, autocast or not."""
    with no_autocast(x.device):
        matrix = weight.flatten(1).to(x.dtype)
        added = None if bias is None else bias.to(x.dtype)
        return F.linear(x.transpose(-3, -1), matrix, added).transpose(-3, -1)


def mean(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Average over some axes; half types are averaged in float32.

    >>> average = mean(torch.ones(2, 3, 4, 4, dtype=torch.float16), (2, 3))
    >>> average.shape, average.dtype
    (torch.Size([2, 3]), torch.float32)
    """
    # x.mean(axes) is the same number, but its backward pass writes the gradient out for each pixel.
    # That of a sum is one number for all of them.
    count = math.prod([x.shape[axis] for axis in axes])  # a list: the compiler takes no generator
    return x.sum(axes, dtype=torch.promote_types(x.dtype, torch.float32)) / count


# To torch.fx each of these is one operation: they ask for dtypes, shapes and devices, which a graph
# that is being traced does not know.
for function in ("check_image", "mean", "pointwise", "rearrange"):
    fx.wrap(function)
