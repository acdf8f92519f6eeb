"""Squeeze-and-excitation: every channel of an image gets a gate, computed from all channels.

timm's and torchvision's weights load unchanged.

Axes: b batch, c channels, h height, w width; hidden, the channels of the bottleneck.

Paper: Hu, Shen, Albanie, Sun and Wu (2017), Squeeze-and-Excitation Networks, https://arxiv.org/abs/1709.01507.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn

from attnbook.checks import check_image
from attnbook.module import Module


class SqueezeExcitation(Module):
    """Multiply each channel by a gate between 0 and 1 that depends on the means of all channels.

    z_c = mean of channel c,    s = sigmoid(W2 ReLU(W1 z + b1) + b2),    output_c = s_c x_c

    Eqs. 2 to 4 of the paper. W1 is (hidden, c) and W2 is (c, hidden), with hidden = c // reduction
    unless `hidden_channels` says otherwise; the biases b1 and b2 are in the authors' network, not
    in their formula. The weights are kept as 1x1 convolutions `fc1` and `fc2`, so that those of
    timm and torchvision load; initial values are those of nn.Conv2d.

    Raises:
        ValueError: the bottleneck would have no channel.

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
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if hidden_channels is None:
            if not 1 <= reduction <= channels:
                raise ValueError(
                    f"channels={channels} cannot be reduced by reduction={reduction}: the "
                    f"bottleneck needs at least one channel; pass another reduction or "
                    "hidden_channels"
                )
            hidden_channels = channels // reduction
        if hidden_channels < 1:
            raise ValueError(f"hidden_channels={hidden_channels} must be at least 1")
        self.fc1 = nn.Conv2d(channels, hidden_channels, 1, bias=bias, device=device, dtype=dtype)
        self.fc2 = nn.Conv2d(hidden_channels, channels, 1, bias=bias, device=device, dtype=dtype)

    def gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        """Return what each channel is multiplied by, (b, c, 1, 1).

        Raises:
            TypeError: x is not floating-point.
            ValueError: x has a wrong number of axes or channels, or an empty side.
        """
        check_image(x, self.fc1.in_channels)
        squeezed = reduce(x, "b c h w -> b c", mean)
        excited = torch.sigmoid(self.mlp(squeezed))
        return rearrange(excited, "b c -> b c 1 1").to(x.dtype)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x times its gate."""
        return x * self.gate(x)

    def mlp(self, pooled: Float[Tensor, "*batch c"]) -> Float[Tensor, "*batch c"]:
        """Return W2 ReLU(W1 z + b1) + b2 for each vector z of pooled channels."""
        return pointwise(F.relu(pointwise(pooled, self.fc1)), self.fc2)


def mean(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Average over some axes, as a reduction for einops; half types are averaged in float32.

    >>> reduce(torch.ones(2, 3, 4, 4, dtype=torch.float16), "b c h w -> b c", mean).dtype
    torch.float32
    """
    # x.mean(axes) is the same number, but its backward pass writes the gradient out for each pixel.
    # That of a sum is one number for all of them.
    count = math.prod([x.shape[axis] for axis in axes])  # a list: the compiler takes no generator
    return x.sum(axes, dtype=torch.promote_types(x.dtype, torch.float32)) / count


def pointwise(z: Float[Tensor, "*batch c"], conv: nn.Conv2d) -> Float[Tensor, "*batch out"]:
    """Apply a 1x1 convolution to vectors instead of images: W z + b, in the dtype of z.

    On a 1x1 image the two are the same sum. A linear layer is faster.

    >>> conv, z = nn.Conv2d(4, 3, 1), torch.randn(2, 4)
    >>> torch.allclose(pointwise(z, conv), conv(z[:, :, None, None])[:, :, 0, 0], atol=1e-6)
    True
    """
    weight = rearrange(conv.weight, "out c 1 1 -> out c").to(z.dtype)
    return F.linear(z, weight, None if conv.bias is None else conv.bias.to(z.dtype))
