"""CBAM: a gate for each channel of an image, then a gate for each place.

timm's weights load unchanged, those of the authors' code through `attnbook.cbam_from_official`.

Axes: b batch, c channels, h height, w width; pool, the ways of pooling: [mean, maximum].

Paper: Woo et al. (2018), CBAM: Convolutional Block Attention Module,
https://arxiv.org/abs/1807.06521; the authors' code: https://github.com/Jongchan/attention-module.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, fx, nn

from attnbook.checks import centred_padding, check_image
from attnbook.module import Module
from attnbook.squeeze_excitation import SqueezeExcitation, mean


class ChannelAttention(SqueezeExcitation):
    """CBAM's channel gate: squeeze-and-excitation that reads each channel's maximum as well.

    s = sigmoid(MLP(mean of each channel) + MLP(maximum of each channel)),    output_c = s_c x_c

    Both go through the same MLP(z) = W2 ReLU(W1 z), and `bias=True` adds the biases that the
    authors' code has and their formula has not. Initial values and precision are those of
    `SqueezeExcitation`.

    >>> layer = ChannelAttention(channels=64, reduction=16)
    >>> layer.gate(torch.randn(2, 64, 8, 8)).shape
    torch.Size([2, 64, 1, 1])
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        *,
        hidden_channels: int | None = None,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the two layers of the gate.

        Args:
            channels: channels of the image.
            reduction: the bottleneck has channels // reduction channels; 16 as in the paper.
            hidden_channels: channels of the bottleneck, said outright, not by `reduction`; None.
            bias: whether both layers add a bias; False.
            device: where the parameters lie; PyTorch's default device.
            dtype: type of the parameters; PyTorch's default type.

        Raises:
            TypeError: a size is no whole number, or bias is not True or False.
            ValueError: a size is below 1, or the bottleneck would have no channel.
        """
        super().__init__(
            channels,
            reduction,
            hidden_channels=hidden_channels,
            bias=bias,
            device=device,
            dtype=dtype,
        )

    def gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        """Return what each channel of x, (batch, channels, height, width), is multiplied by.

        It is (batch, channels, 1, 1), of the dtype of x.

        Raises:
            TypeError: x is not floating-point.
            ValueError: x has a wrong number of axes or channels, or an empty side.
        """
        check_image(x, self.channels)
        average = mean(x, (2, 3))
        maximum = reduce(x, "b c h w -> b c", "max").to(average.dtype)
        excited = self.gate_activation(self.mlp(average) + self.mlp(maximum))
        return rearrange(excited, "b c -> b c 1 1").to(x.dtype)


class SpatialAttention(Module):
    """CBAM's spatial gate: one number between 0 and 1 for each place, shared by all channels.

    s = sigmoid(BatchNorm(conv(mean over the channels, maximum over the channels)))

    The convolution has 2 channels in and 1 out, a window of kernel_size x kernel_size, zeros
    around the image and no bias. The batch normalisation is in the authors' code, not in their
    formula; it starts as PyTorch's does, with weight 1, bias 0 and momentum 0.1 (theirs starts
    with weight 0, so that every gate starts at 0.5, and has momentum 0.01; for their start, call
    nn.init.zeros_(layer.conv.bn.weight)). While training, `gate` updates its running statistics as
    `forward` does, and the statistics are those of all images and places together: there, and only
    there, one image is seen by another.
    Freeze the batch normalisation of a trained gate alone: in a new one its statistics are 0 and 1,
    so that it normalises nothing, and with weight 0 the convolution gets no gradient.

    >>> layer = SpatialAttention(kernel_size=7)
    >>> layer.gate(torch.randn(2, 64, 8, 8)).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        kernel_size: int = 7,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the convolution over places and its batch normalisation.

        Args:
            kernel_size: height and width of the window, odd; 7 as in the paper.
            device: where the parameters lie; PyTorch's default device.
            dtype: type of the parameters; PyTorch's default type.

        Raises:
            TypeError: kernel_size is no whole number.
            ValueError: kernel_size is even or below 1.
        """
        super().__init__()
        padding = centred_padding(kernel_size)
        conv = nn.Conv2d(2, 1, kernel_size, padding=padding, bias=False, device=device, dtype=dtype)
        self.conv = nn.Sequential(
            OrderedDict(conv=conv, bn=nn.BatchNorm2d(1, device=device, dtype=dtype))
        )

    def gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Return what each place of x, (batch, channels, height, width), is multiplied by.

        It is (batch, 1, height, width), of the dtype of x.

        Raises:
            TypeError: x is not floating-point.
            ValueError: x has a wrong number of axes, or an empty side.
        """
        check_image(x)
        average = mean(x, (1,)).to(x.dtype)
        maximum = reduce(x, "b c h w -> b h w", "max")
        logits = self.conv(rearrange([average, maximum], "pool b h w -> b pool h w"))
        return torch.sigmoid(logits).to(x.dtype)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x, (batch, channels, height, width), times its gate; errors as of `gate`."""
        return x * self.gate(x)


class CBAM(Module):
    """Gate the channels, then gate the places of what is left.

    x' = channel_gate(x) * x,    output = spatial_gate(x') * x'

    Eqs. 1 to 3 of the paper. `reduction`, `hidden_channels` and `bias` belong to the channel gate,
    `kernel_size` to the spatial gate; initial values are theirs.

    New channel gates are near 0.5, and a new mask is 0.5 on average while training, so that a new
    CBAM multiplies its input by about 0.25. In a network that is trained already, start both gates
    at exactly 0.5, by weights of 0 in channel.fc2 and in spatial.conv.bn, and multiply by 4 the
    batch normalisation directly before, or the weight of the convolution that reads the output; or
    open both gates by their biases.

    >>> layer = CBAM(channels=64)
    >>> x = torch.randn(2, 64, 8, 8)
    >>> layer(x).shape, layer.gate(x).shape
    (torch.Size([2, 64, 8, 8]), torch.Size([2, 64, 8, 8]))
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        *,
        hidden_channels: int | None = None,
        kernel_size: int = 7,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the two gates.

        Args:
            channels: channels of the image.
            reduction: the bottleneck of the channel gate has channels // reduction channels; 16.
            hidden_channels: channels of that bottleneck, said outright, not by `reduction`; None.
            kernel_size: height and width of the spatial gate's window, odd; 7.
            bias: whether both layers of the channel gate add a bias; False.
            device: where the parameters lie; PyTorch's default device.
            dtype: type of the parameters; PyTorch's default type.

        Raises:
            TypeError: a size is no whole number, or bias is not True or False.
            ValueError: a size is below 1, the bottleneck would have no channel, or kernel_size is
                even.
        """
        super().__init__()
        self.channel = ChannelAttention(
            channels,
            reduction,
            hidden_channels=hidden_channels,
            bias=bias,
            device=device,
            dtype=dtype,
        )
        self.spatial = SpatialAttention(kernel_size, device=device, dtype=dtype)

    def gate(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return what x, (batch, channels, height, width), is multiplied by: both gates.

        The spatial gate is that of x after its channels have been gated. `forward` computes
        x * gate in the paper's order, (x * channel) * spatial: the same up to rounding. Errors are
        those of `ChannelAttention.gate`.
        """
        channel = self.channel.gate(x)
        return channel * self.spatial.gate(x * channel)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return x, (batch, channels, height, width), after both gates; errors as of `gate`."""
        return self.spatial(self.channel(x))


# To torch.fx each of these is one operation: they ask for dtypes and shapes, which a graph that is
# being traced does not know.
for function in ("check_image", "mean", "rearrange", "reduce"):
    fx.wrap(function)
